"""Texts to token ids: template, special tokens, truncation. Padding is the packer's.

A text that is too long loses tokens from its own end: the words of the template around it, and special tokens, stay.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.ragged import NOWHERE, bounds, ranges
from data.spec import SpecError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

CHUNK = 1024
TEXT = "{text}"


class TextError(InputError):
    """A text that no latent can be made of."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many texts, back to back."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    """``[text + 1]``: text ``i`` has the ids from ``offsets[i]`` to ``offsets[i + 1]``."""

    uncut: NDArray[np.int32]
    """``[text]``: tokens before truncation."""

    pooled: NDArray[np.int32] | None = None
    """``[text, 2]``: first token that is pooled, and the first after it that is not; None where all are."""

    characters: NDArray[np.int32] | None = None
    """``[token, 2]``: the characters of the text that each covers, end excluded; (-1, -1) where there are none. None
    where nobody asked."""

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


def tokenise(
    tokenizer: "Tokenizer", texts: Sequence[str], template: str, max_tokens: int, characters: bool = False
) -> Tokens:
    """Token ids of ``texts`` within ``template``, each at most ``max_tokens`` long, special tokens included.

    Args:
        characters: whether to tell which characters of its text each token covers; in an echo, of its second place.

    Raises:
        TextError: a text has no token at all.
        SpecError: the template alone fills ``max_tokens``.
    """
    ids = array("i")  # flat from the start: an object per text would cost more than its tokens
    lengths = np.zeros(len(texts), np.int64)
    uncut = np.empty(len(texts), np.int32)
    echo = template.count(TEXT) == 2
    pooled = np.empty((len(texts), 2), np.int32)
    covered = _Covered()
    for index, encoding in enumerate(_encoded(tokenizer, texts, template, echo or characters)):
        kept = None
        row: list[int] = encoding.ids
        if not len(row):
            raise TextError(f"text {texts[index]!r}: the tokenizer makes no token of it; remove it from the corpus.")
        uncut[index] = len(row)
        if echo or len(row) > max_tokens:
            known = encoding if echo or characters else tokenizer.encode(template.replace(TEXT, texts[index]))
            kept, pooled[index] = _fitted(known, texts[index], template, max_tokens)
            row = list(compress(row, kept))
        ids.extend(row)
        lengths[index] = len(row)
        if characters:
            covered.add(encoding, kept, *list(_places(template, texts[index]))[-1])
    spans = covered.spans(lengths) if characters else None
    return Tokens(np.array(ids, np.int32), bounds(lengths), uncut, pooled if echo else None, spans)


class _Covered:
    """Which characters of their texts tokens cover, gathered text by text and worked out for all at once."""

    def __init__(self) -> None:
        self._offsets, self._special, self._places = array("i"), array("b"), array("q")

    def add(self, encoding: "Encoding", kept: list[bool] | None, low: int, high: int) -> None:
        offsets, special = encoding.offsets, encoding.special_tokens_mask
        self._offsets.extend(chain.from_iterable(compress(offsets, kept) if kept else offsets))
        self._special.extend(compress(special, kept) if kept else special)
        self._places.extend((low, high))

    def spans(self, lengths: NDArray[np.int64]) -> NDArray[np.int32]:
        places = np.repeat(np.array(self._places).reshape(-1, 2), lengths, axis=0)
        low, high = places[:, :1], places[:, 1:]
        spans = np.clip(np.array(self._offsets).reshape(-1, 2), low, high) - low  # a token may reach over the border
        nothing = (spans[:, 0] >= spans[:, 1]) | np.array(self._special, bool)
        spans[nothing] = NOWHERE
        return np.asarray(spans, np.int32)


def _encoded(tokenizer: "Tokenizer", texts: Sequence[str], template: str, offsets: bool) -> Iterator["Encoding"]:
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    for start in range(0, len(texts), CHUNK):
        yield from encode([template.replace(TEXT, text) for text in texts[start : start + CHUNK]])


def _fitted(encoding: "Encoding", text: str, template: str, max_tokens: int) -> tuple[list[bool], tuple[int, int]]:
    """Which tokens a text cut to ``max_tokens`` keeps, and where its last place lies among those."""
    special = encoding.special_tokens_mask
    kept = [True] * len(special)
    places = [
        [
            index
            for index, (start, end) in enumerate(encoding.offsets)
            if not special[index] and end > low and start < high
        ]
        for low, high in _places(template, text)
    ]
    if not all(places):
        raise TextError(f"text {text!r}: the tokenizer makes no token of it; remove it from the corpus.")
    fixed = len(special) - sum(map(len, places))
    each = (max_tokens - fixed) // len(places)
    if each < 1:
        raise SpecError(
            f"plan.max_tokens = {max_tokens} leaves no room for a text: template and special tokens take {fixed}."
        )
    if len(special) > max_tokens:
        for place in places:
            for index in place[each:]:
                kept[index] = False
    before = sum(kept[: places[-1][0]])
    return kept, (before, before + sum(kept[index] for index in places[-1]))


def _places(template: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the text lies in the template filled in: first character, and the first after it."""
    at = -1
    filled = 0
    while (at := template.find(TEXT, at + 1)) >= 0:
        start = at + filled * (len(text) - len(TEXT))
        yield start, start + len(text)
        filled += 1
