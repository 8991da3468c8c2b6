"""Rows of texts of any length, back to back and without padding; attention is kept within each text.

For attention, and for pooling, texts of similar length are grouped and padded to the longest of the group.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.device.transfer import to_device
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths, pad_index
from permafrost.extract.attention.kernel import Spans, attend_by_kernel, has_kernel

MAX_GROUP_TOKENS = 8192
"""Most tokens in a group, padding included, and most tokens in a row; a longer text is alone."""

GROUP_COST_TOKENS = 50
"""Cost of one more group, in tokens of padding that take as long. From 25 to 200 makes no difference."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Texts of similar length, whose tokens are consecutive in a row."""

    texts: NDArray[np.int64]
    """``[text]``: indices among all texts."""

    tokens: slice
    """Range of their tokens in the row."""

    mask: Tensor
    """``[text, token]``, True for tokens, False in padding, which is on the right."""

    pad_index: Tensor | None = None
    """``[text * token]``: the token of the group that each padded position holds; None if there is no padding."""

    token_index: Tensor | None = None
    """``[token]``: the padded position of each token; None if there is no padding."""

    def padded(self, row: Tensor) -> Tensor:
        """Return ``[token, ...]`` of a row as ``[text, token, ...]`` of this group; anything finite in padding."""
        values = row[self.tokens]
        values = values if self.pad_index is None else values.index_select(0, self.pad_index)
        return values.view(*self.mask.shape, *values.shape[1:])

    def packed(self, padded: Tensor) -> Tensor:
        """Return ``[text, token, ...]`` of this group as ``[token, ...]``, without padding."""
        return self.packed_layers(padded[None])[0]

    def packed_layers(self, padded: Tensor) -> Tensor:
        """Return ``[layer, text, token, ...]`` of this group as ``[layer, token, ...]``, without padding."""
        flat = padded.flatten(1, 2)
        return flat if self.token_index is None else flat.index_select(1, self.token_index)


@dataclass(frozen=True)
class Texts:
    """Texts that lie back to back in a row, in any order; for a forward pass without gradients."""

    lengths: NDArray[np.int64]
    device: torch.device

    @cached_property
    def groups(self) -> list[Group]:
        """Neighbours of similar length, of which none is less than half as long as the longest of its group."""
        groups: list[list[int]] = []
        longest = shortest = 0
        for text, length in enumerate(self.lengths.tolist()):
            if not groups or 2 * min(shortest, length) < max(longest, length):
                groups.append([])
                longest = shortest = length
            groups[-1].append(text)
            longest, shortest = max(longest, length), min(shortest, length)
        ends = offsets_from_lengths(self.lengths).tolist()
        return [
            _make_group(np.array(texts), self.lengths[texts], slice(ends[texts[0]], ends[texts[-1] + 1]), self.device)
            for texts in groups
        ]

    @cached_property
    def spans(self) -> Spans:
        """Where they lie."""
        starts = offsets_from_lengths(self.lengths).astype(np.int32)
        return Spans(to_device(starts, self.device), int(self.lengths.max()))


@dataclass(frozen=True)
class Row:
    """Some texts, back to back, in groups of similar length."""

    groups: Sequence[Group]
    tokens: Tensor
    """``[token]``: index of each token among the tokens of all texts."""

    positions: Tensor
    """``[token]``: number of tokens of the same text before each token."""


def rows_of(lengths: NDArray[np.int64], device: torch.device, equal: bool = False) -> list[Row]:
    """Lay out texts in rows of at most :data:`MAX_GROUP_TOKENS` tokens, those of similar length side by side.

    Args:
        equal: whether only texts of one length are in a group.
    """
    rows: list[list[NDArray[np.int64]]] = []
    size = MAX_GROUP_TOKENS + 1
    for texts in group_by_length(lengths, 0 if equal else GROUP_COST_TOKENS):
        count = int(lengths[texts].sum())
        if size + count > MAX_GROUP_TOKENS:
            rows.append([])
            size = 0
        rows[-1].append(texts)
        size += count
    starts = offsets_from_lengths(lengths)[:-1]
    return [_make_row(groups, starts, lengths, device) for groups in rows]


