"""Poolings: hidden states of a text to its latent. Pure functions that never read padding.

``hidden`` is ``[..., text, token, width]`` in float32 or float64, ``real`` is ``[text, token]``, true for tokens of the
text, which come first; the latent is ``[..., text, width]``.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def pool_last(hidden: Tensor, real: Tensor) -> Tensor:
    """The last real token."""
    return _token(hidden, real.sum(1) - 1)


def pool_cls(hidden: Tensor, real: Tensor) -> Tensor:
    """The first token: ``[CLS]`` or ``<s>`` where the tokenizer adds one."""
    return _token(hidden, torch.zeros_like(real.sum(1)))


def pool_sum(hidden: Tensor, real: Tensor) -> Tensor:
    """Sum over tokens, special ones included."""
    return _real(hidden, real, 0).sum(-2)


def pool_mean(hidden: Tensor, real: Tensor) -> Tensor:
    """Mean over tokens, special ones included.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019), section 3, MEAN-strategy.
    """
    return pool_sum(hidden, real) / real.sum(1)[:, None]


def pool_weighted_mean(hidden: Tensor, real: Tensor) -> Tensor:
    """Position-weighted mean ``sum_i i h_i / sum_i i``, positions from 1: later tokens of a causal model know more.

    Source: Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search" (2022), section 4.1.
    """
    weights = real * torch.arange(1, real.shape[1] + 1, device=real.device)
    weighted = _real(hidden, real, 0) * weights[:, :, None]
    return weighted.sum(-2) / weights.sum(1)[:, None]


def pool_max(hidden: Tensor, real: Tensor) -> Tensor:
    """Largest value over tokens, dimension by dimension."""
    return _real(hidden, real, -torch.inf).amax(-2)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "last": pool_last,
    "mean": pool_mean,
    "weighted_mean": pool_weighted_mean,
    "cls": pool_cls,
    "max": pool_max,
    "sum": pool_sum,
}


def _real(hidden: Tensor, real: Tensor, filler: float) -> Tensor:
    return hidden.masked_fill(~real[:, :, None], filler)  # not times the mask: 0 * nan is nan


def _token(hidden: Tensor, position: Tensor) -> Tensor:
    return hidden[..., torch.arange(len(position), device=position.device), position, :]
