"""Interface of a kind of targets: what it checks in a record, its label names, its arrays, its check of training rows.

The kinds are in :mod:`permafrost.data.corpora.targets` and :mod:`permafrost.data.corpora.ranking`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import Kind, Record

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

    group_texts: ClassVar[int | None] = None
    """Number of first texts that rows of one group have in common, which get the same split; None for all texts."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    @classmethod
    def records_of(cls, record: Record) -> Iterator[Record]:
        """Yield the records of a row of columns, whose last one was read as the target."""
        yield record

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
    def complete(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with what rows get once its splits are final, and notes of it for the user."""
        return corpus

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Check that the training rows can be learnt from.

        Returns:
            notes for the user: labels that never occur, texts in several rows with different labels.

        Raises:
            CorpusError: a class, or the ``B-`` tag of a type of entity, does not occur, or no row has a label.
        """
        return ()
