"""Two segments of one input: how they are joined, and how the second is cut, or run in windows, where it is too long.

A window is the whole first segment and a stretch of the second, with the tokens that both have in the tokenisation of
the whole. It begins and ends between words (a word: characters between white space, or in a script that is written
without spaces a single one), and the next begins at the word that lies ``stride`` tokens before its end, so the two
overlap by at least that. They overlap by less where the word that follows is so long that a window must begin later to
hold it. A word longer than a window is cut anywhere, but for before a combining mark.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.script import CHARACTER, parts
from permafrost.data.store.plan import WHOLE
from permafrost.data.text import Segments, TextError, short
from permafrost.extract.tokenization.token_batch import TokenizedText

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def joint(tokenizer: "Tokenizer") -> str:
    """What ends the first segment: nothing where the tokenizer puts a token of its own between, else a line feed."""
    return "\n" if (0, 1) in pairwise(tokenizer.encode("a", "a").sequence_ids) else ""


class Pair:
    """The tokens of two segments, and the windows that they are run in."""

    def __init__(self, text: Segments, encoding: "Encoding", max_tokens: int, stride: int) -> None:
        """Find the windows.

        Args:
            stride: tokens by which they overlap; -1 for a single one, which is cut where it is full.

        Raises:
            TextError: the second segment has no token, the first alone fills ``max_tokens``, or beside it windows that
                overlap by ``stride`` tokens would never get on.
        """
        self.text, self._encoding = text, encoding
        self._nowhere = [segment != 1 for segment in encoding.sequence_ids]
        if all(self._nowhere):
            raise TextError(
                f"text {short(text)}: the tokenizer makes no token of its second segment; leave it out.", text
            )
        self._first = self._nowhere.index(False)
        self._stop = len(encoding) - self._nowhere[::-1].index(False)
        self.windows = self._find_windows(max_tokens, stride)
        """First token of the second segment that each holds, and the first after those, counted within it."""

    def row(self, window: int) -> TokenizedText:
        """The tokens of one window; raises :class:`TextError` where there is no such."""
        if not 0 <= window < len(self.windows):
            held = f"{len(self.windows)} windows, and none of number {window}"
            raise TextError(f"text {short(self.text)} has {held}.", self.text)
        start, stop = self.windows[window]
        ids, kinds, offsets = self._encoding.ids, self._encoding.type_ids, self._encoding.offsets
        first, after = self._first, self._stop

        def taken(values: list[Any]) -> list[Any]:
            return values[:first] + values[first + start : first + stop] + values[after:]

        place = (0, len(self.text.second))
        uncut = len(self._encoding) - start
        return TokenizedText(taken(ids), uncut, (0, 0), taken(kinds), taken(offsets), taken(self._nowhere), place)

    def _find_windows(self, max_tokens: int, stride: int) -> list[tuple[int, int]]:
        size = self._stop - self._first
        fixed = len(self._encoding) - size
        room = max_tokens - fixed
        if size <= room:
            return [(0, size)]
        if room < 1:
            raise TextError(
                f"text {short(self.text)}: its first segment takes {fixed} tokens with special ones, which leaves no "
                f"room for the second in plan.max_tokens = {max_tokens}; raise it, or leave the text out.",
                self.text,
            )
        if stride == WHOLE:
            return [(0, room)]
        if stride >= room:
            raise TextError(
                f"plan.stride = {stride} is too much for text {short(self.text)}: its first segment takes {fixed} "
                f"tokens with special ones, which leaves windows of {room} of the second in plan.max_tokens = "
                f"{max_tokens}; lower plan.stride, raise plan.max_tokens, or leave the text out.",
                self.text,
            )
        spans = np.array(self._encoding.offsets[self._first : self._stop])
        return list(_windows(_breaks(self.text.second, spans, room), room, stride))


def _breaks(text: str, spans: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """The tokens before which a window may begin or end, ascending, and how many there are as the last.

    White space that is a token of its own belongs to the word after it.
    """
    words = np.searchsorted([end for _, end in parts(text)], spans[:, 0], side="right")
    first = np.diff(words, prepend=-1) != 0
    too_long = (np.bincount(words) > room)[words]
    if too_long.any():
        too_long &= ~_within_character(text, spans, room)
    return np.append(np.flatnonzero(first | too_long), len(spans))


def _within_character(text: str, spans: NDArray[np.int64], room: int) -> NDArray[np.bool_]:
    """``[token]``: whether it goes on with a character that has combining marks; not if that is itself too long."""
    characters = np.array([found.span() for found in CHARACTER.finditer(text)] + [(len(text), len(text))])
    of_token = np.searchsorted(characters[:-1, 1], spans[:, 0], side="right")
    first, last = characters[of_token].T
    begun = np.append(0, spans[:-1, 1]) > first
    held: NDArray[np.bool_] = begun & (last - first > 1) & (np.bincount(of_token) <= room)[of_token]
    return held


def _windows(breaks: NDArray[np.int64], room: int, stride: int) -> Iterator[tuple[int, int]]:
    """First token of each window, and the first after it; a window holds at most ``room``."""
    start, size = 0, int(breaks[-1])
    while size - start > room:
        end = int(np.searchsorted(breaks, start + room, "right")) - 1
        stop, further = breaks[end : end + 2].tolist()
        yield start, stop
        least = int(np.searchsorted(breaks, max(start + 1, further - room)))  # the next one must hold one word more
        wanted = int(np.searchsorted(breaks, stop - stride, "right")) - 1
        start = int(breaks[max(least, wanted)])
    yield start, size