def group_by_length(lengths: NDArray[np.int64], group_cost: int = GROUP_COST_TOKENS) -> list[NDArray[np.int64]]:
    """Group texts by length, so that padding and the cost of starting groups are least in sum.

    Args:
        group_cost: of one more group, in tokens of padding; with 0 there is no padding.

    Returns:
        the indices of the texts of each group.
    """
    order = np.argsort(lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    ends = offsets_from_lengths(counts)
    least, begins = np.zeros(len(ends)), np.zeros(len(ends), np.int64)
    for end, size in enumerate(sizes, 1):
        costs = least[:end] + group_cost + size * (ends[end] - ends[:end])
        begins[end] = costs.argmin()
        least[end] = costs[begins[end]]
    groups: list[NDArray[np.int64]] = []
    end = len(sizes)
    while end:
        texts = order[ends[begins[end]] : ends[end]]
        groups += np.array_split(texts, -(-len(texts) // max(1, MAX_GROUP_TOKENS // int(sizes[end - 1]))))
        end = int(begins[end])
    return groups


@lru_cache
def register_attention() -> str:
    """Register the attention over rows of several texts with transformers; return its name."""
    from transformers import AttentionInterface  # slow to import, and most commands do without it

    AttentionInterface.register(__name__, _attend_within_texts)
    return __name__


def _attend_within_texts(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    groups: Sequence[Group] = (),
    texts: Texts | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention within each text of a row, ``[1, token, head, size]``, and no attention weights.

    Args:
        query: ``[1, head, token, size]``; ``key`` and ``value`` may have fewer heads, each shared by several queries.
        groups: the texts of the row in groups; or else
        texts: the texts of the row, for which a kernel of the device is taken that needs no padding, if it is right.
        sliding_window: tokens that a token sees on one side, its own included; None if it sees all.
    """
    causal, states = bool(module.is_causal), (query, key, value)

    def attend_in_groups() -> Tensor:
        row = [each[0].repeat_interleave(query.shape[1] // each.shape[1], 0).transpose(0, 1) for each in states]
        outputs = []
        for group in texts.groups if texts else groups:
            is_causal, mask = _visible(group, causal, sliding_window)
            padded_query, padded_key, padded_value = (group.padded(each).transpose(1, 2) for each in row)
            attended = nn.functional.scaled_dot_product_attention(
                padded_query, padded_key, padded_value, mask, dropout, is_causal, scale=scaling
            )
            outputs.append(group.packed(attended.transpose(1, 2)))
        return torch.cat(outputs)[None]

    if texts is None or not has_kernel(query.device, query.dtype):
        return attend_in_groups(), None
    side = sliding_window - 1 if sliding_window else -1
    return attend_by_kernel(states, texts.spans, (side, 0 if causal else side), scaling, attend_in_groups), None


@contextmanager
def attention_within_texts(model: Any) -> Iterator[None]:
    """Give a model the attention over rows of several texts, and its own again afterwards."""
    own = model.config._attn_implementation
    model.set_attn_implementation(register_attention())
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _visible(group: Group, causal: bool, window: int | None) -> tuple[bool, Tensor | None]:
    """Return whether tokens see the ones before them only, and if that is not all, a mask of what they see."""
    longest = group.mask.shape[1]
    if window and longest > window:
        near = group.mask.new_ones(longest, longest).triu(1 - window).tril(0 if causal else window - 1)
        itself = torch.eye(longest, dtype=torch.bool, device=near.device)  # so that no softmax is over nothing
        return False, (near & group.mask[:, None] | itself)[:, None]
    return causal, None if causal or group.pad_index is None else group.mask[:, None, None]


def _make_row(
    groups: Sequence[NDArray[np.int64]], starts: NDArray[np.int64], lengths: NDArray[np.int64], device: torch.device
) -> Row:
    texts = np.concatenate(groups)
    counts = np.array([lengths[group].sum() for group in groups])
    row_groups = [
        _make_group(group, lengths[group], slice(*ends), device)
        for group, ends in zip(groups, pairwise(offsets_from_lengths(counts).tolist()), strict=True)
    ]
    tokens = concatenate_ranges(starts[texts], lengths[texts])
    positions = concatenate_ranges(np.zeros_like(texts), lengths[texts])
    return Row(row_groups, to_device(tokens, device), to_device(positions, device))


def _make_group(texts: NDArray[np.int64], lengths: NDArray[np.int64], tokens: slice, device: torch.device) -> Group:
    index, real = pad_index(lengths)
    group = Group(texts=texts, tokens=tokens, mask=to_device(real, device))
    if real.all():
        return group
    pads, places = to_device(index.ravel(), device), to_device(np.flatnonzero(real), device)
    return replace(group, pad_index=pads, token_index=places)
