"""Ragged arrays: the hidden states of every token of several texts, concatenated without padding.

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


@dataclass(frozen=True)
class TokenLatents:
    """Hidden states, token ids and character spans of the tokens of several texts."""

    states: NDArray[np.floating[Any]]
    """``[layer, token, width]``, in the stored dtype."""

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

    def select(self, texts: NDArray[np.integer[Any]]) -> "TokenLatents":
        """Return the texts with the given indices, in that order; an index may occur twice."""
        selected = allocate(self.states, self.lengths[texts])
        for source, target in copy_slices(self.offsets[:-1][texts], selected.lengths, selected.offsets[:-1]):
            selected.states[:, target] = self.states[:, source]
            selected.ids[target], selected.spans[target] = self.ids[source], self.spans[source]
        return selected


def concatenate(batches: Sequence[TokenLatents]) -> TokenLatents:
    """Concatenate the texts of several batches, which have the same layers."""
    return TokenLatents(
        np.concatenate([batch.states for batch in batches], axis=1),
        offsets_from_lengths(np.concatenate([batch.lengths for batch in batches])),
        np.concatenate([batch.ids for batch in batches]),
        np.concatenate([batch.spans for batch in batches]),
    )


def allocate(template: NDArray[np.floating[Any]], lengths: Counts) -> TokenLatents:
    """Allocate uninitialised arrays for texts of ``lengths`` tokens.

    Args:
        template: ``[layer, ..., width]``: gives the number of layers, the width and the dtype.
        lengths: ``[text]``.
    """
    offsets = offsets_from_lengths(lengths)
    states = np.empty((len(template), int(offsets[-1]), template.shape[-1]), template.dtype)
    return TokenLatents(states, offsets, np.empty(offsets[-1], np.int32), np.empty((offsets[-1], 2), np.int32))


def offsets_from_lengths(lengths: NDArray[np.integer[Any]]) -> Counts:
    """Return the offsets of texts of these lengths, ``[text] -> [text + 1]``: 0, then the cumulative sums."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def concatenate_ranges(starts: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> Counts:
    """Concatenate the ranges ``starts[i]:starts[i] + lengths[i]``."""
    offsets = offsets_from_lengths(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def copy_slices(starts: Counts, lengths: Counts, targets: Counts) -> Iterator[tuple[slice, slice]]:
    """Yield the slices that move texts from ``starts`` to ``targets``: (source, target), in source order.

    Args:
        starts: ``[text]``: first token of each text in the source.
        lengths: ``[text]``.
        targets: ``[text]``: first token of each text in the target.
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
