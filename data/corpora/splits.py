"""Which rows a split has: cut by seed, held out of train, limited. Rows of the same text are never parted.

Rows of questions belong together where they share a context; others where they have the same texts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record
from permafrost.data.text import Segments, Text

FEWEST = 10
"""Distinct training texts below which none is held out."""


def cut_by_seed(records: Iterable[Record], fractions: tuple[float, float, float], seed: int) -> Iterator[Record]:
    """Give every record a split, by the shares of train, validation and test."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(sorted(map(_shared, record.texts))), []).append(record)
    order = np.random.default_rng(seed).permutation(len(groups))
    bounds = np.cumsum(fractions)[:-1] * len(groups)
    for rank, group in zip(np.argsort(order), groups.values(), strict=True):
        split = SPLITS[int(np.searchsorted(bounds, rank, side="right"))]
        yield from (replace(record, split=split) for record in group)


def limited(records: Iterable[Record], limit: int, limits: Mapping[str, int], spread: bool) -> Iterator[Record]:
    """At most so many records of each split: its first, or with ``spread`` as many evenly from all of it.

    Args:
        limit: of every split that ``limits`` does not name; 0 keeps all.
    """
    sizes: Counter[str] = Counter()
    if spread:
        records = list(records)
        sizes.update(record.split for record in records)
    seen: Counter[str] = Counter()
    for record in records:
        most, number = limits.get(record.split, limit), seen[record.split]
        seen[record.split] += 1
        if not most or (_evenly(number, most, sizes[record.split]) if spread else number < most):
            yield record


def with_validation(corpus: Corpus, fraction: float, seed: int, most: int = 0) -> Corpus:
    """The corpus with a validation split, held out of train by seed where it has none.

    Args:
        most: rows that it may have; 0 for as many as ``fraction`` gives.
    """
    if "validation" in corpus.splits or "train" not in corpus.splits or corpus.kind == "none" or not fraction:
        return corpus
    return _cut_off(corpus, "validation", fraction, seed, most) or corpus


def with_held_out(corpus: Corpus, fraction: float, seed: int) -> Corpus:
    """The corpus with a part of train held out to choose by, so that validation can be reported.

    Raises:
        CorpusError: there is no train split, or too little of it.
    """
    corpus.split("train")
    cut = _cut_off(corpus, HELD_OUT, fraction, seed)
    if cut is None:
        raise CorpusError(f"{corpus.name}: fewer than {FEWEST} distinct training texts; set corpus.held_out = 0.")
    return cut


def _cut_off(corpus: Corpus, name: str, fraction: float, seed: int, most: int = 0) -> Corpus | None:
    """A part of train under a name of its own; None where train has too few texts."""
    train = corpus.splits["train"]
    shared: dict[str, int] = {}
    same = np.array([shared.setdefault(_shared(text), len(shared)) for text in corpus.texts])
    _, group = np.unique(np.sort(same[train.texts], axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    sizes: NDArray[np.int64] = np.bincount(group)
    if len(sizes) < FEWEST:
        return None
    order = np.random.default_rng(seed).permutation(len(sizes))
    count = round(fraction * len(sizes))
    if most:
        count = min(count, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))
    out = np.isin(group, order[: max(1, count)])
    cut = {part: train.select(np.flatnonzero(rows)) for part, rows in (("train", ~out), (name, out))}
    return replace(corpus, splits={**cut, **{other: rows for other, rows in corpus.splits.items() if other != "train"}})


def _shared(text: Text) -> str:
    """What must not stand on both sides of a cut."""
    return text.second if isinstance(text, Segments) else text


def _evenly(number: int, most: int, size: int) -> bool:
    """Whether a row is among ``most`` that stand at even distances among ``size``."""
    return size <= most or number * most // size != (number - 1) * most // size
