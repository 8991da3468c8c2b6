"""Answers of the task: their columns, and questions that have none."""

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.records import CorpusError
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.text import Segments
from permafrost.probes.metrics.calibration import NullThreshold
from permafrost.probes.tasks.base import OutputSpace
from permafrost.probes.tasks.registry import TASKS


def test_an_answer_of_white_space_alone_has_no_place_in_the_table():
    rows = Rows(np.array([[0]]), np.zeros(1), Spans(np.array([[0, 2]]), np.zeros(1, np.int64), np.array([0, 1])))
    corpus = Corpus(name="toy", texts=(Segments("q?", "ab \n cd"),), splits={"test": rows}, kind="answers")
    said = np.array([[2, 5, 0.5]], np.float32)
    columns = TASKS["answers"].prediction_columns(said, TASKS["answers"].scorer(corpus, "test"), None)
    assert (columns["answer"], columns["start"].tolist(), columns["end"].tolist()) == ([""], [0], [0])


GOLDS = (["cat"], [], ["dog", "big dog"], [], ["the"])
TOLD = [(0, 3, 0.5, -1.0), (4, 7, 0.4, -2.0), (8, 15, 0.4, -0.1), (0, 3, 0.1, -0.2), (0, 3, 0.1, -0.5)]
"""Best span, its probability and the smallest log-probability of no answer, of a question each."""


def unanswerable(name: str = "validation") -> Corpus:
    context = "cat the big dog"
    spans = [(context.index(gold), context.index(gold) + len(gold)) for golds in GOLDS for gold in golds]
    offsets = offsets_from_lengths(np.array([len(golds) for golds in GOLDS]))
    marks = Spans(np.array(spans), np.zeros(len(spans), np.int64), offsets)
    texts = tuple(Segments(f"q{number}?", context) for number in range(len(GOLDS)))
    rows = Rows(np.arange(len(GOLDS))[:, None], np.zeros(len(GOLDS)), marks)
    return Corpus(name="toy", texts=texts, splits={"train": rows, name: rows}, kind="answers")


def test_a_question_without_an_answer_is_right_if_nothing_is_said():
    scorer = TASKS["answers"].scorer(unanswerable(), "validation")
    told = np.array(TOLD, np.float32)
    decoded = scorer.decode(told, NullThreshold(np.zeros(1)))  # null scores of -0.3, -1.1, 0.8, 2.1 and 1.8
    assert decoded.tolist() == [[0, 3], [4, 7], [0, 0], [0, 0], [0, 0]]
    exact, ones = scorer.counts("exact_match", decoded)
    assert (exact.tolist(), ones.tolist()) == ([1, 1, 0, 1, 1], [1] * 5)  # "the" has no words, as a span and as gold
    groups = {(row.group, row.metric): row.measured for row in TASKS["answers"].breakdown(scorer, [decoded])}
    assert groups["has answer", "exact_match"].value == pytest.approx(2 / 3)
    assert (groups["no answer", "f1"].value, groups["no answer", "f1"].n) == (1, 2)


def test_the_threshold_is_that_with_the_highest_f1_on_the_split_that_selects():
    told = np.array(TOLD, np.float32)
    chosen = TASKS["answers"].calibrate(told, unanswerable(), 0.0)
    assert isinstance(chosen, NullThreshold)
    scorer = TASKS["answers"].scorer(unanswerable(), "validation")
    best = scorer.value("f1", scorer.decode(told, chosen))
    for threshold in np.linspace(-3, 3, 61):
        assert scorer.value("f1", scorer.decode(told, NullThreshold(np.array([threshold])))) <= best
    assert best == pytest.approx((1 + 1 + 1 + 1 + 1) / 5)
    assert scorer.value("f1", scorer.decode(told)) == best  # as in training
    corpus = unanswerable()
    some = corpus.splits["train"].select(np.array([0, 2]))
    answered = Corpus(name="toy", texts=corpus.texts, splits={"train": some, "validation": some}, kind="answers")
    assert TASKS["answers"].calibrate(told[[0, 2]], answered, 0.0) is None


def test_what_is_predicted_says_whether_there_is_an_answer():
    corpus, told = unanswerable("test"), np.array(TOLD, np.float32)
    scorer, limit = TASKS["answers"].scorer(corpus, "test"), NullThreshold(np.array([0.0]))
    columns = TASKS["answers"].prediction_columns(told, scorer, limit)
    assert columns["target"] == ["cat", "", "dog", "", "the"]
    assert columns["answer"] == ["cat", "the", "", "", ""]
    assert columns["has_answer"].tolist() == [True, True, False, False, False]
    assert columns["score"].tolist() == pytest.approx([0.5, 0.4, np.exp(-0.1), np.exp(-0.2), np.exp(-0.5)])
    assert columns["null_score"].tolist() == pytest.approx([p - np.log(q) for _, _, q, p in TOLD])
    space = OutputSpace(labels=(), score_range=None, calibration=limit)
    items = [(text.first, text.second) for text in corpus.texts]
    said = [one["answer"] for one in TASKS["answers"].answers(space, items, lambda *_: told)]
    for name in ("start", "end", "score", "has_answer", "null_score"):
        assert [one[name] for one in said] == columns[name].tolist()
    assert [one["text"] for one in said] == columns["answer"]
    always = OutputSpace(labels=(), score_range=None, calibration=None)
    (first, *_) = TASKS["answers"].answers(always, items, lambda *_: told)
    assert set(first["answer"]) == {"text", "start", "end", "score"}


def test_a_corpus_without_any_answer_is_refused():
    corpus = unanswerable()
    none = corpus.splits["train"].select(np.array([1, 3]))
    with pytest.raises(CorpusError, match=r"none of its 2 training questions has an answer; set corpus\.columns to"):
        TASKS["answers"].check(Corpus(name="toy", texts=corpus.texts, splits={"train": none}, kind="answers"))
