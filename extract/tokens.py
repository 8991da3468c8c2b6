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
    from tokenizers import Tokenizer

CHUNK = 1024


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

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[text]``: tokens after truncation."""
        return np.diff(self.offsets)

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
    for index, row in enumerate(_encoded(tokenizer, texts, template)):
        if not len(row):
            raise TextError(f"text {texts[index]!r}: the tokenizer makes no token of it; remove it from the corpus.")
        uncut[index] = len(row)
        kept = row if len(row) <= max_tokens else _cut(tokenizer, texts[index], template, max_tokens)
        ids.extend(kept)
        lengths[index + 1] = len(kept)
    return Tokens(np.array(ids, np.int32), np.cumsum(lengths), uncut)


def _encoded(tokenizer: "Tokenizer", texts: Sequence[str], template: str) -> Iterator[list[int]]:
    for start in range(0, len(texts), CHUNK):
        whole = [template.replace("{text}", text) for text in texts[start : start + CHUNK]]
        yield from (encoding.ids for encoding in tokenizer.encode_batch_fast(whole))


def _cut(tokenizer: "Tokenizer", text: str, template: str, max_tokens: int) -> list[int]:
    before = template.index("{text}")
    end = before + len(text)
    encoding = tokenizer.encode(template.replace("{text}", text))
    fixed = list(zip(encoding.special_tokens_mask, encoding.offsets, strict=True))
    own = [index for index, (special, (start, _)) in enumerate(fixed) if not special and before <= start < end]
    if not own:
        raise TextError(f"text {text!r}: the tokenizer makes no token of it; remove it from the corpus.")
    head, tail = own[0], len(fixed) - 1 - own[-1]
    room = max_tokens - tail
    if room <= head:
        raise SpecError(
            f"plan.max_tokens = {max_tokens} leaves no room for a text: template and special tokens take {head + tail}."
        )
    ids: list[int] = encoding.ids
    return ids[:room] + ids[len(ids) - tail :]
