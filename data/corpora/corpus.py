"""Corpus: distinct texts, and rows that point into them with a target each.

Readers yield records, one at a time and with their place; :mod:`data.gathering` checks them and lays them out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.records import HELD_OUT, CorpusError, Kind
from permafrost.data.ragged import bounds, ranges
from permafrost.data.spec import nearest
from permafrost.data.text import Text


@dataclass(frozen=True, eq=False)
class Spans:
    """Stretches of characters within rows: their words, with a tag each; or their answers."""

    characters: NDArray[np.int64]
    """``[mark, 2]``: first character and the first after it, in the row's text; of two segments, in the second."""

    codes: NDArray[np.int64]
    """``[mark]``: index of the tag among the corpus's labels; zeros for answers."""

    offsets: NDArray[np.int64]
    """``[row + 1]``: row ``i`` has the marks from ``offsets[i]`` to ``offsets[i + 1]``."""

    def select(self, rows: NDArray[np.integer[Any]]) -> "Spans":
        """The marks of some rows, in the order given."""
        lengths = np.diff(self.offsets)[rows]
        chosen = ranges(self.offsets[:-1][rows], lengths)
        return Spans(self.characters[chosen], self.codes[chosen], bounds(lengths))


@dataclass(frozen=True, eq=False)
class Rows:
    """The labelled items of one split."""

    texts: NDArray[np.int64]
    """``[row, side]``, indices into the corpus's texts."""

    targets: NDArray[np.float64] | NDArray[np.int64]
    """``[row]``: scores mapped to 0..1, or class indices; zeros where the corpus has no target, or has marks."""

    spans: Spans | None = None
    """Tagged words, each row all of its own; or answers, of which a row's first is the one to learn. Else None."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: NDArray[np.integer[Any]]) -> "Rows":
        """Some of the rows, in the order given."""
        return Rows(self.texts[rows], self.targets[rows], self.spans.select(rows) if self.spans else None)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts that are each run once, and the rows that use them."""

    name: str
    texts: tuple[Text, ...]
    """Distinct, in order of first appearance; a question and its context are two segments of one text."""

    splits: Mapping[str, Rows]
    labels: tuple[str, ...] = ()
    """Names of classes or of tags; empty for the others."""

    score_range: tuple[float, float] | None = None
    """The unit of the scores; None where the targets are something else."""

    kind: Kind = "none"
    """What its rows are labelled with."""

    notes: tuple[str, ...] = ()
    """What a user should know of how it was read: how many rows were left out, and why."""

    @property
    def selection(self) -> str:
        """The split that chooses epochs and variants: a held-out part of train where there is one, else validation."""
        return HELD_OUT if HELD_OUT in self.splits else "validation"

    @property
    def scored(self) -> str:
        """The split that figures of merit are of: test where there is one, else validation."""
        return "test" if "test" in self.splits else "validation"

    @property
    def sentences(self) -> int:
        """How many texts the rows hold, repeats counted."""
        return sum(rows.texts.size for rows in self.splits.values())

    def split(self, name: str) -> Rows:
        """The rows of a split; raises :class:`CorpusError` where it is missing."""
        if name not in self.splits:
            raise CorpusError(f"{self.name}: it has no split '{name}'. {nearest(name, self.splits)}")
        return self.splits[name]
