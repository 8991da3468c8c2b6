"""A probe: latents are centred, encoded layer by layer, mixed over layers, and read by a head.

Its state is everything a prediction needs beside the latents, the centre and scale included. A probe may hold several
members side by side, each as if it were alone: every parameter has the layer, or the member, as its first axis.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Self

import torch
from torch import Tensor, nn

from data.plan import check_layers
from data.spec import SpecError
from probes.heads import CODE_MIXERS, FeatureHead, TokenPooling, code_mixer, mixed_width
from probes.layerwise import ByWidth, Chance, Dropout, LayerwiseLinear, LayerwiseLowRank, Noise, mlp
from probes.reading import Reading, Side, TokenStates, both_sides
from probes.seats import Seats
from probes.siamese import cosines, difference_features, pair_features


@dataclass(frozen=True)
class ProbeSpec:
    """What is trained on the latents."""

    inputs: tuple[str, ...] = ()
    """What it reads, each [PLAN/]VIEW[:LAYERS]; for example mean, cls:-4..-1, echo/mean:6. LAYERS is one or a range
    and PLAN a table [plans.PLAN]. Empty takes every view of the plan. tokens are read alone: for tags and answers one
    by one, else pooled by attention."""

    layers: tuple[int, ...] | str = "all"
    """Layers it reads of the inputs that name none, of those that the plan keeps: all, a list, or a range as 1..-1."""

    center: bool = True
    """Whether the mean of the training texts is taken off each layer."""

    scale: Literal["layer", "dimension"] = "layer"
    """What each layer is divided by: its overall spread over the training texts, or that of each of its dimensions."""

    noise: float = 0.0
    """Deviation of normal noise that is added to the scaled latents in training."""

    encoder: Literal["none", "linear", "lowrank", "mlp"] = "linear"
    """The projection of each layer, the same on both sides of a pair."""

    start: Literal["identity", "random"] = "identity"
    """Where linear projections start; at the identity, training begins at the raw cosine."""

    rank: int = 16
    """Rank of the lowrank encoder's change; it starts at none, that is at the raw cosine."""

    code: tuple[float, ...] = (1.0,)
    """Width after the projection, as a fraction of the latents' width: one for all layers, or one for each of as many
    equal parts of a view's layers; 0.25,0.5 gives the lower half a quarter and the upper half one half."""

    depth: int = 2
    """Linear maps of the mlp encoder, with GELU between them."""

    norm: bool = False
    """Whether the mlp encoder begins with layer norm."""

    dropout: float = 0.0
    """Dropout on what the linear encoder reads, within the mlp encoder, in the context and in the head."""

    mixer: Literal["last", "softmax", "mlp", "concat", "attention", "self_attention", "unified"] = "softmax"
    """How layers meet. Over their cosines: the last alone, a learned weighted mean (softmax), a small network (mlp).
    Over their codes, before there is a cosine or a class: last and softmax as well, concat (side by side), attention,
    self_attention, or one unified embedding."""

    head: Literal["auto", "cosine", "regression", "classes", "tags", "span"] = "auto"
    """What reads the mixed layers: the cosine of two texts, a regression on the features of one text or two, classes
    of the same features, a tag a word, the span of an answer. auto takes what the corpus's targets ask for."""

    hidden: int = 0
    """Hidden width of the heads classes and regression; 0 is a linear one."""

    activation: Literal["gelu", "relu"] = "gelu"
    """Between the two maps of a head with a hidden layer."""

    product: bool = True
    """Whether the features of two texts u and v are u, v, |u - v| and u * v; without, they are u, v and |u - v|."""

    match: bool = False
    """Whether the head span is told, of every token and layer, its highest cosine with a token of the other segment:
    of the context with one of the question, and the other way round."""

    context: Literal["none", "bilstm", "transformer"] = "none"
    """What the tokens of a text tell each other before the heads tags and span read them."""

    context_width: int = 256
    """Width of the context: of one direction of the bilstm, or of the transformer's blocks."""

    context_blocks: int = 2
    """Blocks of the transformer."""

    def __post_init__(self) -> None:
        check_layers(self.layers)
        if not self.code or not all(0 < part <= 1 for part in self.code):
            raise SpecError(f"code must be one or more fractions in (0, 1], got {list(self.code)}.")
        if self.encoder in ("none", "lowrank") and self.code != (1.0,):
            raise SpecError(
                f"code = {list(self.code)} needs the encoder linear or mlp; {self.encoder} keeps the width."
            )
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.hidden < 0 or not self.noise >= 0:
            raise SpecError(f"hidden and noise must not be negative, got {self.hidden} and {self.noise}.")
        for name in ("depth", "rank", "context_width", "context_blocks"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def codes(self, widths: Sequence[int], inputs: Sequence[Hashable] = ()) -> list[int]:
        """Width of each layer's code, given the width of its latents.

        Args:
            inputs: what each layer is of, its plan and view: each has a lower and an upper half of its own. Empty is
                one for all.

        Raises:
            SpecError: more fractions than there are layers.
        """
        if inputs:
            found = [0] * len(widths)
            for one in dict.fromkeys(inputs):
                places = [place for place, other in enumerate(inputs) if other == one]
                for place, code in zip(places, self.codes([widths[place] for place in places]), strict=True):
                    found[place] = code
            return found
        if len(self.code) > len(widths):
            raise SpecError(f"probe.code names {len(self.code)} fractions, but the probe reads {len(widths)} layers.")
        bounds = [round(part * len(widths) / len(self.code)) for part in range(len(self.code) + 1)]
        parts = [
            fraction
            for fraction, (low, high) in zip(self.code, pairwise(bounds), strict=True)
            for _ in range(low, high)
        ]
        return [max(1, round(fraction * width)) for fraction, width in zip(parts, widths, strict=True)]


ROUNDING = 1e-5
"""More than cosines and their mix lose to float32."""


class Probe(nn.Module):
    """Centre, scale and encode; what the probes for scores and classes share."""

    center: Tensor
    scale: Tensor

    pools = True
    """Whether tokens are pooled as they are read; else they are read one by one."""

    def __init__(self, spec: ProbeSpec, seats: Seats) -> None:
        super().__init__()
        self.spec, self.seats = spec, seats
        self.pooling = TokenPooling(seats) if seats.tokens and self.pools else None
        layers, width = len(seats.sources), max(seats.input_widths)
        self.register_buffer("center", torch.zeros(layers, 1, width))
        self.register_buffer("scale", torch.ones(layers, 1, 1 if spec.scale == "layer" else width))
        self.noise = Noise(spec.noise)
        self.encoder = ByWidth(seats.widths, seats.codes, self._part)

    @property
    def shape(self) -> tuple[int, ...]:
        """The widths in which probes agree that can stand side by side."""
        return max(self.seats.widths), self.encoder.code

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
        sources = list(self.seats.sources)
        self.center.copy_(center[sources])
        self.scale.copy_(scale[sources])

    def seed(self, seeds: Sequence[int]) -> None:
        """Give each member a generator of its own for what is random in training."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for name, module in self.named_modules():
            if isinstance(module, Chance):
                pairs = zip(generators, self._places(name), strict=True)
                module.draws = [(generator, places) for generator, places in pairs if places]

    def _places(self, name: str) -> list[int]:
        """How many of the leading places of a module each member has."""
        members = len(self.seats.members)
        if name.startswith("encoder."):
            run = self.encoder.runs[int(name.split(".")[2])]
        elif name == "noise":
            run = slice(None)
        else:
            return [1] * members
        found: list[int] = torch.bincount(self.seats.owners[run], minlength=members).tolist()
        return found

    def normal(self, latents: Side, how: Reading) -> Tensor:
        """``[distinct, row, width]``, centred and scaled; tokens are pooled by attention."""
        center, scale = how.first(self.center), how.first(self.scale)
        if isinstance(latents, TokenStates):
            if self.pooling is None or how.at is not None:
                raise ValueError("tokens are read by a probe for tokens, whose members do not share layers.")
            pooled: Tensor = self.pooling((latents.values - center[:, :, None]) / scale[:, :, None], latents.real)
            return pooled
        return (latents - center) / scale

    def encode(self, latents: Side, how: Reading) -> Tensor:
        """``[distinct, row, width]`` -> ``[layer, row, code]``."""
        normal = self.normal(latents, how)
        part = self.encoder.parts[0]
        if how.at is not None and len(self.encoder.parts) == 1 and not self.noise.acts:
            first, *others = part if isinstance(part, nn.Sequential) else [part]
            if isinstance(first, LayerwiseLinear):
                encoded = first.shared(normal[..., : self.encoder.shapes[0][0]], how)
                for module in others:
                    encoded = module(encoded)
                return encoded
        spread: Tensor = self.encoder(self.noise(how.spread(normal)))
        return spread

    def owners(self) -> dict[str, Tensor]:
        """Parameter name -> ``[first axis]``, the member that each of its parts belongs to."""
        members = torch.arange(len(self.seats.members))
        found = {name: members for name, _ in self.named_parameters() if not name.startswith("encoder.")}
        if self.pooling is not None:
            found["pooling.query"] = self.seats.owners
        return found | {f"encoder.{name}": self.seats.owners[run] for name, run in self.layer_runs()}

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
        return [{name: value[member] for name, value in state.items()} for member in range(len(self.seats.members))]

    def take(self, by_layer: Sequence[dict[str, Tensor]], by_member: Sequence[dict[str, Tensor]]) -> None:
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
                self._take_member(member, weights)

    def _take_member(self, member: int, weights: dict[str, Tensor]) -> None:
        state = self.state_dict()
        for name, own in weights.items():
            common = [slice(min(sizes)) for sizes in zip(own.shape, state[name].shape[1:], strict=True)]
            state[name][(member, *common)] = own[tuple(common)]

    def remade(self, seats: Seats) -> Self:
        """A fresh probe of the same kind with other seats."""
        raise NotImplementedError


class ScoreProbe(Probe):
    """Two texts to one number: the cosine of their codes in each layer, mixed; or the cosine of their mixed codes."""

    def __init__(self, spec: ProbeSpec, seats: Seats) -> None:
        super().__init__(spec, seats)
        self.over_codes = spec.mixer in CODE_MIXERS
        self.mixer = code_mixer(spec.mixer, seats, self.encoder.code)

    def remade(self, seats: Seats) -> Self:
        """A fresh probe of the same kind with other seats."""
        return type(self)(self.spec, seats)

    def forward(self, sides: Sequence[Side], how: Reading) -> Tensor:
        """Two of ``[distinct, row, width]`` -> ``[member, row]``; swapping the sides changes nothing."""
        first, second = sides
        if self.over_codes:
            both = self.encode(both_sides(first, second), how)
            return cosines(*(self.mixer(self.seats.by_member(side)) for side in both.chunk(2, 1)))
        said: Tensor = self.mixer(self.seats.by_member(self._layer_cosines(first, second, how)))
        return said

    def _layer_cosines(self, first: Side, second: Side, how: Reading) -> Tensor:
        """``[layer, row]``; without making codes where the encoder can tell their cosines by a shorter way."""
        part = self.encoder.parts[0]
        if not self.noise.acts and len(self.encoder.parts) == 1:
            if self.spec.encoder == "none":
                return how.spread(cosines(self.normal(first, how), self.normal(second, how)))
            if isinstance(part, LayerwiseLowRank):
                width = self.encoder.shapes[0][0]
                normal = [self.normal(side, how)[..., :width] for side in (first, second)]
                return part.cosines(normal[0], normal[1], how)
        return cosines(*self.encode(both_sides(first, second), how).chunk(2, 1))  # one matmul for both sides

    def top(self) -> Tensor:
        """What identical texts get, ``[member]``, less a rounding error of their cosines."""
        if self.over_codes:
            return torch.full([len(self.seats.members)], 1 - ROUNDING)
        ones = torch.ones(len(self.center), 1)
        top: Tensor = self.mixer(self.seats.by_member(ones))[:, 0] - ROUNDING
        return top


class FeatureProbe(Probe):
    """One text, or the features of two, to some numbers."""

    def __init__(self, spec: ProbeSpec, seats: Seats, sides: int, outputs: int) -> None:
        super().__init__(spec, seats)
        self.sides, self.outputs = sides, outputs
        self.mixer = code_mixer(spec.mixer, seats, self.encoder.code)
        self.pair = pair_features if spec.product else difference_features
        times = (4 if spec.product else 3) if sides == 2 else 1
        features = mixed_width(spec.mixer, seats, self.encoder.code) * times
        self.head = FeatureHead(len(seats.members), features, outputs, spec.hidden, spec.dropout, spec.activation)

    @property
    def shape(self) -> tuple[int, ...]:
        """The widths in which probes agree that can stand side by side."""
        return *super().shape, mixed_width(self.spec.mixer, self.seats, self.encoder.code)

    def remade(self, seats: Seats) -> Self:
        """A fresh probe of the same kind with other seats."""
        return type(self)(self.spec, seats, self.sides, self.outputs)

    def forward(self, sides: Sequence[Side], how: Reading) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row, output]``."""
        mixed = [self.mixer(self.seats.by_member(self.encode(side, how))) for side in sides]
        said: Tensor = self.head(self.pair(*mixed) if len(mixed) == 2 else mixed[0])
        return said


class ClassProbe(FeatureProbe):
    """One text, or two, to the logits of classes."""


class RegressionProbe(FeatureProbe):
    """One text, or two, to a number."""

    def forward(self, sides: Sequence[Side], how: Reading) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row]``."""
        return super().forward(sides, how).squeeze(-1)


def seats_for(
    spec: ProbeSpec,
    members: Sequence[tuple[int, ...]],
    widths: tuple[int, ...],
    tokens: bool = False,
    inputs: Sequence[Hashable] = (),
) -> Seats:
    """Seats for members that read some of the layers of inputs of ``widths``; raises :class:`SpecError`."""
    return Seats(tuple(members), widths, tuple(spec.codes(widths, inputs)), tokens)


def beside(probes: Sequence[Probe]) -> Probe:
    """Probes of one kind side by side: their members, with their weights, in one probe."""
    if len({probe.shape for probe in probes}) > 1:
        raise ValueError("probes side by side must have latents, codes and features of one largest width.")
    together = probes[0].remade(Seats.beside([probe.seats for probe in probes]))
    by_layer = [weights for probe in probes for weights in probe.by_layer()]
    by_member = [weights for probe in probes for weights in probe.by_member()]
    together.take(by_layer, by_member)
    return together


def alone(probe: Probe, member: int) -> Probe:
    """One member as a probe of its own, with its weights."""
    single = probe.remade(replace(probe.seats, members=(probe.seats.members[member],)))
    mine = [weights for weights, owner in zip(probe.by_layer(), probe.seats.owners, strict=True) if owner == member]
    single.take(mine, [probe.by_member()[member]])
    return single
