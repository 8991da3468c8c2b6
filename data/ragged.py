"""Ragged arrays: what every token of several texts has, concatenated without padding.

Text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``. Texts are copied by slices; texts that are adjacent in both
source and target are copied with one slice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

NO_SPAN = -1
"""Start and end in the span of a token that covers no character of its text: a special or a template token."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenIndex:
    """Where the tokens of texts are: tokens of each window, characters of each token, windows of each text.

    A text that is not split is one window.
    """

    offsets: Counts
    """``[window + 1]``: window ``i`` has the tokens ``offsets[i]:offsets[i + 1]``."""

    spans: NDArray[np.int32]
    """``[token, 2]``: start and end of the characters that a token covers, as :attr:`TokenLatents.spans`."""

    starts: Counts
    """``[text + 1]``: text ``i`` has the windows ``starts[i]:starts[i + 1]``."""

    @property
    def lengths(self) -> Counts:
        """Number of tokens of each window, ``[window]``."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Largest number of tokens of a window, at least 1."""
        return int(self.lengths.max(initial=1))

    def tokens_of(self, windows: NDArray[np.integer[Any]]) -> Counts:
        """Return the indices of the tokens of some windows, one window after another."""
        return concatenate_ranges(self.offsets[windows], self.lengths[windows])

    def windows_of(self, texts: NDArray[np.integer[Any]]) -> tuple[Counts, Counts]:
        """Return the indices of the windows of some texts, one text after another, and their offsets ``[text + 1]``."""
        counts = np.diff(self.starts)[texts]
        return concatenate_ranges(self.starts[texts], counts), offsets_from_lengths(counts)


@dataclass(frozen=True)
class TokenLatents:
    """Hidden states, token ids and character spans of the tokens of several texts."""

    states: NDArray[Any]
    """``[layer, token, width]`` in the dtype in which a store is read; in a block, as a shard stores them."""

    offsets: Counts
    """``[text + 1]``: text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``."""

    ids: NDArray[np.int32]
    """``[token]``: token ids of the tokenizer."""

    spans: NDArray[np.int32]
    """``[token, 2]``: start and end (exclusive) of the characters of the text that a token covers; (-1, -1) for special
    and template tokens. For a text of two segments, spans index the whole second segment in every window, and the
    tokens of the first segment have none. Spans are those of the tokenizer: byte-level tokenizers include the space
    before a word."""

    @property
    def lengths(self) -> Counts:
        """Number of tokens of each text, ``[text]``."""
        return np.diff(self.offsets)

    def index(self, starts: Counts) -> TokenIndex:
        """Return the token index of texts whose windows these are; ``starts`` as :attr:`TokenIndex.starts`."""
        return TokenIndex(offsets=self.offsets, spans=self.spans, starts=starts)

    def select(self, texts: NDArray[np.integer[Any]], layers: Sequence[int] | None = None) -> "TokenLatents":
        """Return the texts and the layers (None: all) of the given indices, in that order; a text may occur twice."""
        states, lengths = (self.states if layers is None else self.states[list(layers)]), self.lengths[texts]
        index = concatenate_ranges(self.offsets[:-1][texts], lengths)
        return TokenLatents(states.take(index, 1), offsets_from_lengths(lengths), self.ids[index], self.spans[index])


def concatenate(batches: Sequence[TokenLatents]) -> TokenLatents:
    """Concatenate the texts of several batches, which have the same layers."""
    return TokenLatents(
        np.concatenate([batch.states for batch in batches], axis=1),
        offsets_from_lengths(np.concatenate([batch.lengths for batch in batches])),
        np.concatenate([batch.ids for batch in batches]),
        np.concatenate([batch.spans for batch in batches]),
    )


def offsets_from_lengths(lengths: NDArray[np.integer[Any]]) -> Counts:
    """Return the offsets of texts of these lengths, ``[text] -> [text + 1]``: 0, then the cumulative sums."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def concatenate_ranges(starts: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> Counts:
    """Concatenate the ranges ``starts[i]:starts[i] + lengths[i]``."""
    offsets = offsets_from_lengths(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def covering_ranges(spans: NDArray[np.integer[Any]], offsets: Counts) -> Counts:
    """Return the range of tokens of each text from the first to the last that covers characters of it.

    Args:
        spans: ``[token, 2]``, as :attr:`TokenLatents.spans`.
        offsets: ``[text + 1]``.

    Returns:
        ``[text, 2]``, counted within the text, end excluded; (0, 0) if no token does.
    """
    covering = np.flatnonzero(spans[:, 0] != NO_SPAN)
    low, high = np.searchsorted(covering, offsets[:-1]), np.searchsorted(covering, offsets[1:])
    ranges = np.zeros((len(low), 2), np.int64)
    some = high > low
    ranges[some] = np.stack([covering[low[some]], covering[high[some] - 1] + 1], 1) - offsets[:-1][some, None]
    return ranges


def pad_index(lengths: Counts, multiple: int = 1, starts: Counts | None = None) -> tuple[Counts, NDArray[np.bool_]]:
    """Return which token every position has if texts are padded on the right to the longest.

    Args:
        lengths: ``[text]``, at least one text.
        multiple: number of positions is a multiple of it.
        starts: ``[text]``: first token of each text; by default texts follow one another.

    Returns:
        ``[text, position]``: index of the token, of the first token of the text in padding; and whether the text has a
        token there.
    """
    first = (offsets_from_lengths(lengths)[:-1] if starts is None else starts)[:, None]
    positions = np.arange(-(-lengths.max() // multiple) * multiple)
    mask = positions < lengths[:, None]
    return np.where(mask, first + positions, first), mask


def copy_slices(starts: Counts, lengths: Counts, targets: Counts) -> Iterator[tuple[slice, slice]]:
    """Yield the slices that move texts from ``starts`` to ``targets``: (source, target), in source order.

    Args:
        starts, targets: ``[text]``: first token of each text in the source and in the target.
        lengths: ``[text]``.
    """
    if not len(starts):
        return
    order = np.argsort(starts, kind="stable")
    starts, lengths, targets = starts[order], lengths[order], targets[order]
    adjacent = (starts[1:] == (starts + lengths)[:-1]) & (targets[1:] == (targets + lengths)[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~adjacent]))
    sizes = np.add.reduceat(lengths, first)
    for start, target, size in zip(starts[first].tolist(), targets[first].tolist(), sizes.tolist(), strict=True):
        yield slice(start, start + size), slice(target, target + size)
