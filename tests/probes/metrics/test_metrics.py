"""Metrics against scipy and scikit-learn, and their bootstrap intervals."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from permafrost.probes.metrics.bootstrap import (
    CONFIDENCE,
    bootstrap_metric,
    bootstrap_ratio,
    correlation_p_value,
    estimate_metric,
    paired_difference,
)
from permafrost.probes.metrics.metrics import CORRELATIONS, accuracy, f1, macro_f1, mean_absolute_error, of_resamples
from permafrost.probes.tasks.classes import Classification
from permafrost.probes.tasks.scores import Similarity

REFERENCES = {
    "pearson": lambda prediction, target: stats.pearsonr(prediction, target).statistic,
    "spearman": lambda prediction, target: stats.spearmanr(prediction, target).statistic,
    "mae": lambda prediction, target: sklearn.mean_absolute_error(target, prediction),
    "accuracy": lambda prediction, target: sklearn.accuracy_score(target, prediction),
    "macro_f1": lambda prediction, target: sklearn.f1_score(target, prediction, average="macro", zero_division=0),
    "f1": lambda prediction, target: sklearn.f1_score(target, prediction, pos_label=1, zero_division=0),
}
METRICS = Similarity.metrics | Classification.metrics | {"mae": mean_absolute_error}
CORRELATED = [name for name, metric in METRICS.items() if metric in CORRELATIONS]


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions that are partly right, and targets; classes for the metrics of classes, scores with ties else."""
    rng = np.random.default_rng(seed)
    if classes := {"accuracy": 4, "macro_f1": 4, "f1": 2}.get(name):
        target = rng.integers(0, classes, shape)
        return np.where(rng.random(shape) < 0.6, target, rng.integers(0, classes, shape)), target
    target = np.round(rng.random(shape), 1)
    return target + rng.normal(size=shape), target


@pytest.mark.parametrize("name", METRICS)  # a new metric without a reference fails here
def test_a_metric_equals_its_reference(name):
    prediction, target = drawn(name, (50,))
    assert METRICS[name](prediction, target) == pytest.approx(REFERENCES[name](prediction, target), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_batch_of_rows_equals_row_by_row(name):
    prediction, target = drawn(name, (5, 30))
    alone = [METRICS[name](*row) for row in zip(prediction, target, strict=True)]
    np.testing.assert_allclose(METRICS[name](prediction, target), alone, rtol=1e-12)


@pytest.mark.parametrize("name", CORRELATED)
@pytest.mark.parametrize("scale", [1.0, 1e9])
def test_a_correlation_of_resamples_is_that_of_their_rows_and_nan_where_one_side_is_constant(name, scale):
    prediction, target = drawn(name, (40,))
    prediction[:30], prediction[-1] = np.round(prediction[:30]), scale  # ties, and a value far from the others
    rows = np.random.default_rng(1).integers(0, 40, (200, 40))
    rows[0], rows[1], rows[2] = 7, np.where(target == target[0], np.arange(40), 0), np.arange(40)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        expected = METRICS[name](prediction[rows], target[rows])
    expected[[0, 1]] = np.nan
    np.testing.assert_allclose(of_resamples(METRICS[name], prediction, target, rows), expected, rtol=1e-9, atol=1e-12)


def test_a_class_that_a_row_lacks_does_not_count_in_its_macro_f1():
    prediction, target = np.array([[0, 0, 1, 1], [2, 2, 2, 3]]), np.array([[0, 1, 1, 1], [2, 2, 2, 2]])
    expected = [REFERENCES["macro_f1"](*row) for row in zip(prediction, target, strict=True)]
    np.testing.assert_allclose(METRICS["macro_f1"](prediction, target), expected)
    assert expected[1] == pytest.approx((6 / 7 + 0) / 2)  # class 3 was said and is wrong; classes 0 and 1 are nowhere


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_brackets_the_value_and_is_the_same_twice(name):
    prediction, target = drawn(name, (100,))
    measured = estimate_metric(METRICS[name], [prediction], target)
    assert measured.low < measured.value < measured.high
    assert measured.n == 100
    assert estimate_metric(METRICS[name], [prediction], target) == measured


@pytest.mark.parametrize("name", ["pearson", "accuracy"])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(name):
    truth = {"pearson": 1 / np.sqrt(1 + 12), "accuracy": 0.6 + 0.4 / 4}[name]  # uniform: variance 1/12, noise: 1
    intervals = [estimate_metric(METRICS[name], [p], t) for p, t in (drawn(name, (80,), seed) for seed in range(100))]
    covered = np.mean([one.low <= truth <= one.high for one in intervals])
    assert CONFIDENCE - 0.08 <= covered <= 1  # a standard error of 0.022, and percentiles run a little narrow


def test_several_seeds_are_measured_by_their_mean_over_the_same_rows():
    (first, target), (second, _) = drawn("mae", (40,), 0), drawn("mae", (40,), 1)
    both = estimate_metric(METRICS["mae"], [first, second], target)
    assert both.value == pytest.approx(
        (estimate_metric(METRICS["mae"], [first], target).value + np.abs(second - target).mean()) / 2
    )
    assert estimate_metric(METRICS["mae"], [first, first], target) == estimate_metric(METRICS["mae"], [first], target)


@pytest.mark.parametrize("name", CORRELATED)
def test_a_correlation_of_constants_does_not_exist(name):
    constant, varied = np.full(10, 0.3, np.float32), np.arange(10.0)
    for prediction, target in [(constant, varied), (varied, constant)]:
        assert estimate_metric(METRICS[name], [prediction], target) is None
        assert correlation_p_value(METRICS[name], prediction, target) is None


@pytest.mark.parametrize("name", METRICS)
def test_one_row_is_too_few(name):
    prediction, target = drawn(name, (1,))
    assert estimate_metric(METRICS[name], [prediction], target) is None


@pytest.mark.parametrize("name", CORRELATED)
def test_few_rows_with_ties_have_an_interval_of_finite_numbers(name):
    measured = estimate_metric(METRICS[name], [np.array([0.1, 0.1, 0.9])], np.array([0.0, 1.0, 1.0]))
    assert -1 <= measured.low <= measured.value <= measured.high <= 1


@pytest.mark.parametrize("name", CORRELATED)
def test_the_p_value_equals_that_of_scipy(name):
    prediction, target = drawn(name, (30,))
    reference = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name](prediction, target).pvalue
    assert correlation_p_value(METRICS[name], prediction, target) == pytest.approx(reference, rel=1e-12)
    assert correlation_p_value(METRICS[name], prediction[:2], target[:2]) is None


