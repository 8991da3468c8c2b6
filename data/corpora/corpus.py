"""Corpora in memory: distinct texts, and rows of text indices with their targets.

:func:`permafrost.data.corpora.build.build_corpus` makes one from the records of a reader.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.records import HELD_OUT, CorpusError, Kind
from permafrost.data.corpora.skipped import SkippedRow
from permafrost.data.digests import digest_of_stream
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths
from permafrost.data.spec import nearest
from permafrost.data.text import Segments, Text


@dataclass(frozen=True, eq=False)
class Spans:
    """Character spans within rows: tagged words, or answers."""

    characters: NDArray[np.int64]
    """``[span, 2]``: start and end (exclusive) in the text of the row; for two segments, in the second one."""

    codes: NDArray[np.int64]
    """``[span]``: index of the tag among the labels of the corpus; zeros for answers."""

    offsets: NDArray[np.int64]
    """``[row + 1]``: row ``i`` has the spans ``offsets[i]:offsets[i + 1]``."""

    @property
    def are_missing(self) -> NDArray[np.bool_]:
        """Whether each row has no span, ``[row]``."""
        missing: NDArray[np.bool_] = np.diff(self.offsets) == 0
        return missing

    def select(self, rows: NDArray[np.integer[Any]]) -> "Spans":
        """Return the spans of the given rows, in that order."""
        lengths = np.diff(self.offsets)[rows]
        indices = concatenate_ranges(self.offsets[:-1][rows], lengths)
        return Spans(self.characters[indices], self.codes[indices], offsets_from_lengths(lengths))


@dataclass(frozen=True, eq=False)
class Rows:
    """The labelled rows of one split."""

    texts: NDArray[np.int64]
    """``[row, side]``: indices into the texts of the corpus; a pair of sentences has two sides."""

    targets: NDArray[np.float64] | NDArray[np.int64]
    """``[row]``: scores scaled to [0, 1], or class indices; zeros if the corpus has no target, or has spans. For the
    kind "labels" ``[row, label]``: 1 if the row has the label, else 0. For the kind "rank" relevances: 0 if the passage
    is not relevant, -1 if it is no candidate."""

    spans: Spans | None = None
    """Tagged words, all of a row; or its answers, the first of which is the training target, and none if the question
    has no answer. None for other kinds."""

    numbers: NDArray[np.int64] | None = None
    """``[row]``: number of the row among those that were read, of any split, from 0; -1 for a pair that was not read.
    None if the rows are of no file."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: NDArray[np.integer[Any]]) -> "Rows":
        """Return the given rows, in that order."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return Rows(self.texts[rows], self.targets[rows], self.spans.select(rows) if self.spans else None, numbers)


@dataclass(frozen=True, eq=False, kw_only=True)
class Corpus:
    """Distinct texts, each encoded once, and the rows of each split that refer to them."""

    name: str
    texts: tuple[Text, ...]
    """Distinct texts in order of first appearance; a question and its context are two segments of one text."""

    splits: Mapping[str, Rows]
    labels: tuple[str, ...] = ()
    """Names of classes, labels or tags; empty for other kinds."""

    score_range: tuple[float, float] | None = None
    """Lowest and highest score before scaling; None if the targets are not scores."""

    first_number: int | None = None
    """Number of the first label, if rows may have numbers instead of names; else None."""

    kind: Kind = "none"
    """Kind of target of the rows."""

    language: str = ""
    """Language by whose rules answers are compared, a key of
    :data:`permafrost.data.writing.script.LANGUAGES`; empty takes the rules for the script of each context."""

    source: str = ""
    """How a file was read, in a line: format, columns, target; empty for a named corpus."""

    notes: tuple[str, ...] = ()
    """Notes for the user: how many rows were left out and why, which labels never occur in training, which texts
    several splits share."""

    skipped: tuple[SkippedRow, ...] = ()
    """Rows that were left out."""

    @property
    def selection_split(self) -> str:
        """Name of the split for model selection: the held-out part of train if there is one, else validation."""
        return HELD_OUT if HELD_OUT in self.splits else "validation"

    @property
    def test_split(self) -> str:
        """Name of the split that results are reported on: test, else validation, or the only one there is."""
        return next((name for name in ("test", "validation") if name in self.splits), next(iter(self.splits)))

    @property
    def text_count(self) -> int:
        """Number of texts in all rows, with repetitions."""
        return sum(rows.texts.size for rows in self.splits.values())

    @property
    def texts_distinct(self) -> int:
        """Number of distinct texts."""
        return len(self.texts)

    def texts_by_row(self) -> list[Text]:
        """Return the texts of all rows in the order of the file, with repetitions, then those that no row has."""
        if any(rows.numbers is None for rows in self.splits.values()):
            return list(self.texts)
        sides = next(iter(self.splits.values())).texts.shape[1]
        texts = np.concatenate([rows.texts.reshape(-1, sides) for rows in self.splits.values()])
        numbers = np.concatenate([np.asarray(rows.numbers) for rows in self.splits.values()])
        order = np.flatnonzero(numbers >= 0)
        order = order[np.argsort(numbers[order], kind="stable")]
        unused = np.setdiff1d(np.arange(len(self.texts)), texts[order])
        return [self.texts[index] for index in (*texts[order].reshape(-1).tolist(), *unused.tolist())]

    def split(self, name: str) -> Rows:
        """Return the rows of a split; raise a :class:`CorpusError` if there is no such split."""
        if name not in self.splits:
            raise CorpusError(f"{self.name}: it has no split '{name}'. {nearest(name, self.splits)}")
        return self.splits[name]

    @cached_property
    def digest(self) -> str:
        """Digest of texts, rows, targets and labels, 16 hexadecimal digits."""
        return digest_of_stream(self._bytes())[:16]

    def _bytes(self) -> Iterator[bytes]:
        yield "\n".join(self.labels).encode()
        for text in self.texts:
            segments = (text.first, text.second) if isinstance(text, Segments) else (text,)
            for segment in segments:
                yield len(segment).to_bytes(8, "little") + segment.encode("utf-8", "surrogatepass")
        for split, rows in self.splits.items():
            yield split.encode() + rows.texts.tobytes() + rows.targets.tobytes()
            if rows.spans:
                yield rows.spans.characters.tobytes() + rows.spans.codes.tobytes() + rows.spans.offsets.tobytes()
