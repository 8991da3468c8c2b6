"""From records to a corpus: texts become distinct, targets become numbers, tags and answers become marks.

The one place where text, score and label are checked; every fault begins with the place of its record.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.iob2 import OUTSIDE, check_labels, check_tag, check_transitions, label_set, parts
from permafrost.data.corpora.records import SPLITS, CorpusError, Kind, Record
from permafrost.data.ragged import bounds
from permafrost.data.spec import nearest
from permafrost.data.text import Segments, Text, fault


@dataclass(frozen=True)
class Targets:
    """What a target must look like."""

    kind: Kind = "none"

    score_range: tuple[float, float] = (0.0, 1.0)
    labels: tuple[str, ...] = ()
    """Known names of classes or tags; empty takes those of the training rows."""


def build_corpus(name: str, records: Iterable[Record], targets: Targets) -> Corpus:
    """Check records and lay them out.

    Raises:
        CorpusError: an empty text or label, a score that is no number or outside its range, an unknown label, a tag
            that is none or cannot follow the one before it, no rows.
    """
    index: dict[Text, int] = {}
    sides: dict[str, list[list[int]]] = {}
    kept: dict[str, list[Record]] = {}
    for record in records:
        _check_texts(record)
        _check_names(record, targets)
        sides.setdefault(record.split, []).append([index.setdefault(text, len(index)) for text in record.texts])
        kept.setdefault(record.split, []).append(record)
    if not kept:
        raise CorpusError(f"{name}: it holds no rows.")
    labels = _labels(name, kept.get("train", []), targets)
    splits = {
        split: _rows(np.array(sides[split], np.int64), kept[split], targets, labels)
        for split in sorted(kept, key=_split_order)
    }
    score_range = targets.score_range if targets.kind == "score" else None
    return Corpus(name, tuple(index), splits, labels, score_range, targets.kind)


def check_classes(corpus: Corpus) -> None:
    """Every class, and of tags every type of entity, must occur in training; else it could not be learnt.

    Raises:
        CorpusError: it names the classes that do not occur.
    """
    train = corpus.splits.get("train")
    if train is None or corpus.kind not in ("class", "tags"):
        return
    codes = train.targets if train.spans is None else train.spans.codes
    seen = {corpus.labels[int(code)] for code in np.unique(codes)}
    missing = [label for label in corpus.labels if label not in seen and parts(label)[0] != "I"]
    if corpus.kind == "class":
        missing = [label for label in corpus.labels if label not in seen]
    if missing:
        what = "class" if corpus.kind == "class" else "tag"
        raise CorpusError(
            f"{corpus.name}: the {what} '{missing[0]}' never occurs in its {len(train):,} training rows; "
            "give it rows, raise corpus.limit, or leave it out of corpus.labels."
        )


def _labels(name: str, train: Sequence[Record], targets: Targets) -> tuple[str, ...]:
    """The names of classes or tags: those given, else those of the training rows."""
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
    labels = label_set(mark.tag for record in train for mark in record.spans)
    if labels == (OUTSIDE,):
        raise CorpusError(f"{name}: its training rows hold no entity: every tag is '{OUTSIDE}'.")
    return labels


def _rows(sides: NDArray[np.int64], records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Rows:
    if targets.kind not in ("tags", "answers"):
        return Rows(sides, np.array(list(_numbers(records, targets, labels))))
    spans = [(mark.start, mark.end) for record in records for mark in record.spans]
    codes = list(_tag_codes(records, targets, labels)) if targets.kind == "tags" else [0] * len(spans)
    marks = Spans(
        np.array(spans, np.int64).reshape(-1, 2),
        np.array(codes, np.int64),
        bounds(np.array([len(record.spans) for record in records], np.int64)),
    )
    return Rows(sides, np.zeros(len(sides), np.int64), marks)


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


def _check_text(place: str, which: str, text: str) -> None:
    if wrong := fault(text):
        raise CorpusError(f"{place}: {which} {wrong}.")


def _check_names(record: Record, targets: Targets) -> None:
    """What names a class or a tag must be able to, where the names are those that occur."""
    if targets.kind == "class" and not targets.labels:
        _check_text(record.origin, "the label", str(record.target))
    if targets.kind == "tags" and not targets.labels:
        for mark in record.spans:
            check_tag(mark.origin, mark.tag)


def _numbers(records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Iterator[float | int]:
    codes = {label: code for code, label in enumerate(labels)}
    low, high = targets.score_range
    for record in records:
        if targets.kind == "none":
            yield 0
        elif targets.kind == "class":
            yield _class(record.origin, str(record.target), codes, bool(targets.labels))
        else:
            yield (_score(record.origin, str(record.target), low, high) - low) / (high - low)


def _tag_codes(records: list[Record], targets: Targets, labels: tuple[str, ...]) -> Iterator[int]:
    codes = {label: code for code, label in enumerate(labels)}
    for record in records:
        own = [_class(mark.origin, mark.tag, codes, bool(targets.labels), "tag") for mark in record.spans]
        check_transitions([labels[code] for code in own], [mark.origin for mark in record.spans])
        yield from own


def _score(place: str, target: str, low: float, high: float) -> float:
    try:
        score = float(target)
    except ValueError:
        raise CorpusError(f"{place}: the score must be a number, got {target!r}.") from None
    if not math.isfinite(score) or not low <= score <= high:
        raise CorpusError(
            f"{place}: the score {target} is outside {low:g} to {high:g}; correct it or set corpus.score_range."
        )
    return score


def _class(place: str, target: str, codes: Mapping[str, int], given: bool, what: str = "label") -> int:
    """A label by name, or by number where the names are given."""
    if target in codes:
        return codes[target]
    if given and target.isascii() and target.isdigit() and int(target) < len(codes):
        return int(target)
    why = "" if given else ": it never occurs in training"
    raise CorpusError(f"{place}: unknown {what} {target!r}{why}. {nearest(target, codes)}")


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
