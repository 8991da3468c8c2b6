"""A probe: latents are centred, encoded layer by layer, mixed over layers, and read by a head.

Its state is everything a prediction needs beside the latents, the centre and scale included. A probe may hold several
members side by side, each as if it were alone: every parameter has the layer, or the member, as its first axis.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.heads import TokenPooling
from permafrost.probes.models.layerwise import (
    Dropout,
    GroupedByWidth,
    LayerwiseLinear,
    LayerwiseLowRank,
    Noise,
    SeededRandom,
    mlp,
)
from permafrost.probes.models.member_layout import MemberLayout
from permafrost.probes.models.shared_reads import SharedReads, TextStates, TokenStates


class Probe(nn.Module):
    """Centre, scale and encode; what the probes for scores and classes share."""

    center: Tensor
    scale: Tensor

    pools = True
    """Whether tokens are pooled as they are read; else they are read one by one."""

    def __init__(self, spec: ProbeSpec, layout: MemberLayout) -> None:
        super().__init__()
        self.spec, self.layout = spec, layout
        self.pooling = TokenPooling(layout) if layout.tokens and self.pools else None
        layers, width = len(layout.sources), max(layout.input_widths)
        self.register_buffer("center", torch.zeros(layers, 1, width))
        self.register_buffer("scale", torch.ones(layers, 1, 1 if spec.scale == "layer" else width))
        self.noise = Noise(spec.noise)
        self.encoder = GroupedByWidth(layout.widths, layout.codes, self._part)

    @property
    def shape(self) -> tuple[int, ...]:
        """The widths in which probes agree that can stand side by side."""
        return max(self.layout.widths), self.encoder.code

    def _part(self, layers: int, width: int, code: int) -> nn.Module:
        spec = self.spec
        if spec.encoder == "none":
            return nn.Identity()
        if spec.encoder == "lowrank":
            return LayerwiseLowRank(layers, width, spec.rank)
        if spec.encoder == "mlp":
            return mlp(layers, width, code, spec.depth, spec.dropout, spec.norm)
        linear = LayerwiseLinear(layers, width, code, spec.start)
        return nn.Sequential(Dropout(spec.dropout), linear) if spec.dropout else linear

    def adapt(self, center: Tensor, scale: Tensor) -> None:
        """Take centre and scale of the inputs' layers: ``[layer, 1, width]``, and the same or ``[layer, 1, 1]``."""
        sources = list(self.layout.sources)
        self.center.copy_(center[sources])
        self.scale.copy_(scale[sources])

    def seed(self, seeds: Sequence[int]) -> None:
        """Give each member a generator of its own for what is random in training."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for name, module in self.named_modules():
            if isinstance(module, SeededRandom):
                pairs = zip(generators, self._places(name), strict=True)
                module.generators = [(generator, places) for generator, places in pairs if places]

    def _places(self, name: str) -> list[int]:
        """How many of the leading places of a module each member has."""
        members = len(self.layout.members)
        if name.startswith("encoder."):
            run = self.encoder.runs[int(name.split(".")[2])]
        elif name == "noise":
            run = slice(None)
        else:
            return [1] * members
        found: list[int] = torch.bincount(self.layout.member_of[run], minlength=members).tolist()
        return found

    def normal(self, latents: TextStates, how: SharedReads) -> Tensor:
        """``[distinct, row, width]``, centred and scaled; tokens are pooled by attention."""
        center, scale = how.first(self.center), how.first(self.scale)
        if isinstance(latents, TokenStates):
            if self.pooling is None or how.index is not None:
                raise ValueError("tokens are read by a probe for tokens, whose members do not share layers.")
            pooled: Tensor = self.pooling((latents.values - center[:, :, None]) / scale[:, :, None], latents.real)
            return pooled
        return (latents - center) / scale

    def encode(self, latents: TextStates, how: SharedReads) -> Tensor:
        """``[distinct, row, width]`` -> ``[layer, row, code]``."""
        normal = self.normal(latents, how)
        part = self.encoder.parts[0]
        if how.index is not None and len(self.encoder.parts) == 1 and not self.noise.acts:
            first, *others = part if isinstance(part, nn.Sequential) else [part]
            if isinstance(first, LayerwiseLinear):
                encoded = first.shared(normal[..., : self.encoder.shapes[0][0]], how)
                for module in others:
                    encoded = module(encoded)
                return encoded
        spread: Tensor = self.encoder(self.noise(how.spread(normal)))
        return spread

    def member_of(self) -> dict[str, Tensor]:
        """Parameter name -> ``[first axis]``, the member that each of its parts belongs to."""
        members = torch.arange(len(self.layout.members))
        found = {name: members for name, _ in self.named_parameters() if not name.startswith("encoder.")}
        if self.pooling is not None:
            found["pooling.query"] = self.layout.member_of
        return found | {f"encoder.{name}": self.layout.member_of[run] for name, run in self.layer_runs()}

    def layer_runs(self) -> Iterator[tuple[str, slice]]:
        """The encoder's parameters, each with the layers that it holds."""
        for index, run in enumerate(self.encoder.runs):
            for name, _ in self.encoder.parts[index].named_parameters():
                yield f"parts.{index}.{name}", run

    def by_layer(self) -> list[dict[str, Tensor]]:
        """For each layer, its part of the state; the names are those within a run."""
        found: list[dict[str, Tensor]] = []
        for run, part in zip(self.encoder.runs, self.encoder.parts, strict=True):
            state = part.state_dict()
            for place, layer in enumerate(range(run.start, run.stop)):
                own = {"center": self.center[layer], "scale": self.scale[layer]}
                if self.pooling is not None:
                    own["query"] = self.pooling.query.detach()[layer]
                found.append(own | {name: value[place] for name, value in state.items()})
        return found

    def by_member(self) -> list[dict[str, Tensor]]:
        """For each member, its part of the state of mixer and head."""
        return self._by_member(("mixer.", "head."))

    def _by_member(self, parts: tuple[str, ...]) -> list[dict[str, Tensor]]:
        state = {name: value for name, value in self.state_dict().items() if name.startswith(parts)}
        return [{name: value[member] for name, value in state.items()} for member in range(len(self.layout.members))]

    def load_members(self, by_layer: Sequence[dict[str, Tensor]], by_member: Sequence[dict[str, Tensor]]) -> None:
        """Copy the state of every layer and member in; what belongs to layers that a member lacks lies beyond."""
        with torch.no_grad():
            for run, part in zip(self.encoder.runs, self.encoder.parts, strict=True):
                for name, value in part.state_dict().items():
                    value.copy_(torch.stack([weights[name] for weights in by_layer[run]]))
            self.center.copy_(torch.stack([weights["center"] for weights in by_layer]))
            self.scale.copy_(torch.stack([weights["scale"] for weights in by_layer]))
            if self.pooling is not None:
                self.pooling.query.copy_(torch.stack([weights["query"] for weights in by_layer]))
            for member, weights in enumerate(by_member):
                self._load_member(member, weights)

    def _load_member(self, member: int, weights: dict[str, Tensor]) -> None:
        state = self.state_dict()
        for name, own in weights.items():
            common = [slice(min(sizes)) for sizes in zip(own.shape, state[name].shape[1:], strict=True)]
            state[name][(member, *common)] = own[tuple(common)]

    def rebuild(self, layout: MemberLayout) -> Self:
        """A fresh probe of the same kind with other seats."""
        raise NotImplementedError


