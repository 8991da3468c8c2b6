"""Named entities of raw text: split it into words, tag them, and return runs of tags as spans of the original text.

A text that is longer than the backbone reads at once is continued after the last sentence that was read completely, so
no entity is lost or reported twice.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Rows, Spans
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.writing.script import SENTENCE_ENDS, unbreakable_spans
from permafrost.data.writing.words import CharacterSpan, split_words
from permafrost.probes.metrics.entities import decode_tags, entities_of
from permafrost.probes.metrics.probabilities import softmax
from permafrost.probes.tasks.base import Predict

Entity = dict[str, Any]
"""Keys ``text``, ``start``, ``end``, ``label`` and ``probability``."""

STOP_WORDS = (".", "!", "?", *SENTENCE_ENDS)

MAX_CHARACTERS = 1 << 13
"""Maximum characters of a text that are tagged at once; more than most backbones read."""

UNREAD_LOGIT = -5e8
"""Logit of all tags but "O" up to which a word has no token: it is after the end of what the backbone reads."""

NON_SPACE = re.compile(r"\S")


def find_entities(labels: Sequence[str], texts: Sequence[str], predict: Predict) -> list[list[Entity]]:
    """Return the entities of every text, in order.

    Args:
        labels: names of the tags.
        predict: function from distinct texts and their words to the logits of each word, ``[word, tag]``.

    Returns:
        For each entity its ``text``, ``start`` and ``end`` in the original text, ``label`` without ``B-`` or ``I-``,
        and ``probability``, the product of the probabilities of its words' tags.
    """
    entities: list[list[Entity]] = [[] for _ in texts]
    starts = {index: _skip_spaces(text, 0) for index, text in enumerate(texts)}
    while starts:
        pieces = {index: _cut_piece(texts[index], start) for index, start in starts.items()}
        distinct = sorted(set(pieces.values()))
        tagged = dict(zip(distinct, _tag_pieces(labels, distinct, predict), strict=True))
        for index, start in starts.items():
            of_piece, end = tagged[pieces[index]]
            entities[index] += [
                entity | {"start": entity["start"] + start, "end": entity["end"] + start} for entity in of_piece
            ]
            starts[index] = _skip_spaces(texts[index], start + end)
        starts = {index: start for index, start in starts.items() if start < len(texts[index])}
    return entities


def _tag_pieces(labels: Sequence[str], pieces: Sequence[str], predict: Predict) -> list[tuple[list[Entity], int]]:
    """Return the entities of every piece, and the character at which to continue."""
    words = [split_words(piece) for piece in pieces]
    offsets = offsets_from_lengths(np.array([len(spans) for spans in words]))
    characters = np.array([span for spans in words for span in spans], np.int64).reshape(-1, 2)
    all_words = Spans(characters, np.zeros(len(characters), np.int64), offsets)
    rows = Rows(np.arange(len(pieces))[:, None], np.zeros(len(pieces), np.int64), all_words)
    logits = predict(pieces, rows)
    tags, was_read = decode_tags(logits, offsets, labels), logits[:, 1:].max(1) > UNREAD_LOGIT
    tag_probabilities = softmax(logits)[np.arange(len(tags)), tags]
    results = []
    for piece, spans, low, high in zip(pieces, words, offsets, offsets[1:], strict=False):
        next_word = _next_word(piece, spans, was_read[low:high])
        entities: list[Entity] = []
        for label, first, last in entities_of([labels[tag] for tag in tags[low : low + next_word]]):
            start, end = spans[first][0], spans[last][1]
            probability = float(np.prod(tag_probabilities[low + first : low + last + 1], dtype=np.float64))
            entities.append(
                {"text": piece[start:end], "start": start, "end": end, "label": label, "probability": probability}
            )
        results.append((entities, spans[next_word][0] if next_word < len(spans) else len(piece)))
    return results


def _cut_piece(text: str, start: int) -> str:
    """Return at most :data:`MAX_CHARACTERS` of a text from ``start`` on, cut between words."""
    piece = text[start : start + MAX_CHARACTERS]
    if start + MAX_CHARACTERS >= len(text):
        return piece
    before_last_word = piece[: unbreakable_spans(piece)[-1][0]]  # the last word may continue after the cut
    return before_last_word if before_last_word.strip() else piece


def _skip_spaces(text: str, start: int) -> int:
    """Return the index of the first character from ``start`` on that is not white space, or the length of the text."""
    match = NON_SPACE.search(text, start)
    return match.start() if match else len(text)


def _next_word(text: str, words: Sequence[CharacterSpan], was_read: NDArray[np.bool_]) -> int:
    """Return the index of the first word to read in the next piece; the number of words if the text was read."""
    read_count = int(np.flatnonzero(was_read)[-1]) + 1 if was_read.any() else 0
    if not read_count or not any(character.isalnum() for character in text[words[read_count - 1][1] :]):
        return len(words)
    second_half = range(read_count // 2, read_count)
    sentence_starts = [index + 1 for index in second_half if text[slice(*words[index])] in STOP_WORDS]
    return sentence_starts[-1] if sentence_starts else read_count
