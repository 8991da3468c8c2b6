"""Pooling over tokens, mixers over layers and heads on top: how latents meet, and what is predicted of them.

A mixer reads ``[member, layer, ...]``, zeros where a member has fewer layers than another, and returns
``[member, ...]``. Every parameter has the member as its first axis.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from permafrost.probes.models.layerwise import Dropout, LayerwiseLinear
from permafrost.probes.models.member_layout import MemberLayout


class TokenPooling(nn.Module):
    """Attention over a text's tokens, layer by layer: a learned query against each; their mean at the start.

    Source: Bahdanau et al. (2015), section 3.1, with one learned query and a dot product for its score.
    """

    def __init__(self, layout: MemberLayout) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(len(layout.sources), 1, 1, max(layout.input_widths)))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """States ``[layer, row, token, width]`` and which are real ``[row, token]`` -> ``[layer, row, width]``."""
        scores = (x * self.query).sum(-1) / math.sqrt(x.shape[-1])
        weights = torch.softmax(scores.masked_fill(~real, -torch.inf), -1)
        return torch.matmul(weights[:, :, None], x.masked_fill(~real[:, :, None], 0)).squeeze(2)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class FeatureHead(nn.Sequential):
    """Features ``[member, row, feature]`` -> ``[member, row, output]``: linear, or through one hidden layer."""

    def __init__(
        self, members: int, features: int, outputs: int, hidden: int, dropout: float, activation: str = "gelu"
    ) -> None:
        sizes = [features, hidden, outputs] if hidden else [features, outputs]
        super().__init__(*_chain(members, sizes, dropout, ACTIVATIONS[activation]))


def _chain(members: int, sizes: Sequence[int], dropout: float, act: Callable[[], nn.Module]) -> Sequence[nn.Module]:
    modules: list[nn.Module] = []
    for width, code in pairwise(sizes):
        modules += [act()] if modules else []
        modules += [Dropout(dropout), LayerwiseLinear(members, width, code)]
    return modules
