"""Named entities of raw text: split it into words, tag them, and return runs of tags as spans of the original text.

A text that is longer than the backbone reads at once is continued after the last sentence that was read completely, so
no entity is lost or reported twice.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from permafrost.data.corpora.corpus import Rows, Spans
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.script import SENTENCE_ENDS, unbreakable_spans
from permafrost.probes.inputs.alignment import first_tokens
from permafrost.probes.inputs.token_inputs import require_tokens
from permafrost.probes.metrics.entities import decode_tags
from permafrost.probes.models.probe import Probe
from permafrost.probes.tasks.base import InputReader, Item, Prediction
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.sentences import probabilities
from permafrost.probes.tasks.tagging import TagObjective
from permafrost.probes.tasks.words import CharacterSpan, split_words

Entity = dict[str, Any]
"""Keys ``text``, ``start``, ``end``, ``label`` and ``probability``."""

STOP_WORDS = (".", "!", "?", *SENTENCE_ENDS)

MAX_CHARACTERS = 1 << 13
"""Maximum characters of a text that are tagged at once; more than most backbones read."""

NON_SPACE = re.compile(r"\S")


def find_entities(probe: Probe, labels: Sequence[str], texts: Sequence[str], read: InputReader) -> list[list[Entity]]:
    """Return the entities of every text, in order.

    Args:
        labels: names of the tags.
        read: function from distinct texts to the states of their tokens.

    Returns:
        For each entity its ``text``, ``start`` and ``end`` in the original text, ``label`` without ``B-`` or ``I-``,
        and ``probability``, the product of the probabilities of its words' tags.
    """
    entities: list[list[Entity]] = [[] for _ in texts]
    starts = {index: _skip_spaces(text, 0) for index, text in enumerate(texts)}
    while starts:
        pieces = {index: _cut_piece(texts[index], start) for index, start in starts.items()}
        distinct = sorted(set(pieces.values()))
        tagged = dict(zip(distinct, _tag_pieces(probe, labels, distinct, read), strict=True))
        for index, start in starts.items():
            of_piece, end = tagged[pieces[index]]
            entities[index] += [_shifted(entity, start) for entity in of_piece]
            starts[index] = _skip_spaces(texts[index], start + end)
        starts = {index: start for index, start in starts.items() if start < len(texts[index])}
    return entities


def _shifted(entity: Entity, start: int) -> Entity:
    return entity | {"start": entity["start"] + start, "end": entity["end"] + start}


def _tag_pieces(
    probe: Probe, labels: Sequence[str], pieces: Sequence[str], read: InputReader
) -> list[tuple[list[Entity], int]]:
    """Return the entities of every piece, and the character at which to continue."""
    words = [split_words(piece) for piece in pieces]
    offsets = offsets_from_lengths(np.array([len(spans) for spans in words]))
    characters = np.array([span for spans in words for span in spans], np.int64).reshape(-1, 2)
    all_words = Spans(characters, np.zeros(len(characters), np.int64), offsets)
    rows = Rows(np.arange(len(pieces))[:, None], np.zeros(len(pieces), np.int64), all_words)
    inputs = require_tokens(read(pieces))
    logits = TagObjective(inputs, rows).predict_mean(probe)
    tags, was_read = decode_tags(logits, offsets, labels), first_tokens(inputs.tokens, rows) >= 0
    tag_probabilities = probabilities(logits)[np.arange(len(tags)), tags]
    results = []
    for piece, spans, low, high in zip(pieces, words, offsets, offsets[1:], strict=False):
        next_word = _next_word(piece, spans, was_read[low:high])
        complete = slice(low, low + next_word)
        entities = _entities(piece, spans, [labels[tag] for tag in tags[complete]], tag_probabilities[complete])
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


def _entities(
    text: str, words: Sequence[CharacterSpan], tags: Sequence[str], tag_probabilities: NDArray[np.float32]
) -> list[Entity]:
    entities: list[Entity] = []
    for label, first, last in get_entities(list(tags)):
        start, end = words[first][0], words[last][1]
        probability = float(np.prod(tag_probabilities[first : last + 1], dtype=np.float64))
        entities.append(
            {"text": text[start:end], "start": start, "end": end, "label": label, "probability": probability}
        )
    return entities


def predict_entities(run: LoadedRun, items: Sequence[Item], read: InputReader) -> list[Prediction]:
    """Return the entities of each text."""
    texts = [text for (text,) in items]
    return [{"entities": entities} for entities in find_entities(run.probe, run.labels, texts, read)]
