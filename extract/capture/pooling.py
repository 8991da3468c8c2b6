"""Poolings: pure functions from the hidden states of a text to its latent, which never read padding.

``hidden`` is ``[..., text, token, width]`` in float32 or float64; ``mask`` is ``[text, token]``, True for the tokens
that a view sees of a text, which follow one another; the latent is ``[..., text, width]``.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def pool_last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the last token."""
    return _select_token(hidden, mask.cumsum(1).argmax(1))


def pool_cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the first token: ``[CLS]`` or ``<s>`` if the tokenizer adds one."""
    return _select_token(hidden, torch.zeros_like(mask.sum(1)))


def pool_sum(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over tokens."""
    return _fill_padding(hidden, mask, 0).sum(-2)


def pool_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019), section 3, MEAN-strategy.
    """
    return pool_sum(hidden, mask) / mask.sum(1)[:, None]


def pool_weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the position-weighted mean ``sum_i i h_i / sum_i i``, positions from 1.

    Suits causal models, whose later tokens have seen more of the text.

    Source: Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search" (2022), section 4.1.
    """
    weights = mask * mask.cumsum(1)
    weighted = _fill_padding(hidden, mask, 0) * weights[:, :, None]
    return weighted.sum(-2) / weights.sum(1)[:, None]


def pool_max(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum over tokens, dimension by dimension."""
    return _fill_padding(hidden, mask, -torch.inf).amax(-2)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "last": pool_last,
    "text_last": pool_last,
    "mean": pool_mean,
    "weighted_mean": pool_weighted_mean,
    "cls": pool_cls,
    "max": pool_max,
    "sum": pool_sum,
}
"""View -> its pooling."""


def _fill_padding(hidden: Tensor, mask: Tensor, filler: float) -> Tensor:
    return hidden.masked_fill(~mask[:, :, None], filler)  # not times mask: 0 * nan is nan


def _select_token(hidden: Tensor, position: Tensor) -> Tensor:
    return hidden[..., torch.arange(len(position), device=position.device), position, :]
