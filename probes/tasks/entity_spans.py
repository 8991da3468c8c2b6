"""Entities of raw text: its words are tagged, and runs of tags become stretches of the text as it was given."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from permafrost.data.corpora.corpus import Rows, Spans
from permafrost.data.ragged import bounds
from permafrost.data.script import STOPS, parts
from permafrost.data.text import Text
from permafrost.probes.inputs.alignment import first_tokens
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.entities import valid_tags
from permafrost.probes.models.probe import Probe
from permafrost.probes.tasks.base import Answer, Item, Read
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.sentences import probabilities
from permafrost.probes.tasks.tagging import TagObjective
from permafrost.probes.tasks.words import Place, words_of

Entity = dict[str, Any]

SENTENCE_ENDS = (".", "!", "?", *STOPS)

PIECE = 1 << 13
"""Characters: more than most backbones read at once."""

NO_BLANK = re.compile(r"\S")


def entities_of(
    probe: Probe, labels: Sequence[str], texts: Sequence[str], read: Callable[[Sequence[Text]], ProbeInputs]
) -> list[list[Entity]]:
    """The entities of every text, in order.

    A text that was cut is read on from the last sentence that was read whole, until its end.

    Args:
        labels: names of the tags.
        read: distinct texts -> the states of their tokens.

    Returns:
        ``text``, ``start`` and ``end`` in the text as it was given, ``label`` without ``B-`` or ``I-``, and
        ``probability``: the product of those of its words' tags.
    """
    found: list[list[Entity]] = [[] for _ in texts]
    going = {place: _after_blanks(text, 0) for place, text in enumerate(texts)}
    while going:
        pieces = {place: _piece(texts[place], start) for place, start in going.items()}
        distinct = sorted(set(pieces.values()))
        said = dict(zip(distinct, _tagged(probe, labels, distinct, read), strict=True))
        for place, start in going.items():
            entities, end = said[pieces[place]]
            found[place] += [one | {"start": one["start"] + start, "end": one["end"] + start} for one in entities]
            going[place] = _after_blanks(texts[place], start + end)
        going = {place: start for place, start in going.items() if start < len(texts[place])}
    return found


def _tagged(
    probe: Probe, labels: Sequence[str], texts: Sequence[str], read: Callable[[Sequence[Text]], ProbeInputs]
) -> list[tuple[list[Entity], int]]:
    """The entities of every text as far as it was read, and from which character to read on."""
    words = [words_of(text) for text in texts]
    offsets = bounds(np.array([len(some) for some in words]))
    spans = np.array([place for some in words for place in some], np.int64).reshape(-1, 2)
    marks = Spans(spans, np.zeros(len(spans), np.int64), offsets)
    rows = Rows(np.arange(len(texts))[:, None], np.zeros(len(texts), np.int64), marks)
    inputs = read(texts)
    logits = TagObjective(inputs, rows).predict_mean(probe)
    tags, there = valid_tags(logits, offsets, labels), first_tokens(inputs, rows) >= 0
    shares = probabilities(logits)[np.arange(len(tags)), tags]
    found = []
    for text, some, low, high in zip(texts, words, offsets, offsets[1:], strict=False):
        read_on = _read_on(text, some, there[low:high])
        whole = slice(low, low + read_on)
        entities = _entities(text, some, [labels[tag] for tag in tags[whole]], shares[whole])
        found.append((entities, some[read_on][0] if read_on < len(some) else len(text)))
    return found


def _piece(text: str, start: int) -> str:
    """A text from a character on, no more of it than is worth looking at at once, and cut between words."""
    piece = text[start : start + PIECE]
    if start + PIECE >= len(text):
        return piece
    before = piece[: parts(piece)[-1][0]]  # its last word may go on
    return before if before.strip() else piece


def _after_blanks(text: str, start: int) -> int:
    """The first character from ``start`` on that is no white space; the end where there is none."""
    found = NO_BLANK.search(text, start)
    return found.start() if found else len(text)


def _read_on(text: str, words: Sequence[Place], there: NDArray[np.bool_]) -> int:
    """The first word that is to be read again or anew; the number of words where all that has letters was read."""
    seen = int(np.flatnonzero(there)[-1]) + 1 if there.any() else 0
    if not seen or not any(character.isalnum() for character in text[words[seen - 1][1] :]):
        return len(words)
    ends = [place + 1 for place in range(seen // 2, seen) if text[slice(*words[place])] in SENTENCE_ENDS]
    return ends[-1] if ends else seen


def _entities(text: str, words: Sequence[Place], tags: Sequence[str], shares: NDArray[np.float32]) -> list[Entity]:
    found = []
    for label, first, last in get_entities(list(tags)):
        start, end = words[first][0], words[last][1]
        likely = float(np.prod(shares[first : last + 1], dtype=np.float64))
        found.append({"text": text[start:end], "start": start, "end": end, "label": label, "probability": likely})
    return found


def answer_entities(run: LoadedRun, items: Sequence[Item], read: Read) -> list[Answer]:
    """The entities of each text."""
    return [{"entities": found} for found in entities_of(run.probe, run.labels, [text for (text,) in items], read)]
