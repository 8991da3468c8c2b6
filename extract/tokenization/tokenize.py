"""Tokenization: texts to token ids, with template, special tokens and truncation, and without padding.

A text that is too long loses tokens at its own end, or is run in windows: special tokens and the words of the template
stay. Of two segments, the second is cut, or run in windows.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import compress, groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from permafrost.data.errors import first_line
from permafrost.data.plan.plan import NO_WINDOWS, TEXT
from permafrost.data.ragged import Counts, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments, Text, TextError, expand_windows, quote_text
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.tokenizer import is_failure
from permafrost.extract.tokenization.token_batch import TokenBatch, TokenBatchBuilder, TokenizedText
from permafrost.extract.tokenization.windows import Pair, joint, stretches

if TYPE_CHECKING:  # a run whose latents are all stored does without tokenizers
    from tokenizers import Encoding, Tokenizer


CHUNK, CHUNK_CHARACTERS = 1024, 1 << 22
"""Texts per call of the tokenizer, and characters after which one takes no further text."""


def tokenize(
    tokenizer: "Tokenizer",
    texts: Sequence[Text],
    template: str,
    max_tokens: int,
    characters: bool = False,
    stride: int = NO_WINDOWS,
    add_special_tokens: bool = True,
) -> TokenBatch:
    """Return the token ids of ``texts`` within ``template``, at most ``max_tokens`` each, special tokens included.

    With windows, a text of one segment keeps all of its tokens, and each of its windows has at most ``max_tokens``.

    The template applies to texts of one segment; two segments are joined as the tokenizer joins a pair.

    Args:
        characters: whether to return the characters of the text that each token covers; if the template has the text
            twice, those of the second occurrence.
        stride: tokens by which windows overlap; -1 cuts the text, or its second segment, instead. A text of two
            segments stands for the one window that it names.
        add_special_tokens: whether to put the tokenizer's special tokens around a text, which two segments need.

    Raises:
        TextError: a text has no token, has no such window, or its first segment leaves no room in ``max_tokens`` for
            ``stride`` tokens of the second and one more.
        SpecError: the template alone fills ``max_tokens``, or leaves no room for more than ``stride`` tokens.
        BackboneError: the tokenizer fails on a text.
    """
    paired = any(isinstance(text, Segments) for text in texts)
    echo = template.count(TEXT) == 2
    batch = TokenBatchBuilder(paired, echo, characters)
    try:
        for encoding, windows in _encode(tokenizer, texts, template, add_special_tokens, paired or echo or characters):
            pair: Pair | None = None
            for text in windows:
                if isinstance(text, Segments):
                    pair = pair or Pair(text, encoding, max_tokens, stride)
                    batch.add(pair.window(text.window))
                else:
                    if len(encoding) > max_tokens and not (echo or characters):  # where to cut needs offsets
                        encoding = tokenizer.encode(template.replace(TEXT, text), add_special_tokens=add_special_tokens)
                    batch.add(_tokenize_single(encoding, text, template, max_tokens, echo, characters, stride))
    except OverflowError as error:
        raise BackboneError("the tokenizer of the backbone gives a token that no model has: it is damaged.") from error
    return batch.build()


def windowed(
    tokenizer: "Tokenizer", texts: Sequence[Text], max_tokens: int, stride: int = NO_WINDOWS
) -> tuple[list[Text], Counts]:
    """Split texts of two segments into windows.

    Returns:
        every text with its further windows, and ``[text + 1]``, at which those of each text begin; a text of one
        segment stands for all of its windows.

    Raises:
        TextError: as :func:`tokenize`, of texts of two segments.
    """
    counts = np.ones(len(texts), np.int64)
    pairs = [(index, text) for index, text in enumerate(texts) if isinstance(text, Segments)]
    if stride != NO_WINDOWS and pairs:
        start = 0
        for encoding, windows in _encode(tokenizer, [text for _, text in pairs], TEXT, True, True):
            pair = Pair(pairs[start][1], encoding, max_tokens, stride)
            for index, text in pairs[start : start + len(windows)]:
                counts[index] = max(1, len(pair.windows) - text.window)
            start += len(windows)
    return expand_windows(texts, counts), offsets_from_lengths(counts)


def _encode(
    tokenizer: "Tokenizer", texts: Sequence[Text], template: str, add_special_tokens: bool, offsets: bool
) -> Iterator[tuple["Encoding", list[Text]]]:
    """Encode runs of consecutive texts that differ in their window only, once each; yield encoding and texts."""
    between = joint(tokenizer) if any(isinstance(text, Segments) for text in texts) else ""
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast

    def tokenizer_input(text: Text) -> str | tuple[str, str]:
        return template.replace(TEXT, text) if isinstance(text, str) else (text.first + between, text.second)

    runs = ((key, list(windows)) for key, windows in groupby(texts, tokenizer_input))
    while chunk := list(_chunk(runs)):
        try:
            encodings = encode([key for key, _ in chunk], add_special_tokens=add_special_tokens)
        except BaseException as error:
            if not is_failure(error):
                raise
            raise BackboneError(
                f"the tokenizer of the backbone fails on a text ({first_line(error)}): its files are damaged, or of "
                "another version; set plan.tokenizer to a folder of one that works."
            ) from error
        yield from zip(encodings, (windows for _, windows in chunk), strict=True)


def _chunk(runs: Iterator[tuple[str | tuple[str, str], list[Text]]]) -> Iterator[tuple[Any, list[Text]]]:
    """Yield the next inputs of the tokenizer that are encoded in one call."""
    characters = 0
    for key, windows in islice(runs, CHUNK):
        yield key, windows
        characters += len(key) if isinstance(key, str) else len(key[0]) + len(key[1])
        if characters > CHUNK_CHARACTERS:
            return


def _tokenize_single(
    encoding: "Encoding", text: str, template: str, max_tokens: int, echo: bool, characters: bool, stride: int
) -> TokenizedText:
    ids: list[int] = encoding.ids
    if not len(ids):
        raise no_token(text)
    tokens = TokenizedText(ids=ids, uncut=len(ids))
    kept = None
    if len(ids) > max_tokens and stride != NO_WINDOWS:
        tokens.windows = _split(encoding, text, template, max_tokens, stride)
    elif echo or len(ids) > max_tokens:
        kept, tokens.pooled = _fit(encoding, text, template, max_tokens)
        tokens.ids = list(compress(ids, kept))
    if characters:
        tokens.offsets, tokens.outside = encoding.offsets, encoding.special_tokens_mask
        tokens.extent = list(_occurrences(template, text))[-1]
        if kept:
            tokens.offsets, tokens.outside = list(compress(tokens.offsets, kept)), list(compress(tokens.outside, kept))
    return tokens


def _fit(encoding: "Encoding", text: str, template: str, max_tokens: int) -> tuple[list[bool], tuple[int, int]]:
    """Return which tokens stay if the text is cut to ``max_tokens``, and the range of its last occurrence in those."""
    kept, occurrences = [True] * len(encoding), _tokens_of_occurrences(encoding, text, template)
    room = (max_tokens - len(encoding) + sum(map(len, occurrences))) // len(occurrences)
    _check_room(room, max_tokens, len(encoding) - sum(map(len, occurrences)))
    if len(encoding) > max_tokens:
        for tokens in occurrences:
            for index in tokens[room:]:
                kept[index] = False
    before = sum(kept[: occurrences[-1][0]])
    return kept, (before, before + sum(kept[index] for index in occurrences[-1]))


def _split(encoding: "Encoding", text: str, template: str, max_tokens: int, stride: int) -> list[tuple[int, int]]:
    """Return the stretches of the windows of a text that its template has once, as :attr:`TextWindows.ranges`."""
    (tokens,), ((low, high),) = _tokens_of_occurrences(encoding, text, template), _occurrences(template, text)
    first, stop = tokens[0], tokens[-1] + 1
    fixed = len(encoding) - (stop - first)
    room = max_tokens - fixed
    _check_room(room, max_tokens, fixed)
    if stride >= room:
        raise SpecError(
            f"plan.stride = {stride} must be less than {room}, the tokens of a text that a window has room for: "
            f"plan.max_tokens = {max_tokens}, and template and special tokens take {fixed}."
        )
    spans = np.clip(np.array(encoding.offsets[first:stop]) - low, 0, high - low)
    return [(first + start, first + end) for start, end in stretches(text, spans, room, stride)]


def _tokens_of_occurrences(encoding: "Encoding", text: str, template: str) -> list[list[int]]:
    """Return the indices of the tokens of each occurrence of the text; raise :class:`TextError` if one has none."""
    special, offsets = encoding.special_tokens_mask, encoding.offsets
    occurrences = [
        [index for index, (start, end) in enumerate(offsets) if not special[index] and end > low and start < high]
        for low, high in _occurrences(template, text)
    ]
    if not all(occurrences):
        raise no_token(text)
    return occurrences


def _check_room(room: int, max_tokens: int, fixed: int) -> None:
    if room < 1:
        raise SpecError(
            f"plan.max_tokens = {max_tokens} leaves no room for a text: template and special tokens take {fixed}."
        )


def no_token(text: Text) -> TextError:
    """Return the error of a text that is nothing to the tokenizer."""
    return TextError(f"text {quote_text(text)}: the tokenizer makes no token of it; leave it out.", text)


def _occurrences(template: str, text: str) -> Iterator[tuple[int, int]]:
    """Yield the range of characters of each occurrence of the text in the filled template, end excluded."""
    for filled, match in enumerate(re.finditer(re.escape(TEXT), template)):
        start = match.start() + filled * (len(text) - len(TEXT))
        yield start, start + len(text)
