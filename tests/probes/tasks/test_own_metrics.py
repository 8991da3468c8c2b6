"""Metrics from outside: of every kind of target they are measured as ours are."""

import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Metric
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.metrics.squad import exact_match
from permafrost.probes.tasks.registry import TASKS, make_problem
from tests.probes.tasks.test_scorers import EVERY
from tests.support.synthetic import inputs, ranked

OURS = {
    "score": ("pearson", lambda prediction, target: stats.pearsonr(prediction, target).statistic),
    "class": ("accuracy", lambda prediction, target: np.mean(prediction == target)),
    "labels": ("subset_accuracy", lambda prediction, target: float((prediction == target).all(1).mean())),
    "tags": ("accuracy", lambda prediction, target: np.mean([a == b for a, b in zip(prediction, target, strict=True)])),
    "answers": ("exact_match", exact_match),
    "rank": ("mrr", lambda ranks, relevances: 1 / ranks.min()),
}
"""Kind -> one of our metrics, and how someone else would write it."""


def rankings():
    corpus = ranked(inputs(texts=120))
    rows = len(corpus.split("validation"))
    return corpus, lambda rng: rng.random(rows)


@pytest.mark.parametrize("kind", OURS)
def test_a_metric_written_by_others_is_ours(kind, registered):
    ours, function = OURS[kind]
    registered("theirs", Metric(function, targets=[kind]))
    corpus, answers = rankings() if kind == "rank" else EVERY[kind]()
    scorer = TASKS[kind].scorer(corpus, "validation")
    decoded = [answers(np.random.default_rng(seed)) for seed in (0, 1)]
    if kind == "tags":  # a mean over sentences, where ours is over words: compared on each sentence alone
        counts, ones = scorer.counts("theirs", decoded[0])
        correct, words = scorer.counts(ours, decoded[0])
        np.testing.assert_allclose(counts, correct / words)
        assert set(ones) == {1.0}
        return
    assert scorer.value("theirs", decoded[0]) == pytest.approx(scorer.value(ours, decoded[0]), abs=1e-9)
    first, second = (scorer.resampled(name, decoded) for name in (ours, "theirs"))
    np.testing.assert_allclose(second.draws, first.draws, atol=1e-9)


def test_it_is_measured_beside_ours_and_may_select(registered):
    registered("mcc", Metric(lambda prediction, target: 0.5, targets=["class"]))
    corpus, _ = EVERY["class"]()
    problem = make_problem(Recipe(train=TrainSpec(extra_metrics=("mcc",))), corpus)
    assert problem.metric == "accuracy"
    assert problem.metrics == ("accuracy", "macro_f1", "mcc")
    problem = make_problem(Recipe(train=TrainSpec(metric="mcc")), corpus)
    assert (problem.metric, problem.metrics[-1]) == ("mcc", "mcc")
    assert TASKS["class"].has_metric("mcc")
    assert not TASKS["score"].has_metric("mcc")
    with pytest.raises(
        SpecError,
        match=r"train.metric = 'mcc' does not fit similarity \(it is for class\); use one of: pearson, spearman",
    ):
        make_problem(Recipe(train=TrainSpec(metric="mcc")), EVERY["score"]()[0])
    with pytest.raises(SpecError, match=r"train.extra_metrics = 'mc' does not fit classification"):
        make_problem(Recipe(train=TrainSpec(extra_metrics=("mc",))), corpus)


def test_what_is_no_number_is_refused_and_a_refused_resample_is_undefined(registered):
    corpus, answers = EVERY["class"]()
    scorer, decoded = TASKS["class"].scorer(corpus, "validation"), [answers(np.random.default_rng(0))]
    for value in ([0.5, 0.5], "high", None):
        registered("odd", Metric(lambda prediction, target, value=value: value, targets=["class"]))
        with pytest.raises(PluginError, match="the metric 'odd' must return one number, got"):
            scorer.value("odd", decoded[0])
    registered("odd", Metric(lambda prediction, target: 1 // 0, targets=["class"]))
    with pytest.raises(PluginError, match=r"the metric 'odd' fails; let it return nan .*ZeroDivisionError.*test_own"):
        scorer.value("odd", decoded[0])
    whole = scorer.rows.targets

    def of_the_whole_alone(prediction, target):
        if not np.array_equal(target, whole):
            warnings.warn("undefined", stacklevel=1)
            raise ValueError("no")
        return 0.5

    registered("odd", Metric(of_the_whole_alone, targets=["class"]))
    resampled = scorer.resampled("odd", decoded)
    assert (resampled.value, resampled.estimate().low) == (0.5, None)


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5), 0.5])
def test_a_number_may_be_of_numpy_or_torch(value, registered):
    registered("half", Metric(lambda prediction, target: value, targets=["class"]))
    corpus, answers = EVERY["class"]()
    assert TASKS["class"].scorer(corpus, "validation").value("half", answers(np.random.default_rng(0))) == 0.5


def test_a_metric_that_sorts_in_place_changes_no_other(registered):
    def sorting(prediction, target):
        prediction.sort()
        target.sort()
        return stats.pearsonr(prediction, target).statistic

    registered("sorting", Metric(sorting, targets=["score"]))
    corpus, answers = EVERY["score"]()
    scorer, decoded = TASKS["score"].scorer(corpus, "validation"), answers(np.random.default_rng(0))
    before = scorer.value("pearson", decoded)
    assert scorer.value("sorting", decoded) != before
    assert scorer.value("pearson", decoded) == before
