"""TODO: probes/models/sentence_probes.py."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.heads import FeatureHead
from permafrost.probes.models.layerwise import LayerwiseLowRank
from permafrost.probes.models.member_layout import MemberLayout
from permafrost.probes.models.mixers import CODE_MIXERS, code_mixer, mixed_width
from permafrost.probes.models.pair_features import cosines, difference_features, pair_features
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, TextStates, both_texts

ROUNDING = 1e-5
"""More than cosines and their mix lose to float32."""


class ScoreProbe(Probe):
    """Two texts to one number: the cosine of their codes in each layer, mixed; or the cosine of their mixed codes."""

    def __init__(self, spec: ProbeSpec, layout: MemberLayout) -> None:
        super().__init__(spec, layout)
        self.over_codes = spec.mixer in CODE_MIXERS
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)

    def rebuild(self, layout: MemberLayout) -> Self:
        """A fresh probe of the same kind with other seats."""
        return type(self)(self.spec, layout)

    def forward(self, sides: Sequence[TextStates], how: SharedReads) -> Tensor:
        """Two of ``[distinct, row, width]`` -> ``[member, row]``; swapping the sides changes nothing."""
        first, second = sides
        if self.over_codes:
            both = self.encode(both_texts(first, second), how)
            return cosines(*(self.mixer(self.layout.by_member(side)) for side in both.chunk(2, 1)))
        said: Tensor = self.mixer(self.layout.by_member(self._layer_cosines(first, second, how)))
        return said

    def _layer_cosines(self, first: TextStates, second: TextStates, how: SharedReads) -> Tensor:
        """``[layer, row]``; without making codes where the encoder can tell their cosines by a shorter way."""
        part = self.encoder.parts[0]
        if not self.noise.acts and len(self.encoder.parts) == 1:
            if self.spec.encoder == "none":
                return how.spread(cosines(self.normal(first, how), self.normal(second, how)))
            if isinstance(part, LayerwiseLowRank):
                width = self.encoder.shapes[0][0]
                normal = [self.normal(side, how)[..., :width] for side in (first, second)]
                return part.cosines(normal[0], normal[1], how)
        return cosines(*self.encode(both_texts(first, second), how).chunk(2, 1))  # one matmul for both sides

    def top(self) -> Tensor:
        """What identical texts get, ``[member]``, less a rounding error of their cosines."""
        if self.over_codes:
            return torch.full([len(self.layout.members)], 1 - ROUNDING)
        ones = torch.ones(len(self.center), 1)
        top: Tensor = self.mixer(self.layout.by_member(ones))[:, 0] - ROUNDING
        return top


class FeatureProbe(Probe):
    """One text, or the features of two, to some numbers."""

    def __init__(self, spec: ProbeSpec, layout: MemberLayout, sides: int, outputs: int) -> None:
        super().__init__(spec, layout)
        self.sides, self.outputs = sides, outputs
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)
        self.pair = pair_features if spec.product else difference_features
        times = (4 if spec.product else 3) if sides == 2 else 1
        features = mixed_width(spec.mixer, layout, self.encoder.code) * times
        self.head = FeatureHead(len(layout.members), features, outputs, spec.hidden, spec.dropout, spec.activation)

    @property
    def shape(self) -> tuple[int, ...]:
        """The widths in which probes agree that can stand side by side."""
        return *super().shape, mixed_width(self.spec.mixer, self.layout, self.encoder.code)

    def rebuild(self, layout: MemberLayout) -> Self:
        """A fresh probe of the same kind with other seats."""
        return type(self)(self.spec, layout, self.sides, self.outputs)

    def forward(self, sides: Sequence[TextStates], how: SharedReads) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row, output]``."""
        mixed = [self.mixer(self.layout.by_member(self.encode(side, how))) for side in sides]
        said: Tensor = self.head(self.pair(*mixed) if len(mixed) == 2 else mixed[0])
        return said


class ClassProbe(FeatureProbe):
    """One text, or two, to the logits of classes."""


class RegressionProbe(FeatureProbe):
    """One text, or two, to a number."""

    def forward(self, sides: Sequence[TextStates], how: SharedReads) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row]``."""
        return super().forward(sides, how).squeeze(-1)
