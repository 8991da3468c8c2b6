"""Token ids of many texts, back to back, and how they are gathered text by text."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import NOWHERE, Counts, bounds, ranges


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of many texts, back to back."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    """``[text + 1]``: text ``i`` has the ids from ``offsets[i]`` to ``offsets[i + 1]``."""

    uncut: NDArray[np.int32]
    """``[text]``: tokens before truncation; of a window, as if it went on to the end of its text."""

    pooled: NDArray[np.int32] | None = None
    """``[text, 2]``: first token that is pooled, and the first after it that is not; None where all are."""

    characters: NDArray[np.int32] | None = None
    """``[token, 2]``: the characters of the text that each covers, of two segments those of the second, end excluded;
    (-1, -1) where there are none. None where nobody asked."""

    token_type_ids: NDArray[np.int8] | None = None
    """``[token]``: which segment it counts to, as the tokenizer has it; None where all texts have the one."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[text]``: tokens after truncation."""
        return np.diff(self.offsets)

    @property
    def viewed(self) -> NDArray[np.int64]:
        """``[text]``: how many tokens of each the views see."""
        return self.lengths if self.pooled is None else np.diff(self.pooled, axis=1)[:, 0].astype(np.int64)

    def seen(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the tokens that the views see of some texts lie among all tokens, back to back."""
        first = 0 if self.pooled is None else self.pooled[texts, 0]
        return ranges(self.offsets[texts] + first, self.viewed[texts])

    def span(self, text: int) -> slice:
        """The tokens of one text that are pooled."""
        return slice(None) if self.pooled is None else slice(*map(int, self.pooled[text]))

    def of(self, text: int) -> NDArray[np.int32]:
        """The ids of one text."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]

    def token_type_ids_of(self, text: int) -> NDArray[np.int8]:
        """Which segment each token of one text counts to."""
        if self.token_type_ids is None:
            return np.zeros(self.lengths[text], np.int8)
        return self.token_type_ids[self.offsets[text] : self.offsets[text + 1]]

    def select(self, texts: NDArray[np.int64]) -> "TokenBatch":
        """The tokens of some texts, in the order given."""
        within = ranges(self.offsets[:-1][texts], self.lengths[texts])
        return TokenBatch(
            self.ids[within],
            bounds(self.lengths[texts]),
            self.uncut[texts],
            None if self.pooled is None else self.pooled[texts],
            None if self.characters is None else self.characters[within],
            None if self.token_type_ids is None else self.token_type_ids[within],
        )


@dataclass
class TokenizedText:
    """The tokens of one text, special ones and those of the template included; what nobody asks for is left out."""

    ids: list[int]
    uncut: int
    pooled: tuple[int, int] = (0, 0)
    token_type_ids: Sequence[int] = ()
    offsets: Sequence[tuple[int, int]] = ()
    """Characters of what was tokenised."""

    nowhere: Sequence[int] = ()
    """Whether it covers nothing of the text all the same."""

    place: tuple[int, int] = (0, 0)
    """Where the text lies in what was tokenised."""


class TokenBatchBuilder:
    """Rows gathered and worked out for all at once; flat from the start, as an object per text costs more than it."""

    def __init__(self, paired: bool, echo: bool, characters: bool) -> None:
        self._paired, self._echo, self._characters = paired, echo, characters
        self._ids, self._lengths, self._uncut, self._pooled = array("i"), array("q"), array("i"), array("i")
        self._kinds, self._offsets, self._nowhere, self._places = array("b"), array("i"), array("b"), array("q")

    def add(self, row: TokenizedText) -> None:
        """Take the tokens of the next text."""
        self._ids.extend(row.ids)
        self._lengths.append(len(row.ids))
        self._uncut.append(row.uncut)
        if self._echo:
            self._pooled.extend(row.pooled)
        if self._paired:
            self._kinds.extend(row.token_type_ids or [0] * len(row.ids))
        if self._characters:
            self._offsets.extend(chain.from_iterable(row.offsets))
            self._nowhere.extend(row.nowhere)
            self._places.extend(row.place)

    def tokens(self) -> TokenBatch:
        """All that was added, text by text."""
        lengths = np.array(self._lengths, np.int64)
        return TokenBatch(
            np.array(self._ids, np.int32),
            bounds(lengths),
            np.array(self._uncut, np.int32),
            np.array(self._pooled, np.int32).reshape(-1, 2) if self._echo else None,
            self._spans(lengths) if self._characters else None,
            np.array(self._kinds, np.int8) if self._paired else None,
        )

    def _spans(self, lengths: Counts) -> NDArray[np.int32]:
        places = np.repeat(np.array(self._places).reshape(-1, 2), lengths, axis=0)
        low, high = places[:, :1], places[:, 1:]
        spans = np.clip(np.array(self._offsets).reshape(-1, 2), low, high) - low  # a token may reach over the border
        nothing = (spans[:, 0] >= spans[:, 1]) | np.array(self._nowhere, bool)
        spans[nothing] = NOWHERE
        return np.asarray(spans, np.int32)
