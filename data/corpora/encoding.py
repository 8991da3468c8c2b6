"""Interface of the encoding of targets: what is checked in a record, names of labels, arrays, training rows.

The kinds are in :mod:`permafrost.data.corpora.targets` and :mod:`permafrost.data.corpora.ranking`.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError, Kind, Record, RowError
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

    tag_scheme: str = "auto"
    strict: bool = False
    """Refuse entities that are not written as in the scheme of the tags."""

    first_number: int = 0
    """Number of the first of ``labels``, which rows may have instead of their names."""


class TargetEncoding(ABC):
    """Encoding of one kind of target as arrays."""

    reads: ClassVar[Literal["columns", "words", "questions"]] = "columns"
    """What the rows of a file hold: columns of texts, then the target; words with tags; or questions with answers."""

    has_target: ClassVar[bool] = True
    """Whether rows have a target; if not, they are not split at random."""

    is_scaled: ClassVar[bool] = False
    """Whether targets are scores, scaled from their range to [0, 1]."""

    group_texts: ClassVar[int | None] = None
    """Number of first texts that rows of one group have in common, which are held out together; None for all texts."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    @classmethod
    def records_of(cls, record: Record) -> Iterator[Record]:
        """Yield the records of a row of columns, whose last one was read as the target."""
        yield record

    @classmethod
    def convert(cls, targets: Targets, records: Iterable[Record]) -> tuple[Targets, Iterable[Record], tuple[str, ...]]:
        """Return targets and all records of a corpus as they are encoded, and notes on how they were read."""
        return targets, records, ()

    def check_record(self, record: Record) -> None:  # noqa: B027
        """Raise a :class:`RowError` if a record has no target that can be read."""

    def remedies(self) -> dict[str, str]:
        """Return reason -> what to set if many of the records checked so far cannot be used for it."""
        return {}

    def names(self, record: Record) -> Iterable[str]:
        """Return the names of classes, labels or types of tags that a record has; none for other kinds."""
        return ()

    def check_labels(self, record: Record, labels: Collection[str], learnt: Container[str]) -> None:  # noqa: B027
        """Raise a :class:`RowError` if a record has a label that is unknown, or that it cannot have outside training.

        Args:
            labels: names from :meth:`label_names`.
            learnt: names of all training records.
        """

    def label_names(self, name: str, records: Splits) -> tuple[str, ...]:
        """Return the names of classes, labels or tags of all records of the corpus ``name``; empty for other kinds."""
        return ()

    @abstractmethod
    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return the rows of a split.

        Args:
            texts: ``[row, side]``, indices of texts.
            records: ``[row]``, checked.
            labels: names from :meth:`label_names`.
        """

    @classmethod
    def complete(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with what rows get once its splits are final, and notes of it for the user."""
        return corpus

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Check that the training rows can be learnt from.

        Returns:
            notes for the user: labels that never occur in some split, texts in several rows with different labels.

        Raises:
            CorpusError: the ``B-`` tag of a type of entity does not occur, or no row has a label.
        """
        return ()


NEVER_LEARNT = "label that never occurs in training"


class NamedTargets(TargetEncoding):
    """Targets with names, which ``corpus.labels`` gives or the rows hold."""

    noun: ClassVar[str] = "label"

    def __init__(self, targets: Targets) -> None:
        super().__init__(targets)
        self._given = frozenset(targets.labels)

    def label_names(self, name: str, records: Splits) -> tuple[str, ...]:
        """Return the given names, else those that occur."""
        if self.targets.labels:
            return self.targets.labels
        if not records.get("train"):
            raise CorpusError(
                f"{name}: it has no training rows to take its classes from; set corpus.labels to their names."
            )
        return self._occurring_names(name, records)

    @abstractmethod
    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]: ...

    @abstractmethod
    def _labels(self, record: Record) -> Iterable[tuple[str, str]]:
        """Return the labels of a record as its file has them, each with its origin."""

    def written(self, record: Record) -> Iterable[str]:
        """Return the labels of a record as its file has them."""
        return [label for label, _ in self._labels(record)]

    def names(self, record: Record) -> Iterable[str]:
        """Return the names of the labels of a record."""
        return {self._name(label) for label, _ in self._labels(record)}

    def check_labels(self, record: Record, labels: Collection[str], learnt: Container[str]) -> None:
        """Raise a :class:`RowError` if a record has a label that is none of the names."""
        for label, origin in self._labels(record):
            if self._name(label) not in labels:
                if self.targets.labels:
                    problem = f"unknown {self.noun} {label!r}. {nearest(label, labels)}".removesuffix(".")
                    raise RowError(origin, f"unknown {self.noun}", problem)
                raise RowError(origin, NEVER_LEARNT, f"the {self.noun} {label!r} never occurs in training")

    def remedies(self) -> dict[str, str]:
        """Return what to do about labels that training rows lack."""
        return {NEVER_LEARNT: "give them training rows, or name them in corpus.ignore"}

    def _name(self, label: str) -> str:
        """Return the name of a label, which may be written as its number if the user gives the names."""
        if self._given and label not in self._given and label.isascii() and label.isdigit():
            number = int(label) - self.targets.first_number
            return self.targets.labels[number] if 0 <= number < len(self.targets.labels) else label
        return label

    @classmethod
    def with_numbers(cls, targets: Targets, found: Collection[str], names: tuple[str, ...]) -> Targets:
        """Return the targets with the names, and the first number, that the labels of a corpus stand for.

        Labels are numbers from 0, or from 1 if none is 0 and one is the number of names.

        Args:
            targets: of the corpus.
            found: the labels of all rows, as the file has them.
            names: for labels that are numbers, if the targets have no names.
        """
        numbers = {int(label) for label in found if label.isascii() and label.isdigit()}
        labels = targets.labels or (names if len(numbers) == len(found) else ())
        from_one = 0 not in numbers and len(labels) in numbers and not set(found) & set(labels)
        return replace(targets, labels=labels, first_number=int(from_one))


def codes_of(labels: Sequence[str]) -> dict[str, int]:
    """Return label -> its index."""
    return {label: code for code, label in enumerate(labels)}
