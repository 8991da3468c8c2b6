"""Metrics of rankings by query, as trec_eval defines them: nDCG, average precision, reciprocal rank, precision, recall.

They are functions of the ranks of the relevant passages of each query, from 1; metrics of a corpus are means over
queries. Of passages with equal scores the less relevant ones come first, so a constant score is the worst ranking.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

RankingMetric = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""Metric of ranks ``[query, relevant]``, ascending and padded with inf, and of relevances, padded with 0 ->
``[query]``."""

DEPTH = 10
"""Number of passages at the top that nDCG@10 and recall@10 count."""


def rank_candidates(
    scores: NDArray[np.floating[Any]], relevances: NDArray[np.float64], queries: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rank of every row among those of its query, from 1.

    Args:
        scores: ``[row]``; the largest is ranked first, NaN last.
        relevances: ``[row]``; of equal scores the lowest is ranked first.
        queries: ``[row]``, indices of queries.
    """
    order = np.lexsort((relevances, -scores, queries))
    first = np.flatnonzero(np.diff(queries[order], prepend=-1))
    starts = np.repeat(first, np.diff(first, append=len(order)))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1) - starts
    return ranks


def relevant_ranks(
    ranks: NDArray[np.int64], relevances: NDArray[np.float64], queries: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ranks and relevances of the relevant rows, as :data:`RankingMetric` takes them.

    Queries are in ascending order; those without a relevant row are left out.
    """
    relevant = np.flatnonzero(relevances > 0)
    relevant = relevant[np.lexsort((ranks[relevant], queries[relevant]))]
    _, first, counts = np.unique(queries[relevant], return_index=True, return_counts=True)
    place = np.arange(len(relevant)) - np.repeat(first, counts)
    query = np.repeat(np.arange(len(first)), counts)
    shape = len(first), int(counts.max(initial=1))
    padded_ranks, padded_relevances = np.full(shape, np.inf), np.zeros(shape)
    padded_ranks[query, place], padded_relevances[query, place] = ranks[relevant], relevances[relevant]
    return padded_ranks, padded_relevances


def ndcg(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the discounted gain of the first 10 passages, relative to that of the best order.

    The gain of a passage is its relevance, and its discount ``1 / log2(1 + rank)``.
    Source: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques" (2002); trec_eval's ndcg_cut.10.
    """
    discounts = np.where(ranks <= DEPTH, 1 / np.log2(1 + ranks), 0)
    best = -np.sort(-relevances, axis=1)[:, :DEPTH]
    ideal = best / np.log2(2 + np.arange(best.shape[1]))
    return np.asarray((relevances * discounts).sum(1) / ideal.sum(1))


def average_precision(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the relevant passages of the precision at their rank; trec_eval's map."""
    precisions = np.arange(1, ranks.shape[1] + 1) / ranks
    return np.asarray(precisions.sum(1) / (relevances > 0).sum(1))


def reciprocal_rank(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return one divided by the rank of the first relevant passage; trec_eval's recip_rank."""
    return np.asarray(1 / ranks[:, 0])


def precision_at_1(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 if the first passage is relevant, else 0; trec_eval's P_1."""
    return np.asarray(ranks[:, 0] == 1, np.float64)


def recall(ranks: NDArray[np.float64], relevances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the relevant passages that are among the first 10; trec_eval's recall_10."""
    return np.asarray((ranks <= DEPTH).sum(1) / (relevances > 0).sum(1))


RANKING_METRICS: dict[str, RankingMetric] = {
    "ndcg@10": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "precision@1": precision_at_1,
    "recall@10": recall,
}
