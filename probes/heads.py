"""Mixers over layers and heads on top: how layers meet, and what is predicted of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LastMixer(nn.Module):
    """The last layer alone."""

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, ...]`` -> ``[...]``."""
        return x[-1]


class SoftmaxMixer(nn.Module):
    """A weighted mean over layers, ``sum_l softmax(w)_l x_l``; all layers weigh the same at the start.

    Source: Peters et al., "Deep contextualized word representations" (2018), equation 1, without its scale.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self, x: Tensor) -> Tensor:
        """``[layer, ...]`` -> ``[...]``."""
        mixed: Tensor = torch.tensordot(torch.softmax(self.logits, 0), x, dims=1)
        return mixed


class MLPMixer(nn.Module):
    """A small network over the layers' cosines, squashed to ``[0, 1]``.

    Nothing makes it rise in every cosine: pairs that it puts above identical texts tie with them once calibrated.
    """

    HIDDEN = 64

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(layers, self.HIDDEN), nn.GELU(), nn.Linear(self.HIDDEN, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Cosines ``[layer, row]`` -> ``[row]``."""
        mixed: Tensor = torch.sigmoid(self.network(x.T)).squeeze(-1)
        return mixed


MIXERS: dict[str, Callable[[int], nn.Module]] = {
    "last": lambda layers: LastMixer(),
    "softmax": SoftmaxMixer,
    "mlp": MLPMixer,
}


class ClassHead(nn.Sequential):
    """Features ``[row, feature]`` -> logits ``[row, class]``: dropout, and a hidden layer where ``hidden`` is not 0."""

    def __init__(self, features: int, classes: int, hidden: int, dropout: float) -> None:
        if hidden:
            super().__init__(
                nn.Dropout(dropout),
                nn.Linear(features, hidden),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(hidden, classes),
            )
        else:
            super().__init__(nn.Dropout(dropout), nn.Linear(features, classes))
