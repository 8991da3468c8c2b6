"""Ragged latents: the hidden states of every token of some texts, back to back, without padding.

Text ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``. Texts are copied by slices, as many at a time as
follow each other both where they lie and where they go.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

NOWHERE = -1
"""Start and end of the span of a token that covers nothing of its text: a special one, or one of the template."""


@dataclass(frozen=True)
class TokenLatents:
    """The tokens of some texts: states, ids and character spans."""

    states: NDArray[np.floating[Any]]
    """``[layer, token, width]``, in the stored precision."""

    offsets: Counts
    """``[text + 1]``: text ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``."""

    ids: NDArray[np.int32]
    """``[token]``: what the tokenizer calls each."""

    spans: NDArray[np.int32]
    """``[token, 2]``: first character of the text that a token covers, and the first after it that it does not;
    (-1, -1) where it covers none: special tokens, and those of the template. Of two segments, characters of the whole
    second one, whatever the window; the tokens of the first cover none. As the tokenizer counts: those that read bytes
    give a word the space before it."""

    @property
    def lengths(self) -> Counts:
        """``[text]``: how many tokens each has."""
        return np.diff(self.offsets)

    def select(self, texts: NDArray[np.integer[Any]]) -> "TokenLatents":
        """Some texts, in the order given; one may be taken twice."""
        taken = empty(self.states, self.lengths[texts])
        for source, target in pieces(self.offsets[:-1][texts], taken.lengths, taken.offsets[:-1]):
            taken.states[:, target] = self.states[:, source]
            taken.ids[target], taken.spans[target] = self.ids[source], self.spans[source]
        return taken


def join(parts: Sequence[TokenLatents]) -> TokenLatents:
    """The texts of several, one after the other; all have the same layers."""
    return TokenLatents(
        np.concatenate([part.states for part in parts], axis=1),
        bounds(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.spans for part in parts]),
    )


def empty(like: NDArray[np.floating[Any]], lengths: Counts) -> TokenLatents:
    """Room for texts of ``lengths`` tokens, with layers, width and precision of ``like``, ``[layer, ..., width]``."""
    offsets = bounds(lengths)
    states = np.empty((len(like), int(offsets[-1]), like.shape[-1]), like.dtype)
    return TokenLatents(states, offsets, np.empty(offsets[-1], np.int32), np.empty((offsets[-1], 2), np.int32))


def bounds(lengths: NDArray[np.integer[Any]]) -> Counts:
    """``[text] -> [text + 1]``: where each text begins when all lie back to back, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def ranges(starts: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> Counts:
    """The whole numbers from each start on, as many as its length, back to back."""
    offsets = bounds(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])


def pieces(starts: Counts, lengths: Counts, targets: Counts) -> Iterator[tuple[slice, slice]]:
    """What to copy to have texts that lie at ``starts`` at ``targets``: (from, to), in the order in which they lie."""
    if not len(starts):
        return
    order = np.argsort(starts, kind="stable")
    starts, lengths, targets = starts[order], lengths[order], targets[order]
    follows = (starts[1:] == (starts + lengths)[:-1]) & (targets[1:] == (targets + lengths)[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    sizes = np.add.reduceat(lengths, first)
    for start, target, size in zip(starts[first].tolist(), targets[first].tolist(), sizes.tolist(), strict=True):
        yield slice(start, start + size), slice(target, target + size)
