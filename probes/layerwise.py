"""Layerwise networks: one small network per layer, all in one batched matmul; nothing crosses the layer axis.

Every module maps ``[layer, row, width]`` to ``[layer, row, code]``.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class LayerwiseLinear(nn.Module):
    """``x_l W_l + b_l`` for every layer ``l``."""

    def __init__(self, layers: int, width: int, code: int, start: str = "random") -> None:
        """Start at the identity (a code narrower than the width keeps the leading dimensions), or at random.

        Args:
            start: ``identity``, or ``random``: uniform within ``1 / sqrt(width)``, as ``nn.Linear`` starts.
        """
        super().__init__()
        bound = 1 / math.sqrt(width)
        if start == "identity":
            weight, bias = torch.eye(width, code).repeat(layers, 1, 1), torch.zeros(layers, 1, code)
        else:
            weight = torch.empty(layers, width, code).uniform_(-bound, bound)
            bias = torch.empty(layers, 1, code).uniform_(-bound, bound)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, row, width]`` -> ``[layer, row, code]``."""
        return torch.baddbmm(self.bias, x, self.weight)


class LayerwiseMLP(nn.Sequential):
    """Two layerwise linear maps with GELU and dropout between them."""

    def __init__(self, layers: int, width: int, hidden: int, code: int, dropout: float) -> None:
        super().__init__(
            LayerwiseLinear(layers, width, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            LayerwiseLinear(layers, hidden, code),
        )


def _linear(layers: int, width: int, code: int, start: str, dropout: float) -> nn.Module:
    linear = LayerwiseLinear(layers, width, code, start)
    return nn.Sequential(nn.Dropout(dropout), linear) if dropout else linear


def _mlp(layers: int, width: int, code: int, start: str, dropout: float) -> nn.Module:
    return LayerwiseMLP(layers, width, code, code, dropout)


ENCODERS: dict[str, Callable[[int, int, int, str, float], nn.Module]] = {
    "none": lambda layers, width, code, start, dropout: nn.Identity(),
    "linear": _linear,
    "mlp": _mlp,
}
