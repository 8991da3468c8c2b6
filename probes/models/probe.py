"""Base class of probes: normalize latents and encode them layer by layer; subclasses add a mixer and a head.

The state of a probe is everything that a prediction needs besides the latents, centre and scale included. A stacked
probe holds several independent members: every parameter has the layer, or the member, as its first axis.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.layerwise import (
    Dropout,
    GroupedByWidth,
    LayerwiseLinear,
    LayerwiseLowRank,
    Noise,
    SeededRandom,
    mlp,
)
from permafrost.probes.models.shared_reads import MemberLayout, SharedReads, TextStates, TokenStates


class TokenPooling(nn.Module):
    """Attention pooling over the tokens of a text, with a learned query for each layer; at the start, the mean.

    Source: Bahdanau et al. (2015), section 3.1, with one learned query and a dot product for its score.
    """

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(len(layout.sources), 1, 1, max(layout.input_widths)))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """States ``[layer, row, token, width]`` and token mask ``[row, token]`` -> ``[layer, row, width]``."""
        scores = (x * self.query).sum(-1) / math.sqrt(x.shape[-1])
        weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        return torch.matmul(weights[:, :, None], x.masked_fill(~mask[:, :, None], 0)).squeeze(2)


class Probe(nn.Module):
    """Base of all probes: centre, scale and layerwise encoder."""

    center: Tensor
    scale: Tensor

    pools = True
    """Whether token states are pooled to one vector for each text; else the probe scores single tokens."""

    features = 0
    """Input width of the head; 0 if there is none."""

    head_drops_out = True
    """Whether the head has the dropout of latents that no encoder reads."""

    def __init__(self, spec: ProbeSpec, layout: MemberLayout, *sizes: int) -> None:
        """Build the encoder.

        Args:
            sizes: further arguments of the subclass, which :meth:`rebuild` passes again.
        """
        super().__init__()
        self.spec, self.layout, self.sizes = spec, layout, sizes
        self.pooling = TokenPooling(layout) if layout.tokens and self.pools else None
        layers, width = len(layout.sources), max(layout.input_widths)
        self.register_buffer("center", torch.zeros(layers, 1, width))
        self.register_buffer("scale", torch.ones(layers, 1, 1 if spec.scale == "layer" else width))
        self.noise = Noise(spec.noise)
        self.encoder = GroupedByWidth(layout.widths, layout.codes, self._build_encoder)

    @property
    def shape(self) -> tuple[int, ...]:
        """Widths that must be equal for probes to be stacked."""
        return max(self.layout.widths), self.encoder.code, self.features

    @property
    def device(self) -> torch.device:
        """Device of the parameters and buffers."""
        return self.center.device

    def _build_encoder(self, layers: int, width: int, code: int) -> nn.Module:
        spec = self.spec
        if spec.encoder == "none":
            return nn.Identity() if self.head_drops_out or not spec.dropout else Dropout(spec.dropout)
        if spec.encoder == "mlp":
            return mlp(layers, width, code, spec.depth, spec.dropout, spec.norm)
        encoder: nn.Module = LayerwiseLinear(layers, width, code, spec.start)
        if spec.encoder == "lowrank":
            encoder = LayerwiseLowRank(layers, width, spec.rank)
        return nn.Sequential(Dropout(spec.dropout), encoder) if spec.dropout else encoder

    def set_normalization(self, center: Tensor, scale: Tensor) -> None:
        """Set centre and scale, ``[input layer, 1, width]``; the scale may be ``[input layer, 1, 1]``."""
        sources = list(self.layout.sources)
        self.center.copy_(center[sources])
        self.scale.copy_(scale[sources])

    def seed(self, seeds: Sequence[int]) -> None:
        """Give each member its own generator for dropout and noise."""
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        for name, module in self.named_modules():
            if isinstance(module, SeededRandom):
                pairs = zip(generators, self._member_sizes(name), strict=True)
                module.generators = [(generator, size) for generator, size in pairs if size]

    def _member_sizes(self, name: str) -> list[int]:
        """For each member, its number of indices on the first axis of a module."""
        members = len(self.layout.members)
        if name.startswith("encoder."):
            run = self.encoder.runs[int(name.split(".")[2])]
        elif name == "noise":
            run = slice(None)
        else:
            return [1] * members
        sizes: list[int] = torch.bincount(self.layout.member_of[run], minlength=members).tolist()
        return sizes

    def normalize(self, latents: TextStates, reads: SharedReads) -> Tensor:
        """Centre and scale latents ``[distinct, row, width]``; token states are pooled by attention."""
        center, scale = reads.reduce(self.center), reads.reduce(self.scale)
        if isinstance(latents, TokenStates):
            if self.pooling is None or reads.index is not None:
                raise ValueError("tokens are read by a probe for tokens, whose members do not share layers.")
            pooled: Tensor = self.pooling((latents.values - center[:, :, None]) / scale[:, :, None], latents.mask)
            return pooled
        return (latents - center) / scale

    def encode(self, latents: TextStates, reads: SharedReads) -> Tensor:
        """Encode latents: ``[distinct, row, width]`` -> ``[layer, row, code]``."""
        normalized = self.normalize(latents, reads)
        encoder = self.encoder.parts[0]
        if reads.index is not None and len(self.encoder.parts) == 1 and not self.noise.active:
            first, *others = encoder if isinstance(encoder, nn.Sequential) else [encoder]
            if isinstance(first, LayerwiseLinear):
                codes = first.shared(normalized[..., : self.encoder.shapes[0][0]], reads)
                for module in others:
                    codes = module(codes)
                return codes
        encoded: Tensor = self.encoder(self.noise(reads.expand(normalized)))
        return encoded

    def member_of(self) -> dict[str, Tensor]:
        """Return parameter name -> ``[first axis]``, the member that each index of its first axis belongs to."""
        members = torch.arange(len(self.layout.members))
        owners = {name: members for name, _ in self.named_parameters() if not name.startswith("encoder.")}
        if self.pooling is not None:
            owners["pooling.query"] = self.layout.member_of
        return owners | {f"encoder.{name}": self.layout.member_of[run] for name, run in self.encoder.layer_runs()}

    def layer_states(self) -> list[dict[str, Tensor]]:
        """Return for each layer its state, parameter names as within a run of the encoder."""
        states: list[dict[str, Tensor]] = []
        for run, module in zip(self.encoder.runs, self.encoder.parts, strict=True):
            run_state = module.state_dict()
            for index, layer in enumerate(range(run.start, run.stop)):
                state = {"center": self.center[layer], "scale": self.scale[layer]}
                if self.pooling is not None:
                    state["query"] = self.pooling.query.detach()[layer]
                states.append(state | {name: value[index] for name, value in run_state.items()})
        return states

    def member_states(self) -> list[dict[str, Tensor]]:
        """Return for each member its state of mixer and head."""
        return self._select_members(("mixer.", "head."))

    def _select_members(self, prefixes: tuple[str, ...]) -> list[dict[str, Tensor]]:
        state = {name: value for name, value in self.state_dict().items() if name.startswith(prefixes)}
        return [{name: value[member] for name, value in state.items()} for member in range(len(self.layout.members))]

    def load_members(self, layers: Sequence[dict[str, Tensor]], members: Sequence[dict[str, Tensor]]) -> None:
        """Load states of :meth:`layer_states` and :meth:`member_states`.

        Parameters of mixer and head that differ in size, as members do in their number of layers, share the leading
        entries.
        """
        with torch.no_grad():
            for run, module in zip(self.encoder.runs, self.encoder.parts, strict=True):
                for name, value in module.state_dict().items():
                    value.copy_(torch.stack([state[name] for state in layers[run]]))
            self.center.copy_(torch.stack([state["center"] for state in layers]))
            self.scale.copy_(torch.stack([state["scale"] for state in layers]))
            if self.pooling is not None:
                self.pooling.query.copy_(torch.stack([state["query"] for state in layers]))
            for member, state in enumerate(members):
                self._load_member(member, state)

    def _load_member(self, member: int, member_state: dict[str, Tensor]) -> None:
        state = self.state_dict()
        for name, value in member_state.items():
            common = [slice(min(sizes)) for sizes in zip(value.shape, state[name].shape[1:], strict=True)]
            state[name][(member, *common)] = value[tuple(common)]

    def rebuild(self, layout: MemberLayout) -> Self:
        """Return a new probe of the same class and settings with another member layout."""
        return type(self)(self.spec, layout, *self.sizes)


def layout_for(
    spec: ProbeSpec,
    members: Sequence[tuple[int, ...]],
    widths: tuple[int, ...],
    tokens: bool = False,
    inputs: Sequence[Hashable] = (),
) -> MemberLayout:
    """Return the layout of members that each read some layers of the inputs, with the code widths of a spec.

    Args:
        members, widths, tokens: fields of :class:`MemberLayout`.
        inputs: ``[input layer]``, plan and view of the layer; ``spec.code`` applies to each of these groups. Empty is
            one group.

    Raises:
        SpecError: ``spec.code`` has more fractions than there are layers.
    """
    return MemberLayout(tuple(members), widths, tuple(spec.code_widths(widths, inputs)), tokens)


def stack(probes: Sequence[Probe]) -> Probe:
    """Return one probe with the members of several probes of one class, and their weights."""
    if len({probe.shape for probe in probes}) > 1:
        raise ValueError("probes side by side must have latents, codes and features of one largest width.")
    members = tuple(member for probe in probes for member in probe.layout.members)
    stacked = probes[0].rebuild(replace(probes[0].layout, members=members)).to(probes[0].device)
    layers = [state for probe in probes for state in probe.layer_states()]
    stacked.load_members(layers, [state for probe in probes for state in probe.member_states()])
    return stacked


def unstack(probe: Probe, member: int) -> Probe:
    """Return one member as a single probe, with its weights."""
    single = probe.rebuild(replace(probe.layout, members=(probe.layout.members[member],))).to(probe.device)
    states = zip(probe.layer_states(), probe.layout.member_of, strict=True)
    layers = [state for state, owner in states if owner == member]
    single.load_members(layers, [probe.member_states()[member]])
    return single
