"""Kinds of targets: what each checks in a record, its label names, its arrays, and its check of the training rows.

A kind of task adds its own to :data:`TARGETS`, see :func:`permafrost.probes.tasks.registry.register`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.iob2 import OUTSIDE, check_tag, check_transitions, split_tag
from permafrost.data.corpora.label_sets import parse_labels, sorted_labels
from permafrost.data.corpora.records import CorpusError, Kind, Record, check_text
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.spec import nearest

Splits = Mapping[str, Sequence[Record]]
"""Split -> its records."""


@dataclass(frozen=True)
class Targets:
    """The kind of the targets of a corpus, and their legal values."""

    kind: Kind = "none"

    score_range: tuple[float, float] = (0.0, 1.0)
    labels: tuple[str, ...] = ()
    """Names of classes, labels or tags; empty takes those of the rows."""

    label_separator: str = ","
    """Separator of the labels of a row."""


class TargetEncoding(ABC):
    """Encoding of one kind of target as arrays."""

    reads: ClassVar[Literal["columns", "words", "questions"]] = "columns"
    """What the rows of a file hold: columns of texts, then the target; words with tags; or questions with answers."""

    has_target: ClassVar[bool] = True
    """Whether rows have a target; if not, they are not split at random."""

    is_scaled: ClassVar[bool] = False
    """Whether targets are scores, scaled from their range to [0, 1]."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def check_record(self, record: Record) -> None:  # noqa: B027
        """Raise a :class:`CorpusError` if the target of a record is no name of a label or tag."""

    def label_names(self, name: str, records: Splits) -> tuple[str, ...]:
        """Return the names of classes, labels or tags of all records of the corpus ``name``; empty for other kinds."""
        return ()

    @abstractmethod
    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return the rows of a split.

        Args:
            texts: ``[row, side]``, indices of texts.
            records: ``[row]``.
            labels: names from :meth:`label_names`.

        Raises:
            CorpusError: a target is not legal; the message begins with the origin of its record.
        """

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Check that the training rows can be learnt from.

        Returns:
            notes for the user: labels that never occur, texts in several rows with different labels.

        Raises:
            CorpusError: a class, or the ``B-`` tag of a type of entity, does not occur, or no row has a label.
        """
        return ()


class NoTargets(TargetEncoding):
    """Texts without a target."""

    has_target = False

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows whose targets are zeros."""
        return Rows(texts, np.zeros(len(texts), np.int64))


class Scores(TargetEncoding):
    """A number per row, scaled from its range to [0, 1]."""

    is_scaled = True

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row]`` scores."""
        low, high = self.targets.score_range
        scores = np.empty(len(records))
        for row, record in enumerate(records):
            target = str(record.target)
            try:
                score = scores[row] = float(target)
            except ValueError:
                raise CorpusError(f"{record.origin}: the score must be a number, got {target!r}.") from None
            if not math.isfinite(score) or not low <= score <= high:
                reason = f"the score {target} is outside {low:g} to {high:g}"
                raise CorpusError(f"{record.origin}: {reason}; correct it or set corpus.score_range.")
        return Rows(texts, (scores - low) / (high - low))


class NamedTargets(TargetEncoding):
    """Targets with names, which ``corpus.labels`` gives or the rows hold."""

    def label_names(self, name: str, records: Splits) -> tuple[str, ...]:
        """Return the given names, else those that occur."""
        if self.targets.labels:
            return self.targets.labels
        if not records.get("train"):
            raise CorpusError(f"{name}: it has no training rows to take its classes from; set corpus.labels.")
        return self._occurring_names(name, records)

    @abstractmethod
    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]: ...

    def _code(self, origin: str, label: str, codes: Mapping[str, int], noun: str = "label") -> int:
        """Return the index of a label, written as its name or, if the user gives the names, as its number."""
        if label in codes:
            return codes[label]
        if self.targets.labels and label.isascii() and label.isdigit() and int(label) < len(codes):
            return int(label)
        reason = "" if self.targets.labels else ": it never occurs in training"
        raise CorpusError(f"{origin}: unknown {noun} {label!r}{reason}. {nearest(label, codes)}")


class Classes(NamedTargets):
    """One class per row."""

    def check_record(self, record: Record) -> None:
        """Raise a :class:`CorpusError` if the label is empty or cannot be encoded."""
        if not self.targets.labels:
            check_text(record.origin, "the label", str(record.target))

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        return tuple(sorted({str(record.target) for record in records["train"]}))

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row]`` indices of classes."""
        codes = _codes_of(labels)
        return Rows(texts, np.array([self._code(record.origin, str(record.target), codes) for record in records]))

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if a class does not occur."""
        _refuse_missing(corpus, corpus.labels, train.targets.astype(np.int64), "class")
        return ()


