"""Scorers: a figure is that of its answers, within its interval, over rows drawn the same for all of a split."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import f1_score

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.text import Segments
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.metrics.squad import answer_text, exact_match, token_f1
from permafrost.probes.tasks.answers import AnswerScorer
from permafrost.probes.tasks.classes import ClassScorer
from permafrost.probes.tasks.labels import LabelScorer
from permafrost.probes.tasks.ranking import RankScorer
from permafrost.probes.tasks.registry import TASKS, task_of
from permafrost.probes.tasks.scores import ScoreScorer
from permafrost.probes.tasks.tagging import TagScorer
from tests.support.synthetic import TAGS, answered, classed, drawn_tags, inputs, labelled, scored, tagged
from tests.support.trainings import scorer_of

Answers = Callable[[np.random.Generator], np.ndarray]


def scores() -> tuple[Corpus, Answers]:
    corpus = scored(inputs(texts=120))
    targets = corpus.split("validation").targets
    return corpus, lambda rng: targets + 0.2 * rng.normal(size=len(targets))


def classes() -> tuple[Corpus, Answers]:
    corpus = classed(inputs(texts=120))
    targets = corpus.split("validation").targets
    return corpus, lambda rng: np.where(rng.random(len(targets)) < 0.6, targets, rng.integers(0, 3, len(targets)))


def label_sets() -> tuple[Corpus, Answers]:
    """Margins: probabilities less a threshold of one half."""
    corpus = labelled(inputs(texts=120))
    targets = corpus.split("validation").targets
    return corpus, lambda rng: 0.3 * targets - 0.15 + rng.uniform(-0.35, 0.35, targets.shape)


def tags() -> tuple[Corpus, Answers]:
    _, corpus = tagged(60)
    marks = corpus.split("validation").spans
    lengths = np.diff(marks.offsets)

    def said(rng: np.random.Generator) -> np.ndarray:
        kept = np.repeat(rng.random(len(lengths)) < 0.6, lengths)
        return np.where(kept, marks.codes, np.concatenate([drawn_tags(rng, n) for n in lengths]))

    return corpus, said


def answers() -> tuple[Corpus, Answers]:
    _, corpus = answered(60)
    rows = corpus.split("validation")
    first = rows.spans.characters[rows.spans.offsets[:-1]]
    return corpus, lambda rng: first + rng.integers(0, 8, (len(rows), 1)) * rng.integers(0, 2, (len(rows), 1))


EVERY = {"score": scores, "class": classes, "labels": label_sets, "tags": tags, "answers": answers}
FIGURES = [(kind, metric) for kind, make in EVERY.items() for metric in TASKS[kind].metric_names(make()[0])]


@pytest.mark.parametrize(("kind", "metric"), FIGURES)
def test_a_figure_is_the_same_with_its_interval_and_without(kind, metric):
    corpus, make = EVERY[kind]()
    scorer = scorer_of(corpus, "validation")
    some = [make(np.random.default_rng(seed)) for seed in range(2)]
    for one in some:
        found = scorer.resampled(metric, [one])
        assert found.value == pytest.approx(scorer.value(metric, one))
        measured = found.estimate()
        assert measured.low < measured.value < measured.high
        assert measured.n == len(corpus.split("validation"))
    both = scorer.resampled(metric, some)
    assert both.value == pytest.approx(np.mean([scorer.value(metric, one) for one in some]))
    apart = [scorer.resampled(metric, [one]).draws for one in some]
    np.testing.assert_allclose(both.draws, np.mean(apart, axis=0))  # the same rows are drawn for every seed


@pytest.mark.parametrize(("kind", "metric"), FIGURES)
def test_a_draw_is_the_figure_of_the_rows_that_are_drawn(kind, metric):
    corpus, make = EVERY[kind]()
    rows, said = corpus.split("validation"), make(np.random.default_rng(0))
    draws = scorer_of(corpus, "validation").resampled(metric, [said]).draws
    drawn = np.random.default_rng(0).integers(0, len(rows), (50, len(rows)))
    for number in (0, 17, 49):
        some = drawn[number]
        once = Corpus(
            name=corpus.name,
            texts=corpus.texts,
            splits={"test": rows.select(some)},
            labels=corpus.labels,
            kind=corpus.kind,
        )
        if kind == "tags":
            own = np.concatenate([said[rows.spans.offsets[row] : rows.spans.offsets[row + 1]] for row in some])
        else:
            own = said[some]
        assert draws[number] == pytest.approx(scorer_of(once, "test").value(metric, own)), number


def test_what_is_said_better_is_found_better_in_a_paired_comparison():
    corpus, make = tags()
    scorer = scorer_of(corpus, "validation")
    worse, right = make(np.random.default_rng(0)), corpus.split("validation").spans.codes
    for metric in TASKS["tags"].metrics:
        found = paired_difference(scorer.resampled(metric, [worse]), scorer.resampled(metric, [right]))
        assert found.value == pytest.approx(1 - scorer.value(metric, worse))
        assert found.p < 0.01


def test_every_kind_has_a_scorer_of_its_own():
    expected = {
        "score": ScoreScorer,
        "class": ClassScorer,
        "labels": LabelScorer,
        "tags": TagScorer,
        "answers": AnswerScorer,
        "rank": RankScorer,
    }
    assert expected.keys() == TASKS.keys()
    for kind, make in EVERY.items():
        corpus, _ = make()
        assert type(scorer_of(corpus, "validation")) is expected[kind]


def test_what_is_said_becomes_a_number_a_class_a_valid_tag_or_a_place():
    assert scorer_of(scores()[0], "train").decode(np.array([0.2, 0.4])).tolist() == [0.2, 0.4]
    assert scorer_of(classes()[0], "train").decode(np.array([[0.1, 0.3, 0.2], [2, 1, 0]])).tolist() == [1, 0]
    margins = scorer_of(label_sets()[0], "train").decode(np.array([[0.0, 3.0, -3.0]]))
    assert (margins >= 0).tolist() == [[True, True, False]]  # a probability of one half is enough
    marks = Spans(np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.array([0, 2]))
    corpus = Corpus(
        name="toy", texts=("a b",), splits={"test": Rows(np.array([[0]]), np.zeros(1), marks)}, labels=TAGS, kind="tags"
    )
    said = np.array([[0, 0, 9.0, 0, 0], [0, 0, 9.0, 0, 0]])
    assert scorer_of(corpus, "test").decode(said).tolist() == [1, 2]  # I-PER opens no entity
    scorer = scorer_of(answers()[0], "train")
    spans = scorer.rows.spans.characters[scorer.rows.spans.offsets[:-1]]
    said = np.column_stack([spans, np.ones(len(spans))])
    assert scorer.decode(said).tolist() == spans.tolist()
    assert not scorer.decode(np.full_like(said, -1)).any()


def test_the_f1_of_two_classes_is_that_of_the_second():
    rng = np.random.default_rng(0)
    target = (rng.random(200) < 0.1).astype(np.int64)
    rows = Rows(np.arange(200)[:, None], target)
    splits = {"train": rows, "validation": rows}
    corpus = Corpus(name="toy", texts=tuple(map(str, range(200))), splits=splits, labels=("no", "yes"), kind="class")
    assert "f1" in task_of(corpus).metric_names(corpus)
    said = np.where(rng.random(200) < 0.8, target, 1 - target)
    assert scorer_of(corpus, "train").value("f1", said) == pytest.approx(f1_score(target, said))


def test_constant_scores_have_no_correlation():
    corpus, _ = scores()
    scorer = scorer_of(corpus, "validation")
    constant = np.full(len(scorer.rows), 0.5)
    assert np.isnan(scorer.value("spearman", constant))
    assert scorer.resampled("spearman", [constant]) is None


def test_an_answer_counts_by_the_best_of_those_that_are_acceptable():
    context = "The big red dog sleeps near the stove."
    texts = (Segments("who sleeps?", context), Segments("unused", context), Segments("where?", context))
    golds = [["red dog", "The big red dog"], ["near the stove"]]
    spans = np.array([(context.index(gold), context.index(gold) + len(gold)) for some in golds for gold in some])
    marks = Spans(spans, np.zeros(3, np.int64), np.array([0, 2, 3]))
    rows = Rows(np.array([[0], [2]]), np.zeros(2), marks)
    scorer = scorer_of(Corpus(name="toy", texts=texts, splits={"test": rows}, kind="answers"), "test")
    assert scorer.golds == golds
    for said in (["big red dog", "stove"], ["The big red", "near the stov"], ["sleeps", ""]):
        places = np.array([(context.index(one), context.index(one) + len(one)) if one else (-1, -1) for one in said])
        shown = [answer_text(context, place) for place in places]
        for metric, judge in (("f1", token_f1), ("exact_match", exact_match)):
            slow = np.mean([max(judge(one, gold) for gold in own) for one, own in zip(shown, golds, strict=True)])
            assert scorer.value(metric, places) == pytest.approx(slow)
    assert scorer.value("exact_match", np.array([spans[1], spans[2]])) == 1


def test_answers_in_chinese_are_scored_by_their_characters():
    context = "然后NBA的野马队赢了比赛，他们很高兴。"
    first = context.index("野马队")
    marks = Spans(np.array([(first, first + 3)]), np.zeros(1, np.int64), np.array([0, 1]))
    rows = Rows(np.array([[0]]), np.zeros(1), marks)
    scorer = scorer_of(
        Corpus(name="toy", texts=(Segments("谁赢了？", context),), splits={"test": rows}, kind="answers"), "test"
    )
    for start, end, f1 in ((first, first + 3, 1), (first - 1, first + 3, 6 / 7), (first + 3, first + 5, 0), (3, 6, 0)):
        said = scorer.decode(np.array([[start, end, 0.5]]))
        assert scorer.value("f1", said) == pytest.approx(f1)
        assert scorer.value("exact_match", said) == (f1 == 1)
