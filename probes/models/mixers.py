"""TODO: probes/models/mixers.py."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from permafrost.probes.models.layerwise import LayerwiseLinear
from permafrost.probes.models.member_layout import MemberLayout


class LastMixer(nn.Module):
    """The last layer alone."""

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.taken = layout.mask

    def forward(self, x: Tensor) -> Tensor:
        """``[member, layer, ...]`` -> ``[member, ...]``."""
        return x[torch.arange(len(x)), self.taken.sum(1) - 1]


class SoftmaxMixer(nn.Module):
    """A weighted mean over layers, ``sum_l softmax(w)_l x_l``; all layers weigh the same at the start.

    Source: Peters et al., "Deep contextualized word representations" (2018), equation 1, without its scale.
    """

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.taken = layout.mask
        self.logits = nn.Parameter(torch.zeros(self.taken.shape))

    def weights(self) -> Tensor:
        """``[member, layer]``, positive, adding up to 1 for each member."""
        return torch.softmax(self.logits.masked_fill(~self.taken, -torch.inf), 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[member, layer, ...]`` -> ``[member, ...]``."""
        return torch.bmm(self.weights()[:, None], x.flatten(2)).reshape(len(x), *x.shape[2:])


class MLPMixer(nn.Module):
    """A small network over the layers' cosines, squashed to ``[0, 1]``.

    It starts rising in every cosine: started downwards, the encoder may never find the way back. Nothing keeps it so:
    pairs that it puts above identical texts tie with them once calibrated.
    """

    HIDDEN = 64

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        members, layers = layout.mask.shape
        first, last = LayerwiseLinear(members, layers, self.HIDDEN), LayerwiseLinear(members, self.HIDDEN, 1)
        with torch.no_grad():
            first.weight.abs_()
            last.weight.abs_().div_(math.sqrt(self.HIDDEN))  # of one sign they add up, and would saturate the sigmoid
        self.network = nn.Sequential(first, nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines ``[member, layer, row]`` -> ``[member, row]``."""
        mixed: Tensor = torch.sigmoid(self.network(x.transpose(1, 2))).squeeze(-1)
        return mixed


class ConcatMixer(nn.Module):
    """The codes of all layers side by side; those of the last k where the probe reads the last k layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, layer x code]``; a layer a member lacks is zeros."""
        return x.transpose(1, 2).flatten(2)


class AttentionMixer(nn.Module):
    """Each text weighs its layers anew: a learned query against the code of each layer.

    Source: Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2015), section
    3.1, with one learned query and a dot product for its score.
    """

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        self.taken = layout.mask
        self.query = nn.Parameter(torch.zeros(len(self.taken), 1, 1, code))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, code]``."""
        scores = (x * self.query).sum(-1) / math.sqrt(x.shape[-1])
        weights = torch.softmax(scores.masked_fill(~self.taken[:, :, None], -torch.inf), 1)
        return (weights[..., None] * x).sum(1)


class SelfAttentionMixer(nn.Module):
    """The codes of a text's layers attend to each other, are added to what they were, and averaged.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1, one head.
    """

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        self.taken = layout.mask
        self.maps = nn.ModuleList(LayerwiseLinear(len(self.taken), code, code) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, code]``."""
        members, layers, rows, code = x.shape
        query, key, value = (
            part(x.reshape(members, layers * rows, code)).reshape(x.shape).transpose(1, 2) for part in self.maps
        )
        seen = functional.scaled_dot_product_attention(
            query, key, value, self.taken[:, None, None, :].expand(members, rows, layers, layers)
        )
        mixed = (x + seen.transpose(1, 2)) * self.taken[:, :, None, None]
        return mixed.sum(1) / self.taken.sum(1)[:, None, None]


class UnifiedMixer(nn.Module):
    """One embedding for all layers: each code is projected up to the widest latent, and the projections are added."""

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        self.taken = layout.mask
        members, layers = self.taken.shape
        self.width = max(layout.widths)
        self.up = nn.Parameter(torch.empty(members, layers, code, self.width).uniform_(-1, 1) / math.sqrt(code))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, width]``."""
        return torch.einsum("mlrc,mlcw->mrw", x, self.up)


MIXERS: dict[str, Callable[[MemberLayout], nn.Module]] = {"last": LastMixer, "softmax": SoftmaxMixer, "mlp": MLPMixer}
"""Over the cosines of layers."""

CODE_MIXERS: dict[str, Callable[[MemberLayout, int], nn.Module]] = {
    "concat": lambda layout, code: ConcatMixer(),
    "attention": AttentionMixer,
    "self_attention": SelfAttentionMixer,
    "unified": UnifiedMixer,
}
"""Over the codes of layers, before there is a cosine."""


def code_mixer(name: str, layout: MemberLayout, code: int) -> nn.Module:
    """A mixer over codes; ``last`` and ``softmax`` mix codes as they mix cosines."""
    return CODE_MIXERS[name](layout, code) if name in CODE_MIXERS else MIXERS[name](layout)


def mixed_width(name: str, layout: MemberLayout, code: int) -> int:
    """Width of what a mixer makes of codes."""
    if name == "concat":
        return code * layout.mask.shape[1]
    return max(layout.widths) if name == "unified" else code
