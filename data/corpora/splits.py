"""Splits of a corpus: cut by the digests of texts, held out of train, or limited in size; and texts that they share.

What is held out of train never parts rows of the same group: questions on the same context, or rows with the same
texts.
"""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError, Record
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.text import Segments, Text

Fractions = tuple[float, float, float]
"""Shares of train, validation and test."""

MIN_GROUPS = 10
"""Smallest number of distinct groups of training texts that a split can be held out of."""


def cut_by_seed(records: Iterable[Record], fractions: Fractions, seed: int) -> Iterator[Record]:
    """Assign each record to train, validation or test by the digest of its first text and the seed alone.

    Of a question the context counts. Records with the same first text get the same split, whatever else there is.
    """
    bounds = list(accumulate(fractions))[:-1]
    for record in records:
        yield record.in_split(SPLITS[bisect_right(bounds, _place(record, seed))])


def settle_splits(
    records: Sequence[Record], fractions: Fractions, seed: int, names: Callable[[Record], Iterable[str]]
) -> list[Record]:
    """Return the records of :func:`cut_by_seed` in splits that can be learnt from and measured.

    A record with a name that no training record has goes to train. If validation or test has no record, it takes its
    share of the groups of train whose digests are nearest, two at least, but none with the last training record of a
    name.

    Args:
        names: of the classes, labels or types of tags of a record.
    """
    if not fractions[0]:
        return list(records)
    names_of = [frozenset(names(record)) for record in records]
    learnt = set[str]().union(
        *(names for names, record in zip(names_of, records, strict=True) if record.split == "train")
    )
    splits = [record.split if names <= learnt else "train" for names, record in zip(names_of, records, strict=True)]
    if "train" not in splits:
        splits = ["train"] * len(splits)
    for split, fraction in zip(SPLITS[1:], fractions[1:], strict=True):
        if fraction and split not in splits:
            for row in _nearest_rows(records, splits, names_of, fraction, seed):
                splits[row] = split
    return [record.in_split(split) for record, split in zip(records, splits, strict=True)]


def _nearest_rows(
    records: Sequence[Record], splits: Sequence[str], names_of: Sequence[frozenset[str]], fraction: float, seed: int
) -> Iterator[int]:
    """Yield the rows of train that an empty split takes, group by group, those with the last digests first."""
    groups: dict[float, list[int]] = {}
    for row, split in enumerate(splits):
        if split == "train":
            groups.setdefault(_place(records[row], seed), []).append(row)
    left = Counter(name for rows in groups.values() for row in rows for name in names_of[row])
    wanted, spare = max(2, round(fraction * len(groups))), len(groups) - 1
    for place in sorted(groups, reverse=True):
        taken = Counter(name for row in groups[place] for name in names_of[row])
        if wanted and spare and all(left[name] > count for name, count in taken.items()):
            left, wanted, spare = left - taken, wanted - 1, spare - 1
            yield from groups[place]


def _place(record: Record, seed: int) -> float:
    """Return a number in [0, 1) that depends on the first text of a record and the seed alone."""
    text = _group_key(record.texts[0]).encode("utf-8", "surrogatepass") if record.texts else b""
    digest = hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest()
    return float((int.from_bytes(digest, "big") >> 11) / (1 << 53))


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


MEASURED = ("validation", "test")


def leak_notes(corpus: Corpus) -> tuple[str, ...]:
    """Return a sentence for each measured split with rows whose texts are in train too, or one of two texts is.

    Pairs are the same in either order. Of questions, those that share the context with a question of train count as
    rows that share one text.
    """
    notes, part = list[str](), "one of their two texts"
    groups = np.arange(len(corpus.texts))
    if any(isinstance(text, Segments) for text in corpus.texts):
        keys: dict[str, int] = {}
        groups = np.array([keys.setdefault(_group_key(text), len(keys)) for text in corpus.texts])
        part = "their context"
    for split in filter(corpus.splits.__contains__, MEASURED) if "train" in corpus.splits else ():
        train, rows = corpus.splits["train"], corpus.splits[split]
        leaked = np.isin(_row_keys(corpus, rows), _row_keys(corpus, train))
        shared = np.isin(groups[rows.texts], groups[train.texts]).any(1) & ~leaked
        if leaked.any():
            texts = "texts" if rows.texts.shape[1] > 1 else "text"
            notes.append(
                f"{leaked.sum():,} of {len(rows):,} rows of {split} have the same {texts} "
                "as a row of train, so figures read high; set corpus.drop_leaks = true (--drop-leaks) to take such "
                "rows out of train"
            )
        if shared.any():
            notes.append(f"{shared.sum():,} of {len(rows):,} rows of {split} share {part} with a row of train")
    return tuple(notes)


def drop_leaks(corpus: Corpus) -> Corpus:
    """Return the corpus without the training rows whose texts are in validation or test, and with a note of how many.

    Raises:
        CorpusError: no training row would be left.
    """
    train, others = corpus.split("train"), [corpus.splits[name] for name in MEASURED if name in corpus.splits]
    keys = np.concatenate([np.zeros(0, np.int64), *(_row_keys(corpus, rows) for rows in others)])
    leaks = np.isin(_row_keys(corpus, train), keys)
    if leaks.all():
        raise CorpusError(
            f"{corpus.name}: the texts of all its training rows are in validation or test too; set corpus.drop_leaks = "
            "false, or give train other rows."
        )
    note = f"{leaks.sum():,} of {len(train):,} rows of train are taken out: their texts are in validation or test too"
    rows = train.select(np.flatnonzero(~leaks))
    return replace(corpus, splits={**corpus.splits, "train": rows}, notes=(*corpus.notes, *[note] * bool(leaks.any())))


def _row_keys(corpus: Corpus, rows: Rows) -> NDArray[np.int64]:
    """Return a number for each row that is equal if its texts are, in either order, ``[row]``."""
    ordered = np.sort(rows.texts, axis=1)
    return np.asarray(ordered[:, 0] * len(corpus.texts) + ordered[:, -1])
