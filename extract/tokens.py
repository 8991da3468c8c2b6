"""Texts to token ids: template, special tokens, truncation. Padding is the packer's.

A text that is too long loses tokens from its own end: the words of the template around it, and special tokens, stay.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
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

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[text]``: tokens after truncation."""
        return np.diff(self.offsets)

    def span(self, text: int) -> slice:
        """The tokens of one text that are pooled."""
        return slice(None) if self.pooled is None else slice(*map(int, self.pooled[text]))

    def of(self, text: int) -> NDArray[np.int32]:
        """The ids of one text."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]


def tokenise(tokenizer: "Tokenizer", texts: Sequence[str], template: str, max_tokens: int) -> Tokens:
    """Token ids of ``texts`` within ``template``, each at most ``max_tokens`` long, special tokens included.

    Raises:
        TextError: a text has no token at all.
        SpecError: the template alone fills ``max_tokens``.
    """
    ids = array("i")  # flat from the start: an object per text would cost more than its tokens
    lengths = np.zeros(len(texts) + 1, np.int64)
    uncut = np.empty(len(texts), np.int32)
    echo = template.count(TEXT) == 2
    spans = np.empty((len(texts), 2), np.int32)
    for index, encoding in enumerate(_encoded(tokenizer, texts, template, echo)):
        row: list[int] = encoding.ids
        if not len(row):
            raise TextError(f"text {texts[index]!r}: the tokenizer makes no token of it; remove it from the corpus.")
        uncut[index] = len(row)
        if echo or len(row) > max_tokens:
            known = encoding if echo else tokenizer.encode(template.replace(TEXT, texts[index]))
            row, spans[index] = _fitted(known, texts[index], template, max_tokens)
        ids.extend(row)
        lengths[index + 1] = len(row)
    return Tokens(np.array(ids, np.int32), np.cumsum(lengths), uncut, spans if echo else None)


def _encoded(tokenizer: "Tokenizer", texts: Sequence[str], template: str, offsets: bool) -> Iterator["Encoding"]:
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    for start in range(0, len(texts), CHUNK):
        yield from encode([template.replace(TEXT, text) for text in texts[start : start + CHUNK]])


def _fitted(encoding: "Encoding", text: str, template: str, max_tokens: int) -> tuple[list[int], tuple[int, int]]:
    """The ids of a text cut to ``max_tokens``, and where the last place of the text lies among them."""
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
    ids = [token for token, keep in zip(encoding.ids, kept, strict=True) if keep]
    before = sum(kept[: places[-1][0]])
    return ids, (before, before + sum(kept[index] for index in places[-1]))


def _places(template: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the text lies in the template filled in: first character, and the first after it."""
    at = -1
    filled = 0
    while (at := template.find(TEXT, at + 1)) >= 0:
        start = at + filled * (len(text) - len(TEXT))
        yield start, start + len(text)
        filled += 1
