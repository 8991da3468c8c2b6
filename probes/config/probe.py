"""TODO: probes/config/probe.py."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from permafrost.data.spec import SpecError
from permafrost.data.store.layers import check_layers


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
