"""Autoencoders: the probe's own encoder, and a decoder that is dropped once the encoder has learnt.

Layer by layer each is a network of its own; the unified one puts all layers into one embedding and reads each out.
"""

import torch
from torch import Tensor, nn

from permafrost.probes.models.layerwise import GroupedByWidth, LayerwiseLinear, mlp
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import TextStates, shared_reads


class Autoencoder(nn.Module):
    """``[layer, row, width]`` -> code -> back, every layer apart."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        spec = probe.spec

        def decoder(layers: int, code: int, width: int) -> nn.Module:
            if spec.encoder == "mlp":
                return mlp(layers, code, width, spec.depth, spec.dropout, norm=False)
            return LayerwiseLinear(layers, code, width)

        self.probe, self.how = probe, shared_reads(probe.layout)
        self.decoder = GroupedByWidth(probe.layout.codes, probe.layout.widths, decoder)

    def forward(self, latents: TextStates) -> Tensor:
        """Latents as the store has them -> their reconstruction, centred and scaled."""
        rebuilt: Tensor = self.decoder(self.probe.encode(latents, self.how))
        return rebuilt

    def member_of(self) -> dict[str, Tensor]:
        """Parameter name -> ``[first axis]``, the layer that each of its parts belongs to."""
        layers = torch.arange(len(self.probe.layout.sources))
        encoder = {f"probe.encoder.{name}": layers[run] for name, run in self.probe.layer_runs()}
        return encoder | {f"decoder.{name}": layers[run] for name, run in _layer_runs(self.decoder)}


class UnifiedAutoencoder(nn.Module):
    """Every layer's code projected up and added into one embedding, from which each layer is read out again."""

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self.probe, self.how = probe, shared_reads(probe.layout)
        mixer = probe.get_submodule("mixer")
        width = int(mixer.width)  # type: ignore[arg-type]
        self.decoder = GroupedByWidth([width] * len(probe.layout.sources), probe.layout.widths, LayerwiseLinear)

    def forward(self, latents: TextStates) -> Tensor:
        """Latents as the store has them -> their reconstruction, centred and scaled."""
        mixed = self.probe.get_submodule("mixer")(self.probe.layout.by_member(self.probe.encode(latents, self.how)))
        rebuilt: Tensor = self.decoder(mixed.expand(len(self.probe.layout.sources), -1, -1))
        return rebuilt

    def member_of(self) -> dict[str, Tensor]:
        """Parameter name -> ``[first axis]``: all belong to one member."""
        return {name: torch.zeros(len(part), dtype=torch.int64) for name, part in self.named_parameters()}


def _layer_runs(module: GroupedByWidth) -> list[tuple[str, slice]]:
    named = [(index, name) for index, part in enumerate(module.parts) for name, _ in part.named_parameters()]
    return [(f"parts.{index}.{name}", module.runs[index]) for index, name in named]


def squared_errors(model: Autoencoder | UnifiedAutoencoder, latents: TextStates) -> tuple[Tensor, Tensor, Tensor]:
    """How far a reconstruction is off: squared errors ``[layer, row]``, errors and target ``[layer, row, width]``."""
    target = model.probe.normal(latents, model.how)
    errors = model(latents) - target
    return errors.square().sum(-1), errors, target