def paired_of(name, first, second, target):
    measured = [bootstrap_metric(METRICS[name], side, target) for side in (first, second)]
    return paired_difference(*measured) if all(measured) else None


@pytest.mark.parametrize("name", METRICS)
def test_a_paired_bootstrap_finds_what_is_there_and_nothing_else(name):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 200).astype(float)
    good, bad = (np.where(rng.random(200) < right, target, rng.integers(0, 3, 200)) for right in (0.9, 0.4))
    found = paired_of(name, [bad], [good, good], target)
    assert found.value == pytest.approx(METRICS[name](good, target) - METRICS[name](bad, target))
    assert found.low < found.value < found.high
    assert found.p < 0.01
    same = paired_of(name, [good], [good], target)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert paired_of(name, [bad], [good], target) == paired_of(name, [bad], [good], target)


def test_a_paired_bootstrap_of_equals_keeps_its_level():
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(60):
        target = rng.normal(size=80)
        found = paired_of("pearson", [target + rng.normal(size=80)], [target + rng.normal(size=80)], target)
        small += found.p < 0.05
    assert small <= 8  # 3 expected; 9 or more in one of 300 such tests


def test_no_paired_test_of_constants():
    assert paired_of("pearson", [np.ones(9)], [np.arange(9.0)], np.arange(9.0)) is None


@pytest.mark.parametrize(("prediction", "target"), [([0, 0], [0, 0]), ([0, 1], [1, 0]), ([1, 1], [0, 1]), ([1], [1])])
def test_the_f1_of_two_classes_is_that_of_the_second_and_nought_where_it_is_nowhere(prediction, target):
    found = METRICS["f1"](np.array(prediction), np.array(target))
    assert found == pytest.approx(sklearn.f1_score(target, prediction, pos_label=1, zero_division=0))


def ratio_of(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counted, and of how much; of some rows there is nothing to count."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 5, rows).astype(float)
    return np.floor(whole * rng.random(rows)), whole


def test_a_ratio_is_of_sums_over_resampled_rows_drawn_as_for_every_metric(monkeypatch):
    monkeypatch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 100)
    counts = [ratio_of(30, seed) for seed in (0, 1)]
    found = bootstrap_ratio(counts)
    assert found.value == pytest.approx(np.mean([part.sum() / whole.sum() for part, whole in counts]))
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.integers(0, 30, (50, 30)) for _ in range(2)])
    slow = [np.mean([part[some].sum() / whole[some].sum() for part, whole in counts]) for some in rows]
    np.testing.assert_allclose(found.draws, slow)
    assert found.estimate().low <= found.value <= found.estimate().high
    assert found.n == 30


def test_an_array_metric_and_a_ratio_draw_the_same_rows():
    prediction, target = drawn("accuracy", (60,))
    as_ratio = bootstrap_ratio([((prediction == target).astype(float), np.ones(60))])
    as_array = bootstrap_metric(METRICS["accuracy"], [prediction], target)
    np.testing.assert_allclose(as_ratio.draws, as_array.draws)
    assert as_ratio.value == pytest.approx(as_array.value)
    same = paired_difference(as_array, as_ratio)
    assert same.value == pytest.approx(0)


def test_a_ratio_of_nothing_is_nought_and_one_row_is_too_few():
    nothing = bootstrap_ratio([(np.zeros(5), np.zeros(5))])
    assert nothing.value == 0
    assert (nothing.draws == 0).all()
    assert bootstrap_ratio([(np.ones(1), np.ones(1))]) is None


@settings(deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40), seed=st.integers(0, 99))
@pytest.mark.parametrize("metric", [accuracy, f1, macro_f1])
def test_metrics_of_classes_on_counted_rows_are_those_of_the_rows(metric, rows, seed):
    prediction, target = np.array(rows).T
    drawn = np.random.default_rng(seed).integers(0, len(rows), (7, len(rows)))
    assert of_resamples(metric, prediction, target, drawn).tolist() == metric(prediction[drawn], target[drawn]).tolist()
