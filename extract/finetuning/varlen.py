"""Texts of any lengths in one row: all that works token by token has no padding, and attention keeps texts apart.

For attention, and for views of whole texts, those of like length are padded to the longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.ragged import bounds, ranges

ROOM = 8192
"""Most places in a group, padding included, and most tokens in a row; a longer text is alone."""

START = 50
"""What one more group costs, in places of padding that take as long. From 25 to 200 makes no difference."""


@dataclass(frozen=True)
class Group:
    """Texts of like length, whose tokens lie one after another in a row."""

    texts: NDArray[np.int64]
    """``[text]``: which of those given."""

    tokens: slice
    """Where their tokens lie."""

    real: Tensor
    """``[text, place]``, false in padding, which lies on the right."""

    places: Tensor | None
    """``[text * place]``: the token of the group that each place holds; None where all texts are as long."""

    kept: Tensor | None
    """``[token]``: the place that holds each; None where all texts are as long."""

    def padded(self, row: Tensor) -> Tensor:
        """``[token, ...]`` of a row to ``[text, place, ...]`` of this group; anything finite in padding."""
        own = row[self.tokens]
        own = own if self.places is None else own.index_select(0, self.places)
        return own.view(*self.real.shape, *own.shape[1:])

    def packed(self, padded: Tensor) -> Tensor:
        """``[text, place, ...]`` back to ``[token, ...]``."""
        flat = padded.flatten(0, 1)
        return flat if self.kept is None else flat.index_select(0, self.kept)


@dataclass(frozen=True)
class Row:
    """Some texts, back to back."""

    groups: Sequence[Group]
    tokens: Tensor
    """``[token]``: where each lies among the tokens of all texts, as they were given."""

    positions: Tensor
    """``[token]``: how many tokens of its own text come before."""


def rows_of(lengths: NDArray[np.int64], device: torch.device) -> list[Row]:
    """Lay texts into rows, those of like length side by side."""
    rows: list[list[NDArray[np.int64]]] = []
    size = ROOM + 1
    for texts in alike(lengths):
        count = int(lengths[texts].sum())
        if size + count > ROOM:
            rows.append([])
            size = 0
        rows[-1].append(texts)
        size += count
    starts = bounds(lengths)[:-1]
    return [_row(groups, starts, lengths, device) for groups in rows]


def alike(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Texts in groups of like length, so that padding and the start of one more group together cost the least."""
    order = np.argsort(lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    ends = bounds(counts)
    least, begins = np.zeros(len(ends)), np.zeros(len(ends), np.int64)
    for end, size in enumerate(sizes, 1):
        costs = least[:end] + START + size * (ends[end] - ends[:end])
        begins[end] = costs.argmin()
        least[end] = costs[begins[end]]
    groups: list[NDArray[np.int64]] = []
    end = len(sizes)
    while end:
        texts = order[ends[begins[end]] : ends[end]]
        groups += np.array_split(texts, -(-len(texts) // max(1, ROOM // int(sizes[end - 1]))))
        end = int(begins[end])
    return groups


@lru_cache
def attention_name() -> str:
    """The implementation of attention that transformers is to be told of where a row holds several texts."""
    from transformers import AttentionInterface

    AttentionInterface.register(__name__, _attention)
    return __name__


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    groups: Sequence[Group],
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a row.

    Args:
        query: ``[1, head, token, size]``; ``key`` and ``value`` may have fewer heads, each for as many of the query.

    Returns:
        ``[1, token, head, size]``, and no weights.
    """
    heads = query.shape[1]
    row = [part[0].repeat_interleave(heads // part.shape[1], 0).transpose(0, 1) for part in (query, key, value)]
    made = []
    for group in groups:
        mask = None if module.is_causal or group.places is None else group.real[:, None, None]
        asked, told, held = (group.padded(part).transpose(1, 2) for part in row)
        found = nn.functional.scaled_dot_product_attention(
            asked, told, held, attn_mask=mask, dropout_p=dropout, scale=scaling, is_causal=bool(module.is_causal)
        )
        made.append(group.packed(found.transpose(1, 2)))
    return torch.cat(made)[None], None


def _row(
    groups: Sequence[NDArray[np.int64]], starts: NDArray[np.int64], lengths: NDArray[np.int64], device: torch.device
) -> Row:
    texts = np.concatenate(groups)
    ends = bounds(np.array([lengths[group].sum() for group in groups]))
    made = [
        _group(group, slice(*map(int, ends[at : at + 2])), lengths[group], device) for at, group in enumerate(groups)
    ]
    tokens, positions = ranges(starts[texts], lengths[texts]), ranges(np.zeros_like(texts), lengths[texts])
    return Row(made, torch.from_numpy(tokens).to(device), torch.from_numpy(positions).to(device))


def _group(texts: NDArray[np.int64], tokens: slice, lengths: NDArray[np.int64], device: torch.device) -> Group:
    within = np.arange(lengths.max()) < lengths[:, None]
    real = torch.from_numpy(within).to(device)
    if within.all():
        return Group(texts, tokens, real, None, None)
    places = np.where(within, bounds(lengths)[:-1, None] + np.arange(within.shape[1]), 0).ravel()
    kept = np.flatnonzero(within)
    return Group(texts, tokens, real, torch.from_numpy(places).to(device), torch.from_numpy(kept).to(device))
