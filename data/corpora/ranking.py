"""Targets of pairs to rank: the relevance of a passage to a query; repeated pairs, and the candidates of a query."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.encoding import TargetEncoding
from permafrost.data.corpora.records import CorpusError, Record, RowError

POSITIVE, NEGATIVE = "positive", "negative"
"""Targets of the two sides of a triple."""

WORDS = {POSITIVE: 1.0, NEGATIVE: 0.0, "true": 1.0, "false": 0.0}
"""Words for a relevance of 1 and of 0."""

MOST_PAIRS = 4_000_000
"""Largest number of pairs of a split whose queries rank all passages; further queries are left out."""


class Relevance(TargetEncoding):
    """A number per pair of a query and a passage, above 0 if the passage is relevant; a query has several passages."""

    group_texts = 1

    @classmethod
    def records_of(cls, record: Record) -> Iterator[Record]:
        """Yield a record for each pair of a query and a passage.

        A row is a query with a passage that is relevant; a query, a passage and its relevance; or a query, a relevant
        passage and one or more that are not.
        """
        last = record.target or ""
        if (len(record.texts) == 2 and (_relevance(last) is not None or not last.strip())) or not record.texts:
            yield record
            return
        query, *passages = record.texts
        for number, passage in enumerate([*passages, last]):
            yield replace(record, texts=(query, passage), target=NEGATIVE if number else POSITIVE)

    def check_record(self, record: Record) -> None:
        """Raise a :class:`RowError` if a record has no relevance."""
        if _relevance(record.target or "") is None:
            expected = "a number in the last column of corpus.columns (0: not relevant), or a passage"
            raise RowError(record.origin, "no relevance", f"expected {expected}, got {record.target!r}")

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row]`` relevances; those below 0 become 0."""
        of_triples = [record.target in (POSITIVE, NEGATIVE) for record in records]
        if any(of_triples) and not all(of_triples):
            record = records[of_triples.index(False)]
            raise CorpusError(
                f"{record.origin}: the last column of corpus.columns holds passages in other rows, and here the number "
                f"{record.target}, which is read as a relevance; leave the row out, or write the passage in words."
            )
        relevances = [_relevance(record.target or "") or 0.0 for record in records]
        return Rows(texts, np.maximum(np.array(relevances, np.float64), 0.0))

    @classmethod
    def complete(cls, corpus: Corpus) -> Corpus:
        """Return the corpus with each pair once, and with the candidates of every query.

        A query ranks the passages that the file pairs it with. If no passage of the file is irrelevant, it ranks all
        distinct passages of its split; the training rows stay pairs.
        """
        splits = {split: _without_duplicates(rows) for split, rows in corpus.splits.items()}
        repeated = sum(map(len, corpus.splits.values())) - sum(map(len, splits.values()))
        notes = [f"pairs that occur several times: {repeated:,}; each counts once, by its highest relevance"] * bool(
            repeated
        )
        if all((rows.targets > 0).all() for rows in splits.values()):
            notes.append("every passage of the file is relevant: each query ranks all distinct passages of its split")
            for split in [split for split in splits if split != "train"]:
                queries = len(np.unique(splits[split].texts[:, 0]))
                splits[split] = _all_candidates(splits[split])
                kept = len(np.unique(splits[split].texts[:, 0]))
                if kept < queries:
                    notes.append(
                        f"{kept:,} of {queries:,} {split} queries are ranked, at even distances: all would be more "
                        f"than {MOST_PAIRS:,} pairs; set corpus.limit for fewer passages"
                    )
        else:
            notes.append("each query ranks the passages that the file pairs it with")
        return replace(corpus, splits=splits, notes=(*corpus.notes, *notes))

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if no passage is relevant; note queries without a choice of passages."""
        if not (train.targets > 0).any():
            raise CorpusError(
                f"{corpus.name}: none of its {len(train):,} training pairs is relevant (a relevance above 0); check "
                "corpus.columns, which are query, passage and relevance."
            )
        notes = []
        for split, rows in corpus.splits.items():
            relevant, other = (set(rows.texts[side, 0]) for side in (rows.targets > 0, rows.targets == 0))
            if without := len(other - relevant):
                notes.append(
                    f"{without:,} of {len(other | relevant):,} {split} queries have no relevant passage; metrics leave "
                    "them out"
                )
            if other and (easy := len(relevant - other)):
                notes.append(f"{easy:,} {split} queries have relevant passages only; they count as ranked perfectly")
        return tuple(notes)


def candidate_grid(texts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return queries and passages if the pairs ``[row, 2]`` are all of both, query after query; else None."""
    passages = texts[: _first_run(texts[:, 0]), 1]
    if not len(passages) or len(texts) % len(passages):
        return None
    grid = texts.reshape(-1, len(passages), 2)
    regular = (grid[:, :, 0] == grid[:, :1, 0]).all() and (grid[:, :, 1] == passages).all()
    return (grid[:, 0, 0], passages) if regular else None


def _first_run(values: NDArray[np.int64]) -> int:
    """Number of leading entries that equal the first."""
    others = np.flatnonzero(values != values[:1])
    return int(others[0]) if len(others) else len(values)


def _relevance(target: str) -> float | None:
    """Return the relevance that a field holds; None if it is no finite number."""
    word = target.strip().lower()
    try:
        value = WORDS[word] if word in WORDS else float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _without_duplicates(rows: Rows) -> Rows:
    """Return the rows, in their order, without those of a pair that occurs before; the highest relevance is kept."""
    _, first, pair = np.unique(rows.texts, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows
    highest = np.zeros(len(first))
    np.maximum.at(highest, pair.reshape(-1), rows.targets)
    order = np.argsort(first)
    return replace(rows.select(first[order]), targets=highest[order])


def _all_candidates(rows: Rows) -> Rows:
    """Return a row for each query and each distinct passage; those that are no row have relevance 0.

    A passage that is the query itself has -1: it is no candidate.
    """
    queries, query = np.unique(rows.texts[:, 0], return_inverse=True)
    passages, passage = np.unique(rows.texts[:, 1], return_inverse=True)
    most = max(1, MOST_PAIRS // len(passages))
    kept = np.arange(len(queries)) if len(queries) <= most else np.linspace(0, len(queries) - 1, most).astype(np.int64)
    place = np.full(len(queries), -1)
    place[kept] = np.arange(len(kept))
    targets = np.zeros((len(kept), len(passages)))
    known = place[query] >= 0
    targets[place[query[known]], passage[known]] = rows.targets[known]
    targets[(queries[kept][:, None] == passages) & (targets == 0)] = -1
    numbers = np.full(targets.shape, -1)
    if rows.numbers is not None:
        numbers[place[query[known]], passage[known]] = rows.numbers[known]
    texts = np.stack(np.broadcast_arrays(queries[kept][:, None], passages[None]), axis=-1)
    return Rows(texts.reshape(-1, 2), targets.reshape(-1), numbers=numbers.reshape(-1))
