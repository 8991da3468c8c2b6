"""Attention pooling over tokens, and feature heads. Every parameter has the layer, or the member, as its first axis."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from permafrost.probes.models.layerwise import Dropout, linear_layers
from permafrost.probes.models.member_layout import MemberLayout


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


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class FeatureHead(nn.Sequential):
    """Linear map, or network of one hidden layer: ``[member, row, feature]`` -> ``[member, row, output]``."""

    def __init__(
        self, members: int, features: int, outputs: int, hidden: int, dropout: float, activation: str = "gelu"
    ) -> None:
        sizes = [features, hidden, outputs] if hidden else [features, outputs]
        super().__init__(Dropout(dropout), *linear_layers(members, sizes, dropout, ACTIVATIONS[activation]))