class LabelSets(NamedTargets):
    """Any number of labels per row, none included."""

    def check_record(self, record: Record) -> None:
        """Raise a :class:`CorpusError` if the cell is a list of other than texts and whole numbers."""
        for label in self._parse(record):
            if not self.targets.labels:
                check_text(record.origin, "the label", label)

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        return sorted_labels({label for split in records.values() for record in split for label in self._parse(record)})

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row, label]`` targets, 1 if the row has the label and 0 if not."""
        codes, targets = _codes_of(labels), np.zeros((len(records), len(labels)))
        for row, record in enumerate(records):
            targets[row, [self._code(record.origin, label, codes) for label in self._parse(record)]] = 1
        return Rows(texts, targets)

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if no row has a label; note labels without rows, and texts labelled twice."""
        if not train.targets.any():
            raise CorpusError(
                f"{corpus.name}: none of its {len(train):,} training rows has a label; "
                "check corpus.columns and corpus.label_separator."
            )
        notes, targets_of = list[str](), dict[tuple[int, ...], set[bytes]]()
        missing = [corpus.labels[code] for code in np.flatnonzero(~train.targets.any(axis=0))]
        if missing:
            notes.append(
                f"no training row has {', '.join(map(repr, missing))}: such a label cannot be learnt, is never "
                "predicted, and counts as missed where it occurs"
            )
        for rows in corpus.splits.values():
            for texts, targets in zip(rows.texts.tolist(), rows.targets, strict=True):
                targets_of.setdefault(tuple(texts), set()).add(targets.tobytes())
        if count := sum(len(targets) > 1 for targets in targets_of.values()):
            notes.append(f"texts that occur in several rows with different labels: {count:,}; all their rows are kept")
        return tuple(notes)

    def _parse(self, record: Record) -> tuple[str, ...]:
        return parse_labels(record.origin, record.target or "", self.targets.label_separator)


class Tags(NamedTargets):
    """An IOB2 tag per word."""

    reads = "words"

    def check_record(self, record: Record) -> None:
        """Raise a :class:`CorpusError` if a tag is not IOB2."""
        for span in record.spans if not self.targets.labels else ():
            check_tag(span.origin, span.tag)

    def label_names(self, name: str, records: Splits) -> tuple[str, ...]:
        """Return the given tags, which must be IOB2, else ``O`` and those of each type that occurs in training."""
        labels = self.targets.labels
        wrong = [label for label in labels if not split_tag(label)[0]]
        if wrong or labels[:1] not in ((), (OUTSIDE,)):
            label = repr(wrong[0]) if wrong else f"{labels[0]!r} first"
            raise CorpusError(
                f"corpus.labels: of tags they are 'O', then B-TYPE and I-TYPE of each type; found {label}."
            )
        return super().label_names(name, records)

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        types = sorted({split_tag(span.tag)[1] for record in records["train"] for span in record.spans} - {""})
        if not types:
            raise CorpusError(f"{name}: its training rows hold no entity: every tag is '{OUTSIDE}'.")
        return (OUTSIDE, *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with a span per word."""
        codes, tags = _codes_of(labels), list[int]()
        for record in records:
            own = [self._code(span.origin, span.tag, codes, "tag") for span in record.spans]
            check_transitions([labels[code] for code in own], [span.origin for span in record.spans])
            tags += own
        return _rows_of_spans(texts, records, tags)

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if ``O`` or a ``B-`` tag does not occur."""
        if train.spans:
            needed = [label for label in corpus.labels if split_tag(label)[0] != "I"]
            _refuse_missing(corpus, needed, train.spans.codes, "tag")
        return ()


class Answers(TargetEncoding):
    """The spans of the answers to a question; none if it has no answer."""

    reads = "questions"

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with a span per answer."""
        return _rows_of_spans(texts, records, [0] * sum(len(record.spans) for record in records))


TARGETS: dict[str, type[TargetEncoding]] = {
    "score": Scores, "class": Classes, "labels": LabelSets, "none": NoTargets, "tags": Tags, "answers": Answers,
}  # fmt: skip
"""Kind of target -> its encoding; the keys are the values of ``corpus.target``."""


def _codes_of(labels: Sequence[str]) -> dict[str, int]:
    return {label: code for code, label in enumerate(labels)}


def _rows_of_spans(texts: NDArray[np.int64], records: Sequence[Record], codes: Sequence[int]) -> Rows:
    characters = [(span.start, span.end) for record in records for span in record.spans]
    spans = Spans(
        np.array(characters, np.int64).reshape(-1, 2),
        np.array(codes, np.int64),
        offsets_from_lengths(np.array([len(record.spans) for record in records], np.int64)),
    )
    return Rows(texts, np.zeros(len(texts), np.int64), spans)


def _refuse_missing(corpus: Corpus, needed: Sequence[str], codes: NDArray[np.int64], noun: str) -> None:
    """Raise a :class:`CorpusError` if a label does not occur in training; the message names the first one."""
    seen = {corpus.labels[int(code)] for code in np.unique(codes)}
    missing = [label for label in needed if label not in seen]
    if missing:
        raise CorpusError(
            f"{corpus.name}: the {noun} '{missing[0]}' never occurs in its {len(corpus.splits['train']):,} training "
            "rows; give it rows, raise corpus.limit, or leave it out of corpus.labels."
        )
