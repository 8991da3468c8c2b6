"""Building a corpus from records: distinct texts, numeric targets, spans of tags and answers.

Every text, score and label is checked here and nowhere else; an error message begins with the origin of the record.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.iob2 import OUTSIDE, check_labels, check_tag, check_transitions, label_set, split_tag
from permafrost.data.corpora.records import SPLITS, CorpusError, Kind, Record
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.spec import nearest
from permafrost.data.text import Segments, Text, text_problem


@dataclass(frozen=True)
class Targets:
    """The kind of the targets of a corpus, and their legal values."""

    kind: Kind = "none"

    score_range: tuple[float, float] = (0.0, 1.0)
    labels: tuple[str, ...] = ()
    """Names of classes or tags; empty takes those of the training rows."""


def build_corpus(name: str, records: Iterable[Record], targets: Targets) -> Corpus:
    """Check records and build a corpus of them.

    Raises:
        CorpusError: a text or label is empty; a score is not a number or out of range; a label is unknown; a tag is
            not IOB2 or cannot follow the one before it; or there are no rows.
    """
    text_indices: dict[Text, int] = {}
    row_texts: dict[str, list[list[int]]] = {}
    row_records: dict[str, list[Record]] = {}
    for record in records:
        _check_texts(record)
        _check_names(record, targets)
        indices = [text_indices.setdefault(text, len(text_indices)) for text in record.texts]
        row_texts.setdefault(record.split, []).append(indices)
        row_records.setdefault(record.split, []).append(record)
    if not row_records:
        raise CorpusError(f"{name}: it holds no rows.")
    labels = _labels(name, row_records.get("train", []), targets)
    splits = {
        split: _rows(np.array(row_texts[split], np.int64), row_records[split], targets, labels)
        for split in sorted(row_records, key=_split_order)
    }
    score_range = targets.score_range if targets.kind == "score" else None
    return Corpus(
        name=name,
        texts=tuple(text_indices),
        splits=splits,
        labels=labels,
        score_range=score_range,
        kind=targets.kind,
    )


def check_classes(corpus: Corpus) -> None:
    """Check that every class, or every type of entity, occurs in the training rows.

    Raises:
        CorpusError: a class or a ``B-`` tag does not occur; the message names the first one.
    """
    train = corpus.splits.get("train")
    if train is None or corpus.kind not in ("class", "tags"):
        return
    codes = train.targets if train.spans is None else train.spans.codes
    seen = {corpus.labels[int(code)] for code in np.unique(codes)}
    missing = [label for label in corpus.labels if label not in seen and split_tag(label)[0] != "I"]
    if corpus.kind == "class":
        missing = [label for label in corpus.labels if label not in seen]
    if missing:
        noun = "class" if corpus.kind == "class" else "tag"
        raise CorpusError(
            f"{corpus.name}: the {noun} '{missing[0]}' never occurs in its {len(train):,} training rows; "
            "give it rows, raise corpus.limit, or leave it out of corpus.labels."
        )


def _labels(name: str, train: Sequence[Record], targets: Targets) -> tuple[str, ...]:
    """Return the names of classes or tags: those given, else those of the training rows."""
    if targets.kind not in ("class", "tags"):
        return ()
    if targets.labels:
        if targets.kind == "tags":
            check_labels(targets.labels)
        return targets.labels
    if not train:
        raise CorpusError(f"{name}: it has no training rows to take its classes from; set corpus.labels.")
    if targets.kind == "class":
        return tuple(sorted({str(record.target) for record in train}))
    labels = label_set(span.tag for record in train for span in record.spans)
    if labels == (OUTSIDE,):
        raise CorpusError(f"{name}: its training rows hold no entity: every tag is '{OUTSIDE}'.")
    return labels


def _rows(texts: NDArray[np.int64], records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Rows:
    if targets.kind not in ("tags", "answers"):
        return Rows(texts, np.array(list(_numeric_targets(records, targets, labels))))
    characters = [(span.start, span.end) for record in records for span in record.spans]
    codes = list(_tag_codes(records, targets, labels)) if targets.kind == "tags" else [0] * len(characters)
    spans = Spans(
        np.array(characters, np.int64).reshape(-1, 2),
        np.array(codes, np.int64),
        offsets_from_lengths(np.array([len(record.spans) for record in records], np.int64)),
    )
    return Rows(texts, np.zeros(len(texts), np.int64), spans)


def _check_texts(record: Record) -> None:
    if not 1 <= len(record.texts) <= 2:
        raise CorpusError(
            f"{record.origin}: expected one text or two, corpus.columns and corpus.target make it {len(record.texts)}."
        )
    for number, text in enumerate(record.texts, 1):
        if isinstance(text, Segments):
            _check_text(record.origin, "the question", text.first)
            _check_text(record.origin, "the context", text.second)
        else:
            _check_text(record.origin, f"text {number}" if len(record.texts) > 1 else "the text", text)


def _check_text(origin: str, noun: str, text: str) -> None:
    if problem := text_problem(text):
        raise CorpusError(f"{origin}: {noun} {problem}.")


def _check_names(record: Record, targets: Targets) -> None:
    """Check the label or the tags of a record, if the names of labels are taken from the rows."""
    if targets.kind == "class" and not targets.labels:
        _check_text(record.origin, "the label", str(record.target))
    if targets.kind == "tags" and not targets.labels:
        for span in record.spans:
            check_tag(span.origin, span.tag)


def _numeric_targets(records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Iterator[float | int]:
    codes = {label: code for code, label in enumerate(labels)}
    low, high = targets.score_range
    for record in records:
        if targets.kind == "none":
            yield 0
        elif targets.kind == "class":
            yield _label_code(record.origin, str(record.target), codes, bool(targets.labels))
        else:
            yield (_score(record.origin, str(record.target), low, high) - low) / (high - low)


def _tag_codes(records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Iterator[int]:
    codes = {label: code for code, label in enumerate(labels)}
    for record in records:
        tags = [_label_code(span.origin, span.tag, codes, bool(targets.labels), "tag") for span in record.spans]
        check_transitions([labels[code] for code in tags], [span.origin for span in record.spans])
        yield from tags


def _score(origin: str, target: str, low: float, high: float) -> float:
    try:
        score = float(target)
    except ValueError:
        raise CorpusError(f"{origin}: the score must be a number, got {target!r}.") from None
    if not math.isfinite(score) or not low <= score <= high:
        raise CorpusError(
            f"{origin}: the score {target} is outside {low:g} to {high:g}; correct it or set corpus.score_range."
        )
    return score


def _label_code(origin: str, target: str, codes: Mapping[str, int], given: bool, noun: str = "label") -> int:
    """Return the index of a label, written as its name or, if the names are ``given`` by the user, as its number."""
    if target in codes:
        return codes[target]
    if given and target.isascii() and target.isdigit() and int(target) < len(codes):
        return int(target)
    reason = "" if given else ": it never occurs in training"
    raise CorpusError(f"{origin}: unknown {noun} {target!r}{reason}. {nearest(target, codes)}")


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
