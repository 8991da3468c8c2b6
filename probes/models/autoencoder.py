"""Autoencoders for pretraining: the probe's own encoder, and a decoder that is dropped after the pretraining.

The layerwise autoencoder has a decoder of its own in each layer; the unified one adds the codes of all layers to one
embedding and reconstructs every layer from it.
"""

import torch
from torch import Tensor, nn

from permafrost.probes.models.layerwise import GroupedByWidth, LayerwiseLinear, mlp
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import TextStates, shared_reads


class Autoencoder(nn.Module):
    """Layerwise autoencoder, ``[layer, row, width]`` -> code -> ``[layer, row, width]``; layers share nothing."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        spec = probe.spec

        def build_decoder(layers: int, code: int, width: int) -> nn.Module:
            if spec.encoder == "mlp":
                return mlp(layers, code, width, spec.depth, spec.dropout, norm=False)
            return LayerwiseLinear(layers, code, width)

        self.probe, self.reads = probe, shared_reads(probe.layout)
        self.decoder = GroupedByWidth(probe.layout.codes, probe.layout.widths, build_decoder)

    def forward(self, latents: TextStates) -> Tensor:
        """Reconstruct stored latents: ``[layer, row, width]``, centred and scaled."""
        reconstruction: Tensor = self.decoder(self.probe.encode(latents, self.reads))
        return reconstruction

    def member_of(self) -> dict[str, Tensor]:
        """Return parameter name -> ``[first axis]``, the layer that each index of its first axis belongs to."""
        layers = torch.arange(len(self.probe.layout.sources))
        encoder = {f"probe.encoder.{name}": layers[run] for name, run in self.probe.encoder.layer_runs()}
        return encoder | {f"decoder.{name}": layers[run] for name, run in self.decoder.layer_runs()}


class UnifiedAutoencoder(nn.Module):
    """Autoencoder with one embedding: the sum of every layer's projected code, from which each layer is decoded."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe, self.reads = probe, shared_reads(probe.layout)
        mixer = probe.get_submodule("mixer")
        width = int(mixer.width)  # type: ignore[arg-type]
        self.decoder = GroupedByWidth([width] * len(probe.layout.sources), probe.layout.widths, LayerwiseLinear)

    def forward(self, latents: TextStates) -> Tensor:
        """Reconstruct stored latents: ``[layer, row, width]``, centred and scaled."""
        codes = self.probe.encode(latents, self.reads)
        mixed = self.probe.get_submodule("mixer")(self.probe.layout.by_member(codes))
        reconstruction: Tensor = self.decoder(mixed.expand(len(self.probe.layout.sources), -1, -1))
        return reconstruction

    def member_of(self) -> dict[str, Tensor]:
        """Return parameter name -> ``[first axis]``: zeros, as there is one member."""
        return {name: torch.zeros(len(value), dtype=torch.int64) for name, value in self.named_parameters()}


def squared_errors(model: Autoencoder | UnifiedAutoencoder, latents: TextStates) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squared errors ``[layer, row]`` of a reconstruction, and errors and target ``[layer, row, width]``."""
    target = model.probe.normalize(latents, model.reads)
    errors = model(latents) - target
    return errors.square().sum(-1), errors, target
