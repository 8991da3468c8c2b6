"""Texts to token ids: template, special tokens, truncation. Padding is the packer's.

A text that is too long loses tokens from its own end: the words of the template around it, and special tokens, stay. Of
two segments the second loses them, or is run in windows.
"""

from collections.abc import Iterator, Sequence
from itertools import compress, groupby, islice
from typing import TYPE_CHECKING

import numpy as np

from permafrost.data.ragged import Counts, bounds
from permafrost.data.spec import SpecError
from permafrost.data.store.plan import WHOLE
from permafrost.data.text import Segments, Text, TextError, short, spread
from permafrost.extract.tokenization.token_batch import TokenBatch, TokenBatchBuilder, TokenizedText
from permafrost.extract.tokenization.windows import Pair, joint

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


CHUNK = 1024

TEXT = "{text}"


def tokenize(
    tokenizer: "Tokenizer",
    texts: Sequence[Text],
    template: str,
    max_tokens: int,
    characters: bool = False,
    stride: int = WHOLE,
) -> TokenBatch:
    """Token ids of ``texts`` within ``template``, each at most ``max_tokens`` long, special tokens included.

    Two segments have no template but the tokenizer's own.

    Args:
        characters: whether to tell which characters of its text each token covers; in an echo, of its second place.
        stride: tokens by which the windows of two segments overlap; -1 cuts the second. A text is the window it names.

    Raises:
        TextError: a text has no token at all, has no such window, or its first segment leaves no room for ``stride``
            tokens of the second and one more in ``max_tokens``.
        SpecError: the template alone fills ``max_tokens``.
    """
    paired = any(isinstance(text, Segments) for text in texts)
    echo = template.count(TEXT) == 2
    rows = TokenBatchBuilder(paired, echo, characters)
    for encoding, same in _encoded(tokenizer, texts, template, paired or echo or characters):
        pair: Pair | None = None
        for text in same:
            if isinstance(text, Segments):
                pair = pair or Pair(text, encoding, max_tokens, stride)
                rows.add(pair.row(text.window))
            else:
                rows.add(_of_one(tokenizer, encoding, text, template, max_tokens, echo, characters))
    return rows.tokens()


def windowed(
    tokenizer: "Tokenizer", texts: Sequence[Text], max_tokens: int, stride: int = WHOLE
) -> tuple[list[Text], Counts]:
    """Every text with its further windows, one after another, and ``[text + 1]``: where those of each begin.

    Raises what :func:`tokenize` does of two segments.
    """
    counts = np.ones(len(texts), np.int64)
    two = [(index, text) for index, text in enumerate(texts) if isinstance(text, Segments)]
    if stride != WHOLE and two:
        at = 0
        for encoding, same in _encoded(tokenizer, [text for _, text in two], TEXT, True):
            pair = Pair(two[at][1], encoding, max_tokens, stride)
            for index, text in two[at : at + len(same)]:
                counts[index] = max(1, len(pair.windows) - text.window)
            at += len(same)
    return spread(texts, counts), bounds(counts)


def _encoded(
    tokenizer: "Tokenizer", texts: Sequence[Text], template: str, offsets: bool
) -> Iterator[tuple["Encoding", list[Text]]]:
    """Texts that follow each other and differ in their window at most, with the one encoding that they have."""
    between = joint(tokenizer) if any(isinstance(text, Segments) for text in texts) else ""
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast

    def given(text: Text) -> str | tuple[str, str]:
        return template.replace(TEXT, text) if isinstance(text, str) else (text.first + between, text.second)

    runs = ((key, list(same)) for key, same in groupby(texts, given))
    while chunk := list(islice(runs, CHUNK)):
        yield from zip(encode([key for key, _ in chunk]), (same for _, same in chunk), strict=True)


def _of_one(
    tokenizer: "Tokenizer", encoding: "Encoding", text: str, template: str, max_tokens: int, echo: bool, all_told: bool
) -> TokenizedText:
    ids: list[int] = encoding.ids
    if not len(ids):
        raise _no_token(text)
    row = TokenizedText(ids, len(ids))
    kept = None
    if echo or len(ids) > max_tokens:
        known = encoding if echo or all_told else tokenizer.encode(template.replace(TEXT, text))
        kept, row.pooled = _fitted(known, text, template, max_tokens)
        row.ids = list(compress(ids, kept))
    if all_told:
        row.offsets, row.nowhere = encoding.offsets, encoding.special_tokens_mask
        row.place = list(_places(template, text))[-1]
        if kept:
            row.offsets, row.nowhere = list(compress(row.offsets, kept)), list(compress(row.nowhere, kept))
    return row


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
        raise _no_token(text)
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


def _no_token(text: str) -> TextError:
    return TextError(f"text {short(text)}: the tokenizer makes no token of it; leave it out.", text)


def _places(template: str, text: str) -> Iterator[tuple[int, int]]:
    """Where the text lies in the template filled in: first character, and the first after it."""
    at = -1
    filled = 0
    while (at := template.find(TEXT, at + 1)) >= 0:
        start = at + filled * (len(text) - len(TEXT))
        yield start, start + len(text)
        filled += 1
