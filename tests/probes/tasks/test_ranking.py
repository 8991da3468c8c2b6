"""Rankings by query: what is left out, tables that are compared by query, ranks of new pairs, and refusals."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.tasks import ranking
from permafrost.probes.tasks.registry import TASKS, task_of
from tests.support.synthetic import inputs, ranked
from tests.support.trainings import scorer_of

TASK = TASKS["rank"]


def corpus_of(*rows: tuple[int, int, float]) -> Corpus:
    pairs = np.array(rows)
    split = Rows(pairs[:, :2].astype(np.int64), pairs[:, 2])
    texts = tuple(f"text {n}" for n in range(20))
    return Corpus(name="toy", texts=texts, splits={"train": split, "validation": split}, kind="rank")


def test_metrics_are_means_over_the_queries_with_a_relevant_passage_whatever_the_order_of_rows():
    corpus = corpus_of((0, 5, 1), (1, 5, 0), (0, 6, 0), (2, 7, 0), (2, 8, 2), (1, 6, 0), (2, 2, -1))
    scores = np.array([0.1, 0.9, 0.3, 0.2, 0.8, 0.7, 1.0])  # the query itself, relevance -1, is no candidate
    scorer = scorer_of(corpus, "validation")
    assert scorer.value("mrr", scores) == pytest.approx((1 / 2 + 1) / 2)
    assert scorer.resampled("mrr", [scores]).n == scorer.size == 2
    assert scorer.ranks(scores).tolist() == [2, 1, 1, 2, 1, 2, 3]


def test_a_split_without_a_choice_has_no_figures_and_cannot_select():
    corpus = corpus_of((0, 5, 1), (1, 6, 1), (2, 7, 0))
    scorer = scorer_of(corpus, "validation")
    assert np.isnan(scorer.value("map", np.zeros(3)))
    assert scorer.resampled("map", [np.zeros(3)]) is None
    with pytest.raises(CorpusError, match="toy: no validation query has both a relevant passage and another one, so"):
        task_of(corpus)


def test_the_head_is_a_cosine():
    with pytest.raises(SpecError, match=r"probe\.head = 'regression' does not fit ranking; use one of: cosine\."):
        TASK.head(ProbeSpec(head="regression"), 2)


def table(corpus: Corpus, *scores: np.ndarray) -> pd.DataFrame:
    """The prediction table of some seeds."""
    scorer = scorer_of(corpus, "validation")
    frames = [
        pd.DataFrame(TASK.prediction_columns(values, scorer, None)).assign(seed=seed)
        for seed, values in enumerate(scores)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("most", [10**5, 10])
def test_two_tables_are_compared_by_query_as_the_scorer_would_though_they_show_a_part(most, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_TABLE_ROWS", most)
    corpus = ranked(inputs(texts=400), candidates=19)
    scorer, rng = scorer_of(corpus, "validation"), np.random.default_rng(0)
    targets = scorer.rows.targets
    base, other = ([targets * by + rng.normal(size=len(targets)) for _ in range(2)] for by in (0.5, 2.0))
    tables = table(corpus, *base), table(corpus, *other)
    assert (len(tables[0]) < 2 * len(targets)) == (most == 10)
    for metric in TASK.metrics:
        first, second = TASK.paired(*tables, metric)
        expected = [scorer.resampled(metric, seeds) for seeds in (base, other)]
        assert first.value == pytest.approx(expected[0].value)
        assert second.n == expected[1].n == len(np.unique(scorer.queries[targets > 0]))
    assert paired_difference(*TASK.paired(*tables, "map")).value > 0
    fewer = tables[1][tables[1]["query"] != tables[1]["query"].iloc[0]]
    assert TASK.paired(tables[0], fewer, "map") == "not the same rows"


def test_the_examples_are_the_queries_whose_relevant_passages_come_last():
    corpus = corpus_of((0, 5, 1), (0, 6, 0), (1, 7, 1), (1, 8, 0), (1, 9, 0), (2, 5, 0), (2, 9, 1))
    (grid,) = TASK.examples(table(corpus, np.array([0.1, 0.9, 0.1, 0.2, 0.3, 0.1, 0.9])))
    assert grid.rows == [["text 1", "text 9", "text 7", "3"], ["text 0", "text 6", "text 5", "2"]]
    assert "is relevant" in TASK.examples(table(corpus, corpus.split("train").targets))[0].caption


def test_new_pairs_are_ranked_among_those_of_their_query():
    items = [("q", "a"), ("r", "a"), ("q", "b"), ("q", "c"), ("q", "a")]
    answers = [{"score": score} for score in (0.5, 0.1, 0.9, 0.2, 0.5)]
    assert [answer["rank"] for answer in TASK.compared(items, answers)] == [2, 1, 1, 4, 2]


def test_groups_are_by_question_word_where_there_are_several():
    corpus = corpus_of((0, 5, 1), (0, 6, 0), (1, 7, 1), (1, 8, 0))
    scores = np.array([0.9, 0.1, 0.1, 0.9])
    assert not list(TASK.breakdown(scorer_of(corpus, "validation"), [scores]))
    asked = replace(corpus, texts=("Where is it?", "Who is it?", *corpus.texts[2:]))
    found = {row.group: row.measured.value for row in TASK.breakdown(scorer_of(asked, "validation"), [scores])
             if row.metric == "precision@1"}  # fmt: skip
    assert found == {"where": 1, "who": 0}
