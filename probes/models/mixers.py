"""Mixers over layers: combine what the layers of a member computed, cosines or codes.

A mixer reads ``[member, layer, ...]``, zeros if a member has fewer layers than another, and returns ``[member, ...]``.
Every parameter has the member as its first axis.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from permafrost.probes.models.layerwise import LayerwiseLinear
from permafrost.probes.models.shared_reads import MemberLayout


class LastMixer(nn.Module):
    """Selection of the last layer."""

    last: Tensor

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.register_buffer("last", layout.mask.sum(1) - 1, persistent=False)
        self.layers = layout.mask.shape[1]

    def weights(self) -> Tensor:
        """Return the weights ``[member, layer]``: 1 for the last layer of each member."""
        return functional.one_hot(self.last, self.layers).float()

    def forward(self, x: Tensor) -> Tensor:
        """``[member, layer, ...]`` -> ``[member, ...]``."""
        return x[torch.arange(len(x), device=x.device), self.last]


class SoftmaxMixer(nn.Module):
    """Weighted mean over layers, ``sum_l softmax(w)_l x_l``; at the start, all weights are equal.

    Source: Peters et al., "Deep contextualized word representations" (2018), equation 1, without its scale.
    """

    mask: Tensor

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.register_buffer("mask", layout.mask, persistent=False)
        self.logits = nn.Parameter(torch.zeros(self.mask.shape))

    def weights(self) -> Tensor:
        """Return the weights ``[member, layer]``, positive, which add up to 1 for each member."""
        return torch.softmax(self.logits.masked_fill(~self.mask, -torch.inf), 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[member, layer, ...]`` -> ``[member, ...]``."""
        return torch.bmm(self.weights()[:, None], x.flatten(2)).reshape(len(x), *x.shape[2:])


class MLPMixer(nn.Module):
    """Small network over the layers' cosines, with a sigmoid output in ``[0, 1]``.

    At the start the output increases with every cosine: from a decreasing start the encoder may never recover. Training
    may change that: calibration gives pairs that score above identical texts the score of identical texts.
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
    """Concatenation of the codes of all layers that the probe reads."""

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, layer x code]``; zeros if a member lacks a layer."""
        return x.transpose(1, 2).flatten(2)


class AttentionMixer(nn.Module):
    """Attention over layers, row by row: a learned query is compared with the code of each layer.

    Source: Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate" (2015), section
    3.1, with one learned query and a dot product for its score.
    """

    mask: Tensor

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        self.register_buffer("mask", layout.mask, persistent=False)
        self.query = nn.Parameter(torch.zeros(len(self.mask), 1, 1, code))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, code]``."""
        scores = (x * self.query).sum(-1) / math.sqrt(x.shape[-1])
        weights = torch.softmax(scores.masked_fill(~self.mask[:, :, None], -torch.inf), 1)
        return (weights[..., None] * x).sum(1)


class SelfAttentionMixer(nn.Module):
    """Self-attention over the layers' codes of a row, with a residual connection; then the mean over layers.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.2.1, one head.
    """

    mask: Tensor

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        self.register_buffer("mask", layout.mask, persistent=False)
        self.maps = nn.ModuleList(LayerwiseLinear(len(self.mask), code, code) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, code]``."""
        members, layers, rows, code = x.shape
        query, key, value = (
            linear(x.reshape(members, layers * rows, code)).reshape(x.shape).transpose(1, 2) for linear in self.maps
        )
        attended = functional.scaled_dot_product_attention(
            query, key, value, self.mask[:, None, None, :].expand(members, rows, layers, layers)
        )
        mixed = (x + attended.transpose(1, 2)) * self.mask[:, :, None, None]
        return mixed.sum(1) / self.mask.sum(1)[:, None, None]


class UnifiedMixer(nn.Module):
    """Sum of the layers' codes, each projected to the largest width of the latents."""

    def __init__(self, layout: MemberLayout, code: int) -> None:
        super().__init__()
        shape = (*layout.mask.shape, code, max(layout.widths))
        self.up = nn.Parameter(torch.empty(shape).uniform_(-1, 1) / math.sqrt(code))

    def forward(self, x: Tensor) -> Tensor:
        """Codes ``[member, layer, row, code]`` -> ``[member, row, width]``."""
        return torch.einsum("mlrc,mlcw->mrw", x, self.up)


MIXERS: dict[str, Callable[[MemberLayout], nn.Module]] = {"last": LastMixer, "softmax": SoftmaxMixer, "mlp": MLPMixer}
"""Name -> mixer over the cosines of the layers."""

CODE_MIXERS: dict[str, Callable[[MemberLayout, int], nn.Module]] = {
    "concat": lambda layout, code: ConcatMixer(),
    "attention": AttentionMixer,
    "self_attention": SelfAttentionMixer,
    "unified": UnifiedMixer,
}
"""Name -> mixer over the codes of the layers."""


def code_mixer(name: str, layout: MemberLayout, code: int) -> nn.Module:
    """Return a mixer over codes; ``last`` and ``softmax`` mix codes as they mix cosines."""
    return CODE_MIXERS[name](layout, code) if name in CODE_MIXERS else MIXERS[name](layout)


def mixed_width(name: str, layout: MemberLayout, code: int) -> int:
    """Return the output width of a mixer over codes of width ``code``."""
    if name == "concat":
        return code * layout.mask.shape[1]
    return max(layout.widths) if name == "unified" else code
