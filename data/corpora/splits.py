"""Splits of a corpus: cut by seed, held out of train, or limited in size.

Rows of the same group always get the same split: questions on the same context, or other rows with the same texts.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.text import Segments, Text

MIN_GROUPS = 10
"""Smallest number of distinct groups of training texts that a split can be held out of."""


def cut_by_seed(
    records: Iterable[Record], fractions: tuple[float, float, float], seed: int, group_texts: int | None = None
) -> Iterator[Record]:
    """Assign records to train, validation and test at random, group by group, in these shares.

    Args:
        group_texts: as :attr:`TargetEncoding.group_texts`.
    """
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(sorted(map(_group_key, record.texts[:group_texts]))), []).append(record)
    order = np.random.default_rng(seed).permutation(len(groups))
    bounds = np.cumsum(fractions)[:-1] * len(groups)
    for rank, group in zip(np.argsort(order), groups.values(), strict=True):
        split = SPLITS[int(np.searchsorted(bounds, rank, side="right"))]
        yield from (record.in_split(split) for record in group)


def limit_records(records: Iterable[Record], limit: int, limits: Mapping[str, int], spread: bool) -> Iterator[Record]:
    """Yield at most a given number of records of each split.

    Args:
        limit: maximum for every split that ``limits`` does not name; 0 keeps all.
        limits: maximum by split.
        spread: take the records at even distances from the whole split, not its first ones.
    """
    sizes: Counter[str] = Counter()
    if spread:
        records = list(records)
        sizes.update(record.split for record in records)
    seen: Counter[str] = Counter()
    for record in records:
        maximum, index = limits.get(record.split, limit), seen[record.split]
        seen[record.split] += 1
        kept = index * maximum % sizes[record.split] < maximum if spread else index < maximum
        if kept or not maximum:
            yield record


def with_validation(corpus: Corpus, fraction: float, seed: int, max_rows: int = 0) -> Corpus:
    """Return the corpus with a validation split; if it has none, one is cut off train by seed.

    Args:
        fraction: share of train; 0 cuts none.
        max_rows: maximum number of rows of the new split; 0 for no maximum.
    """
    has_target = TARGETS[corpus.kind].has_target
    if "validation" in corpus.splits or "train" not in corpus.splits or not has_target or not fraction:
        return corpus
    return _cut_off_train(corpus, "validation", fraction, seed, max_rows) or corpus


def with_held_out(corpus: Corpus, fraction: float, seed: int) -> Corpus:
    """Return the corpus with a part of train held out for model selection, so that validation can be reported.

    Raises:
        CorpusError: there is no train split, or it is too small.
    """
    corpus.split("train")
    cut = _cut_off_train(corpus, HELD_OUT, fraction, seed)
    if cut is None:
        raise CorpusError(f"{corpus.name}: fewer than {MIN_GROUPS} distinct training texts; set corpus.held_out = 0.")
    return cut


def _cut_off_train(corpus: Corpus, name: str, fraction: float, seed: int, max_rows: int = 0) -> Corpus | None:
    """Move a part of train to a new split ``name``; None if train has too few groups of texts."""
    train = corpus.splits["train"]
    keys: dict[str, int] = {}
    key_of_text = np.array([keys.setdefault(_group_key(text), len(keys)) for text in corpus.texts])
    texts = train.texts[:, : TARGETS[corpus.kind].group_texts]
    _, group_of_row = np.unique(np.sort(key_of_text[texts], axis=1), axis=0, return_inverse=True)
    group_of_row = group_of_row.reshape(-1)
    sizes: NDArray[np.int64] = np.bincount(group_of_row)
    if len(sizes) < MIN_GROUPS:
        return None
    order = np.random.default_rng(seed).permutation(len(sizes))
    count = round(fraction * len(sizes))
    if max_rows:
        count = min(count, int(np.searchsorted(np.cumsum(sizes[order]), max_rows, side="right")))
    moved = np.isin(group_of_row, order[: max(1, count)])
    cut = {split: train.select(np.flatnonzero(rows)) for split, rows in (("train", ~moved), (name, moved))}
    return replace(corpus, splits={**cut, **{other: rows for other, rows in corpus.splits.items() if other != "train"}})


def _group_key(text: Text) -> str:
    """Return the string that texts of the same group have in common: the context of a question, else the text."""
    return text.second if isinstance(text, Segments) else text
