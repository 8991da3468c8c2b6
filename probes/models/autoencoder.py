"""Autoencoder for pretraining: the probe's own encoder, and a decoder that is dropped after the pretraining.

Every layer has a decoder of its own. If the probe's mixer is unified, the codes of all layers are added to one
embedding, and every layer is reconstructed from it.
"""

import torch
from torch import Tensor, nn

from permafrost.probes.models.layerwise import GroupedByWidth, LayerwiseLinear, linear_layers
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import TextStates, shared_reads


class Autoencoder(nn.Module):
    """Autoencoder, ``[layer, row, width]`` -> code -> ``[layer, row, width]``; unless unified, layers share nothing."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        spec, widths = probe.spec, probe.layout.widths
        self.probe, self.reads, self.unified = (
            probe,
            shared_reads(probe.layout, device=probe.device),
            spec.mixer == "unified",
        )

        def build_decoder(layers: int, code: int, width: int) -> nn.Module:
            if spec.encoder == "mlp" and not self.unified:
                sizes = [code, *[width] * spec.depth]
                return nn.Sequential(*linear_layers(layers, sizes, spec.dropout, nn.GELU))
            return LayerwiseLinear(layers, code, width)

        codes = [max(widths)] * len(widths) if self.unified else probe.layout.codes
        self.decoder = GroupedByWidth(codes, widths, build_decoder).to(probe.device)

    def forward(self, latents: TextStates) -> Tensor:
        """Reconstruct stored latents: ``[layer, row, width]``, centred and scaled."""
        codes = self.probe.encode(latents, self.reads)
        if self.unified:
            mixed = self.probe.get_submodule("mixer")(self.probe.layout.by_member(codes))
            codes = mixed.expand(len(codes), -1, -1)
        reconstruction: Tensor = self.decoder(codes)
        return reconstruction

    def member_of(self) -> dict[str, Tensor]:
        """Return parameter name -> ``[first axis]``, the layer that each index belongs to; zeros if unified."""
        if self.unified:
            return {name: torch.zeros(len(value), dtype=torch.int64) for name, value in self.named_parameters()}
        layers = torch.arange(len(self.probe.layout.sources))
        encoder = {f"probe.encoder.{name}": layers[run] for name, run in self.probe.encoder.layer_runs()}
        return encoder | {f"decoder.{name}": layers[run] for name, run in self.decoder.layer_runs()}


def squared_errors(model: Autoencoder, latents: TextStates) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared errors ``[layer, row]`` of a reconstruction, and errors and target ``[layer, row, width]``."""
    target = model.probe.normalize(latents, model.reads)
    errors = model(latents) - target
    return errors.square().sum(-1), errors, target
