"""Corpus: distinct texts, and rows that point into them with a target each.

Readers yield records, one at a time and with their place; :func:`gather` turns them into a corpus and is the one
place where text, score and label are checked.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.ragged import bounds, ranges
from data.spec import nearest
from data.text import Text

SPLITS = ("train", "validation", "test")
HELD_OUT = "held-out"
"""The split that chooses where a part of train is held out and validation is reported."""

FEWEST = 10
"""Training rows below which none is held out."""


class CorpusError(InputError):
    """A corpus that cannot be used; the message begins with file and line where there is one."""


@dataclass(frozen=True)
class Record:
    """One labelled item as read, before it is checked."""

    place: str
    """``file:line``, for messages."""

    split: str
    """``train``, ``validation``, ``test``, or empty: to be cut by seed."""

    texts: tuple[str, ...]
    target: str | None


Kind = Literal["none", "score", "class", "tags", "answers"]
"""What a row is labelled with: nothing, a number, a class, a tag for each word, or where its answers stand."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Stretches of characters within rows: their words, with a tag each; or their answers."""

    spans: NDArray[np.int64]
    """``[mark, 2]``: first character and the first after it, in the row's text; of two segments, in the second."""

    codes: NDArray[np.int64]
    """``[mark]``: index of the tag among the corpus's labels; zeros for answers."""

    offsets: NDArray[np.int64]
    """``[row + 1]``: row ``i`` has the marks from ``offsets[i]`` to ``offsets[i + 1]``."""

    def take(self, rows: NDArray[np.integer[Any]]) -> "Marks":
        """The marks of some rows, in the order given."""
        lengths = np.diff(self.offsets)[rows]
        chosen = ranges(self.offsets[:-1][rows], lengths)
        return Marks(self.spans[chosen], self.codes[chosen], bounds(lengths))


@dataclass(frozen=True, eq=False)
class Rows:
    """The labelled items of one split."""

    sides: NDArray[np.int64]
    """``[row, side]``, indices into the corpus's texts."""

    targets: NDArray[np.float64] | NDArray[np.int64]
    """``[row]``: scores mapped to 0..1, or class indices; zeros where the corpus has no target, or has marks."""

    marks: Marks | None = None
    """Tagged words, each row all of its own; or answers, of which a row's first is the one to learn. Else None."""

    def __len__(self) -> int:
        return len(self.sides)

    def take(self, rows: NDArray[np.integer[Any]]) -> "Rows":
        """Some of the rows, in the order given."""
        return Rows(self.sides[rows], self.targets[rows], self.marks.take(rows) if self.marks else None)


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
    def sentences(self) -> int:
        """How many texts the rows hold, repeats counted."""
        return sum(rows.sides.size for rows in self.splits.values())

    def split(self, name: str) -> Rows:
        """The rows of a split; raises :class:`CorpusError` where it is missing."""
        if name not in self.splits:
            raise CorpusError(f"{self.name}: it has no split '{name}'. {nearest(name, self.splits)}")
        return self.splits[name]


@dataclass(frozen=True)
class Targets:
    """What a target must look like."""

    kind: Kind = "none"

    score_range: tuple[float, float] = (0.0, 1.0)
    labels: tuple[str, ...] = ()
    """Known class names; empty takes those of the training rows."""


def gather(name: str, records: Iterable[Record], targets: Targets, limit: int = 0) -> Corpus:
    """Check records and lay them out: texts become distinct, targets become numbers.

    Args:
        limit: keep at most this many rows of each split; 0 keeps all.

    Raises:
        CorpusError: an empty text, a score that is no number or outside its range, an unknown label, no rows.
    """
    index: dict[str, int] = {}
    sides: dict[str, list[list[int]]] = {}
    places: dict[str, list[tuple[str, str | None]]] = {}
    for record in records:
        if limit and len(sides.get(record.split, ())) >= limit:
            continue
        _check_texts(record)
        sides.setdefault(record.split, []).append([index.setdefault(text, len(index)) for text in record.texts])
        places.setdefault(record.split, []).append((record.place, record.target))
    if not sides:
        raise CorpusError(f"{name}: it holds no rows.")
    labels = targets.labels
    if targets.kind == "class" and not labels and "train" not in sides:
        raise CorpusError(f"{name}: it has no training rows to take its classes from; set corpus.labels.")
    if targets.kind == "class" and not labels:
        labels = tuple(sorted({str(target) for _, target in places.get("train", [])}))
    rows = {
        split: Rows(np.array(sides[split], np.int64), np.array(list(_numbers(places[split], targets, labels))))
        for split in sorted(sides, key=_split_order)
    }
    score_range = targets.score_range if targets.kind == "score" else None
    return Corpus(name, tuple(index), rows, labels, score_range, targets.kind)


def cut_by_seed(records: Iterable[Record], fractions: tuple[float, float, float], seed: int) -> Iterator[Record]:
    """Give every record a split; records of the same texts stay together, so no pair leaks."""
    records = list(records)
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(sorted(record.texts)), []).append(record)
    order = np.random.default_rng(seed).permutation(len(groups))
    bounds = np.cumsum(fractions)[:-1] * len(groups)
    for rank, group in zip(np.argsort(order), groups.values(), strict=True):
        split = SPLITS[int(np.searchsorted(bounds, rank, side="right"))]
        yield from (replace(record, split=split) for record in group)


def with_validation(corpus: Corpus, fraction: float, seed: int) -> Corpus:
    """The corpus with a validation split, held out of train by seed where it has none; same texts stay together."""
    if "validation" in corpus.splits or "train" not in corpus.splits or corpus.kind == "none":
        return corpus
    train = corpus.splits["train"]
    _, group = np.unique(np.sort(train.sides, axis=1), axis=0, return_inverse=True)
    groups = int(group.max()) + 1
    if groups < FEWEST or not fraction:
        return corpus
    chosen = np.random.default_rng(seed).permutation(groups)[: max(1, round(fraction * groups))]
    out = np.isin(group.reshape(-1), chosen)
    cut = {name: train.take(np.flatnonzero(rows)) for name, rows in (("train", ~out), ("validation", out))}
    return replace(corpus, splits={**cut, **{name: rows for name, rows in corpus.splits.items() if name != "train"}})


def _check_texts(record: Record) -> None:
    if not 1 <= len(record.texts) <= 2:
        raise CorpusError(
            f"{record.place}: expected one text or two, corpus.columns and corpus.target make it {len(record.texts)}."
        )
    for number, text in enumerate(record.texts, 1):
        which = f"text {number}" if len(record.texts) > 1 else "the text"
        if not text.strip():
            raise CorpusError(f"{record.place}: {which} is empty.")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise CorpusError(f"{record.place}: {which} holds half a character (a lone surrogate).")


def _numbers(places: list[tuple[str, str | None]], targets: Targets, labels: tuple[str, ...]) -> Iterator[float | int]:
    codes = {label: code for code, label in enumerate(labels)}
    low, high = targets.score_range
    for place, target in places:
        if targets.kind == "none":
            yield 0
        elif targets.kind == "class":
            yield _class(place, str(target), codes, bool(targets.labels))
        else:
            yield (_score(place, str(target), low, high) - low) / (high - low)


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


def _class(place: str, target: str, codes: Mapping[str, int], by_number: bool) -> int:
    """A label by name, or by number where the names are given."""
    if target in codes:
        return codes[target]
    if by_number and target.isascii() and target.isdigit() and int(target) < len(codes):
        return int(target)
    raise CorpusError(f"{place}: unknown label {target!r}. {nearest(target, codes)}")


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
