"""Windows: where a text that is too long is split; and how two segments are joined, of which the second is split.

A window of two segments is the whole first segment and a stretch of the second, with the tokens that both have if the
whole pair is tokenized. A stretch begins and ends between words (a word: characters between white space, or a single
character in a script that is written without spaces). The next one begins at the word that lies ``stride`` tokens
before its end, so the two overlap by at least ``stride`` tokens, or by fewer if the following word is so long that the
stretch must begin later to hold it. A word longer than a window is cut anywhere, except before a combining mark.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import NO_WINDOWS
from permafrost.data.text import Segments, TextError, quote_text
from permafrost.data.writing.script import CHARACTER, unbreakable_spans
from permafrost.extract.tokenization.token_batch import TokenizedText

if TYPE_CHECKING:  # a run whose latents are all stored does without tokenizers
    from tokenizers import Encoding, Tokenizer


def joint(tokenizer: "Tokenizer") -> str:
    """Return what ends the first segment: nothing if the tokenizer puts a token between the two, else a line feed."""
    return "\n" if (0, 1) in pairwise(tokenizer.encode("a", "a").sequence_ids) else ""


class Pair:
    """Tokens of two segments, and the windows that they are run in."""

    def __init__(self, text: Segments, encoding: "Encoding", max_tokens: int, stride: int) -> None:
        """Find the windows.

        Args:
            stride: tokens by which windows overlap; -1 for a single window, which is cut at ``max_tokens``.

        Raises:
            TextError: the second segment has no token, the first alone fills ``max_tokens``, or it leaves so little
                room that windows that overlap by ``stride`` tokens would not advance.
        """
        self.text, self._encoding = text, encoding
        self._outside = [segment != 1 for segment in encoding.sequence_ids]
        if all(self._outside):
            raise TextError(
                f"text {quote_text(text)}: the tokenizer makes no token of its second segment; leave it out.", text
            )
        self._first = self._outside.index(False)
        self._stop = len(encoding) - self._outside[::-1].index(False)
        self.windows = self._find_windows(max_tokens, stride)
        """Range of tokens of the second segment that each window holds, counted within the segment, end excluded."""

    def window(self, number: int) -> TokenizedText:
        """Return the tokens of one window; raise :class:`TextError` if there is no window of that number."""
        if not 0 <= number < len(self.windows):
            held = f"{len(self.windows)} windows, and none of number {number}"
            raise TextError(f"text {quote_text(self.text)} has {held}.", self.text)
        start, stop = self.windows[number]
        first, after = self._first, self._stop

        def select(values: list[Any]) -> list[Any]:
            return values[:first] + values[first + start : first + stop] + values[after:]

        return TokenizedText(
            ids=select(self._encoding.ids),
            uncut=len(self._encoding) - start,
            token_type_ids=select(self._encoding.type_ids),
            offsets=select(self._encoding.offsets),
            outside=select(self._outside),
            extent=(0, len(self.text.second)),
        )

    def _find_windows(self, max_tokens: int, stride: int) -> list[tuple[int, int]]:
        size = self._stop - self._first
        fixed = len(self._encoding) - size
        room = max_tokens - fixed
        if size <= room:
            return [(0, size)]
        if room < 1:
            raise TextError(
                f"text {quote_text(self.text)}: its first segment takes {fixed} tokens with special ones, which leaves "
                f"no room for the second in plan.max_tokens = {max_tokens}; raise it, or leave the text out.",
                self.text,
            )
        if stride == NO_WINDOWS:
            return [(0, room)]
        if stride >= room:
            raise TextError(
                f"plan.stride = {stride} is too much for text {quote_text(self.text)}: its first segment takes {fixed} "
                f"tokens with special ones, which leaves windows of {room} of the second in plan.max_tokens = "
                f"{max_tokens}; lower plan.stride, raise plan.max_tokens, or leave the text out.",
                self.text,
            )
        spans = np.array(self._encoding.offsets[self._first : self._stop])
        return list(stretches(self.text.second, spans, room, stride))


def stretches(text: str, spans: NDArray[np.int64], room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield the range of tokens of each window, end excluded.

    Args:
        spans: ``[token, 2]``, the characters of the text that each token covers.
        room: most tokens of a window, more than ``stride``.
        stride: tokens by which windows overlap.
    """
    breaks = _breaks(text, spans, room)
    start, size = 0, len(spans)
    while size - start > room:
        end = int(np.searchsorted(breaks, start + room, "right")) - 1
        stop, further = breaks[end : end + 2].tolist()
        yield start, stop
        least = int(np.searchsorted(breaks, max(start + 1, further - room)))  # the next window must hold one more word
        wanted = int(np.searchsorted(breaks, stop - stride, "right")) - 1
        start = int(breaks[max(least, wanted)])
    yield start, size


def _breaks(text: str, spans: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the tokens before which a window may begin or end, ascending, and the number of tokens as the last.

    A token of white space alone belongs to the word after it.
    """
    words = np.searchsorted([end for _, end in unbreakable_spans(text)], spans[:, 0], side="right")
    first = np.diff(words, prepend=-1) != 0
    too_long = (np.bincount(words) > room)[words]
    if too_long.any():
        too_long &= ~_within_character(text, spans, room)
    return np.append(np.flatnonzero(first | too_long), len(spans))


def _within_character(text: str, spans: NDArray[np.int64], room: int) -> NDArray[np.bool_]:
    """Return ``[token]``: true if a token continues a character with combining marks, unless that exceeds ``room``."""
    characters = np.array([match.span() for match in CHARACTER().finditer(text)] + [(len(text), len(text))])
    of_token = np.searchsorted(characters[:-1, 1], spans[:, 0], side="right")
    first, last = characters[of_token].T
    begun = np.append(0, spans[:-1, 1]) > first
    continues: NDArray[np.bool_] = begun & (last - first > 1) & (np.bincount(of_token) <= room)[of_token]
    return continues