def layout_for(
    spec: ProbeSpec,
    members: Sequence[tuple[int, ...]],
    widths: tuple[int, ...],
    tokens: bool = False,
    inputs: Sequence[Hashable] = (),
) -> MemberLayout:
    """Seats for members that read some of the layers of inputs of ``widths``; raises :class:`SpecError`."""
    return MemberLayout(tuple(members), widths, tuple(spec.codes(widths, inputs)), tokens)


def stack(probes: Sequence[Probe]) -> Probe:
    """Probes of one kind side by side: their members, with their weights, in one probe."""
    if len({probe.shape for probe in probes}) > 1:
        raise ValueError("probes side by side must have latents, codes and features of one largest width.")
    together = probes[0].rebuild(MemberLayout.stack([probe.layout for probe in probes]))
    by_layer = [weights for probe in probes for weights in probe.by_layer()]
    by_member = [weights for probe in probes for weights in probe.by_member()]
    together.load_members(by_layer, by_member)
    return together


def unstack(probe: Probe, member: int) -> Probe:
    """One member as a probe of its own, with its weights."""
    single = probe.rebuild(replace(probe.layout, members=(probe.layout.members[member],)))
    mine = [weights for weights, owner in zip(probe.by_layer(), probe.layout.member_of, strict=True) if owner == member]
    single.load_members(mine, [probe.by_member()[member]])
    return single
