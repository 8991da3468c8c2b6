"""A probe: latents are centred, encoded layer by layer, mixed over layers, and read by a head.

Its state is everything a prediction needs beside the latents, the centre and scale included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from data.plan import View
from data.spec import SpecError
from probes.heads import MIXERS, ClassHead
from probes.layerwise import ENCODERS
from probes.siamese import layer_cosines, pair_features


@dataclass(frozen=True)
class ProbeSpec:
    """What is trained on the latents."""

    views: tuple[View, ...] = ()
    """Views it reads, their layers one after another; empty takes all of the plan."""

    layers: Literal["all"] | tuple[int, ...] = "all"
    """Layers it reads of each view; all takes those of the plan."""

    center: bool = True
    """Whether the mean of the training texts is taken off each layer."""

    encoder: Literal["none", "linear", "mlp"] = "linear"
    """The projection of each layer, the same on both sides of a pair."""

    start: Literal["identity", "random"] = "identity"
    """Where linear projections start; at the identity, training begins at the raw cosine."""

    code: float = 1.0
    """Width after the projection, as a fraction of the latents' width."""

    dropout: float = 0.0
    """Dropout on what the linear encoder reads, within the MLP encoder, and in the class head."""

    mixer: Literal["last", "softmax", "mlp"] = "softmax"
    """How layers meet: the last alone, a learned weighted mean, or a small network over their cosines."""

    hidden: int = 0
    """Hidden width of the class head; 0 is a linear one."""

    def __post_init__(self) -> None:
        if not 0 < self.code <= 1:
            raise SpecError(f"code must be a fraction in (0, 1], got {self.code}.")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.hidden < 0:
            raise SpecError(f"hidden must not be negative, got {self.hidden}.")


ROUNDING = 1e-5
"""More than cosines and their mix lose to float32."""


class Probe(nn.Module):
    """Centre, scale and encode; what the probes for scores and classes share."""

    center: Tensor
    scale: Tensor

    def __init__(self, spec: ProbeSpec, layers: int, width: int) -> None:
        super().__init__()
        self.code = max(1, round(spec.code * width)) if spec.encoder != "none" else width
        self.centered = spec.center
        self.register_buffer("center", torch.zeros(layers, 1, width))
        self.register_buffer("scale", torch.ones(layers, 1, 1))
        self.encoder = ENCODERS[spec.encoder](layers, width, self.code, spec.start, spec.dropout)
        self.mixer = MIXERS[spec.mixer](layers)

    def adapt(self, latents: Tensor) -> None:
        """Take centre and scale from the training texts' latents, ``[layer, text, width]``."""
        if self.centered:
            self.center.copy_(latents.mean(1, keepdim=True))
        spread = (latents - self.center).square().mean((1, 2), keepdim=True).sqrt()
        self.scale.copy_(torch.where(spread > 0, spread, 1))

    def encode(self, latents: Tensor) -> Tensor:
        """``[layer, row, width]`` -> ``[layer, row, code]``."""
        encoded: Tensor = self.encoder((latents - self.center) / self.scale)
        return encoded


class ScoreProbe(Probe):
    """Two texts to one number: the cosine of their codes in each layer, mixed."""

    def forward(self, sides: Sequence[Tensor]) -> Tensor:
        """Two of ``[layer, row, width]`` -> ``[row]``; swapping the sides changes nothing."""
        first, second = self.encode(torch.cat(list(sides), 1)).chunk(2, 1)  # one matmul for both sides
        mixed: Tensor = self.mixer(layer_cosines(first, second))
        return mixed

    def top(self) -> float:
        """What identical texts get, less a rounding error of their cosines."""
        ones = torch.ones(len(self.center), 1)
        return float(self.mixer(ones)) - ROUNDING


class ClassProbe(Probe):
    """One text, or two, to a class."""

    def __init__(self, spec: ProbeSpec, layers: int, width: int, sides: int, classes: int) -> None:
        super().__init__(spec, layers, width)
        if spec.mixer == "mlp":
            raise SpecError("probe.mixer = 'mlp' mixes cosines, which classes do not have; use 'softmax' or 'last'.")
        features = self.code * (4 if sides == 2 else 1)
        self.head = ClassHead(features, classes, spec.hidden, spec.dropout)

    def forward(self, sides: Sequence[Tensor]) -> Tensor:
        """One or two of ``[layer, row, width]`` -> logits ``[row, class]``."""
        mixed = [self.mixer(self.encode(side)) for side in sides]
        logits: Tensor = self.head(pair_features(*mixed) if len(mixed) == 2 else mixed[0])
        return logits
