"""Ranking metrics against a slow implementation that follows trec_eval's text, and values by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.probes.metrics.ranking import RANKING_METRICS, rank_candidates, relevant_ranks

rows = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.0])),
    min_size=1,
    max_size=60,
)
"""Query, score and relevance of each row; many scores are equal."""


def slow(gains: list[float]) -> dict[str, float]:
    """Metrics of one query from the relevances of its passages, first to last."""
    relevant = [gain > 0 for gain in gains]
    hits = [rank for rank, one in enumerate(relevant, 1) if one]

    def dcg(order: list[float]) -> float:
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(order[:10], 1))

    return {
        "ndcg@10": dcg(gains) / dcg(sorted(gains, reverse=True)),
        "map": sum(sum(relevant[:rank]) / rank for rank in hits) / len(hits),
        "mrr": 1 / hits[0],
        "precision@1": float(relevant[0]),
        "recall@10": sum(relevant[:10]) / len(hits),
    }


@given(rows)
def test_every_metric_is_that_of_the_slow_implementation(rows):
    queries, scores, relevances = (np.array(column) for column in zip(*rows, strict=True))
    ranks = rank_candidates(scores, relevances, queries)
    found = relevant_ranks(ranks, relevances, queries)
    by_query = {
        query: sorted((-score, gain) for other, score, gain in rows if other == query) for query in sorted(set(queries))
    }
    expected = [slow([gain for _, gain in own]) for own in by_query.values() if any(gain for _, gain in own)]
    for name, metric in RANKING_METRICS.items():
        np.testing.assert_allclose(metric(*found), [query[name] for query in expected], rtol=1e-12)
    for query, own in by_query.items():
        assert sorted(ranks[queries == query]) == list(range(1, len(own) + 1))


def test_a_query_by_hand():
    """Relevances 0, 3, 0, 1 in the order of the scores."""
    found = relevant_ranks(
        rank_candidates(np.array([0.1, 0.9, 0.8, 0.7]), np.array([1.0, 0, 3, 0]), np.zeros(4, np.int64)),
        np.array([1.0, 0, 3, 0]),
        np.zeros(4, np.int64),
    )
    expected = {
        "ndcg@10": (3 / math.log2(3) + 1 / math.log2(5)) / (3 + 1 / math.log2(3)),
        "map": (1 / 2 + 2 / 4) / 2,
        "mrr": 1 / 2,
        "precision@1": 0,
        "recall@10": 1,
    }
    for name, value in expected.items():
        assert RANKING_METRICS[name](*found)[0] == pytest.approx(value)


def test_a_constant_score_is_the_worst_ranking():
    relevances = np.array([1.0, 0, 0, 0])
    ranks = rank_candidates(np.zeros(4), relevances, np.zeros(4, np.int64))
    assert ranks[0] == 4
