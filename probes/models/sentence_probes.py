"""Probes of whole texts: similarity scores of pairs, and classes or numbers of one text or a pair.

Each reads the latents of the texts of every row, ``[distinct, row, width]`` for each text, and the shared reads that
map them to the layers of its members.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.models.layerwise import Dropout, LayerwiseLowRank, linear_layers
from permafrost.probes.models.mixers import CODE_MIXERS, code_mixer, mixed_width
from permafrost.probes.models.own_head import own_head
from permafrost.probes.models.pair_features import cosine_matrix, cosines, difference_features, pair_features
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import MemberLayout, SharedReads, TextStates, both_texts

ROUNDING = 1e-5
"""Upper bound of the float32 rounding error of a mix of cosines."""


class ScoreProbe(Probe):
    """Similarity score of two texts: a mix of the layers' cosines, or the cosine of the mixed codes."""

    head_drops_out = False

    def __init__(self, spec: ProbeSpec, layout: MemberLayout) -> None:
        super().__init__(spec, layout)
        self.over_codes = spec.mixer in CODE_MIXERS
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)

    def forward(self, texts: Sequence[TextStates], reads: SharedReads) -> Tensor:
        """Two of ``[distinct, row, width]`` -> ``[member, row]``; symmetric in the two texts."""
        first, second = texts
        if self.over_codes:
            codes = self.encode(both_texts(first, second), reads)
            return cosines(*(self.mixer(self.layout.by_member(code)) for code in codes.chunk(2, 1)))
        scores: Tensor = self.mixer(self.layout.by_member(self._layer_cosines(first, second, reads)))
        return scores

    def _layer_cosines(self, first: TextStates, second: TextStates, reads: SharedReads) -> Tensor:
        """Return ``[layer, row]``, without computing codes if the encoder has a shorter way to their cosines."""
        encoder = self.encoder.parts[0]
        if not self.noise.active and len(self.encoder.parts) == 1:
            if isinstance(encoder, nn.Identity):
                return reads.expand(cosines(self.normalize(first, reads), self.normalize(second, reads)))
            if isinstance(encoder, LayerwiseLowRank):
                width = self.encoder.shapes[0][0]
                normalized = [self.normalize(text, reads)[..., :width] for text in (first, second)]
                return encoder.cosines(normalized[0], normalized[1], reads)
        return cosines(*self.encode(both_texts(first, second), reads).chunk(2, 1))  # one matmul for both texts

    def matrix(self, first: TextStates, second: TextStates, reads: SharedReads) -> Tensor:
        """Score all pairs: ``[distinct, row, width]``, ``[distinct, column, width]`` -> ``[member, row, column]``."""
        if self.over_codes:
            codes = (self.mixer(self.layout.by_member(self.encode(text, reads))) for text in (first, second))
            return cosine_matrix(*codes)
        if isinstance(self.encoder.parts[0], nn.Identity) and len(self.encoder.parts) == 1 and not self.noise.active:
            layers = reads.expand(cosine_matrix(self.normalize(first, reads), self.normalize(second, reads)))
        else:
            layers = cosine_matrix(self.encode(first, reads), self.encode(second, reads))
        scores: Tensor = self.mixer(self.layout.by_member(layers.flatten(1)))
        return scores.view(len(scores), *layers.shape[1:])

    def top(self) -> Tensor:
        """Return the score of two identical texts, ``[member]``, less a rounding error of cosines."""
        if self.over_codes:
            return torch.full([len(self.layout.members)], 1 - ROUNDING, device=self.device)
        ones = torch.ones(len(self.center), 1, device=self.device)
        top: Tensor = self.mixer(self.layout.by_member(ones))[:, 0] - ROUNDING
        return top


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class FeatureProbe(Probe):
    """Numbers predicted from one text, or from the features of two; the head is linear, has one hidden layer, or is
    one from outside.
    """

    def __init__(self, spec: ProbeSpec, layout: MemberLayout, sides: int, outputs: int) -> None:
        super().__init__(spec, layout, sides, outputs)
        self.sides, self.outputs = sides, outputs
        self.mixer = code_mixer(spec.mixer, layout, self.encoder.code)
        self.pair = pair_features if spec.product else difference_features
        factor = (4 if spec.product else 3) if sides == 2 else 1
        self.features = mixed_width(spec.mixer, layout, self.encoder.code) * factor
        self.head = nn.Sequential(Dropout(spec.dropout), *self._head_modules())

    def _head_modules(self) -> list[nn.Module]:
        spec, members = self.spec, len(self.layout.members)
        if own := own_head(spec, members, self.features, self.outputs):
            return [own]
        sizes = [self.features, spec.hidden, self.outputs] if spec.hidden else [self.features, self.outputs]
        return linear_layers(members, sizes, spec.dropout, ACTIVATIONS[spec.activation])

    def forward(self, texts: Sequence[TextStates], reads: SharedReads) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row, output]``."""
        mixed = [self.mixer(self.layout.by_member(self.encode(text, reads))) for text in texts]
        outputs: Tensor = self.head(self.pair(*mixed) if len(mixed) == 2 else mixed[0])
        return outputs


class ClassProbe(FeatureProbe):
    """Logits of the classes of one text or of a pair."""


class RegressionProbe(FeatureProbe):
    """Number predicted from one text or from a pair."""

    def forward(self, texts: Sequence[TextStates], reads: SharedReads) -> Tensor:
        """One or two of ``[distinct, row, width]`` -> ``[member, row]``."""
        return super().forward(texts, reads).squeeze(-1)
