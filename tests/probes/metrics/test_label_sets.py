"""Metrics of label sets against scikit-learn, their resamples against rows drawn one by one, and thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn

from permafrost.probes.metrics import label_sets
from permafrost.probes.metrics.bootstrap import bootstrap_metric, estimate_metric, paired_difference
from permafrost.probes.metrics.calibration import best_thresholds
from permafrost.probes.metrics.metrics import of_resamples


def f1_of(average: str):
    """scikit-learn's F1 over the labels that occur."""

    def f1(prediction, target):
        occurs = (prediction > 0).any(0) | (target > 0).any(0)
        return sklearn.f1_score(target[:, occurs], prediction[:, occurs], average=average, zero_division=0)

    return f1


def mean_average_precision(scores, target):
    return np.mean(
        [
            sklearn.average_precision_score(true, score)
            for true, score in zip(target.T, scores.T, strict=True)
            if true.any()
        ]
    )


LABEL_METRICS = {
    "micro_f1": label_sets.micro_f1,
    "macro_f1": label_sets.macro_f1,
    "mean_average_precision": label_sets.mean_average_precision,
    "subset_accuracy": label_sets.subset_accuracy,
}
REFERENCES = {
    "micro_f1": f1_of("micro"),
    "macro_f1": f1_of("macro"),
    "mean_average_precision": mean_average_precision,
    "subset_accuracy": lambda prediction, target: sklearn.accuracy_score(target, prediction),
}


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions or scores with ties, partly right, and targets; the last label is in no row."""
    rng = np.random.default_rng(seed)
    target = (rng.random(shape) < np.linspace(0.5, 0.0, shape[-1])).astype(float)
    scores = np.round(0.4 * target + 0.6 * rng.random(shape), 1)
    return (scores if name == "mean_average_precision" else (scores >= 0.5).astype(float)), target


@pytest.mark.parametrize("name", LABEL_METRICS)  # a new metric without a reference fails here
@pytest.mark.parametrize("seed", range(5))
def test_a_metric_equals_its_reference(name, seed):
    prediction, target = drawn(name, (60, 6), seed)
    assert LABEL_METRICS[name](prediction, target) == pytest.approx(REFERENCES[name](prediction, target), rel=1e-12)


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_a_batch_equals_one_by_one(name):
    prediction, target = drawn(name, (2, 3, 30, 6))
    found = LABEL_METRICS[name](prediction, target)
    assert found.shape == (2, 3)
    alone = [LABEL_METRICS[name](prediction[at], target[at]) for at in np.ndindex(2, 3)]
    np.testing.assert_allclose(found.ravel(), alone, rtol=1e-12)


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_counts_give_what_the_drawn_rows_give(name):
    prediction, target = drawn(name, (40, 6))
    rows = np.random.default_rng(1).integers(0, 40, (7, 40))
    slow = [REFERENCES[name](prediction[some], target[some]) for some in rows]
    np.testing.assert_allclose(of_resamples(LABEL_METRICS[name], prediction, target, rows), slow, rtol=1e-12)


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_the_bootstrap_draws_the_rows_that_it_draws_for_every_metric(name, monkeypatch):
    monkeypatch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 100)
    prediction, target = drawn(name, (50, 6))
    found = bootstrap_metric(LABEL_METRICS[name], [prediction, prediction[:, ::-1]], target)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.integers(0, 50, (50, 50)) for _ in range(2)])
    slow = [
        np.mean([REFERENCES[name](scores[some], target[some]) for scores in (prediction, prediction[:, ::-1])])
        for some in rows
    ]
    np.testing.assert_allclose(found.draws, slow, rtol=1e-12)
    assert found.estimate().low < found.value < found.estimate().high
    assert paired_difference(found, found).p == 1


@pytest.mark.parametrize("name", LABEL_METRICS)
def test_rows_without_any_label_have_no_average_precision_and_no_f1(name):
    nothing = np.zeros((10, 3))
    measured = estimate_metric(LABEL_METRICS[name], [nothing], nothing)
    assert (measured and measured.value) == {"mean_average_precision": None, "subset_accuracy": 1}.get(name, 0)
    assert estimate_metric(LABEL_METRICS[name], [nothing[:1]], nothing[:1]) is None


def test_a_label_that_is_nowhere_does_not_count_in_macro_f1():
    prediction, target = np.array([[1, 0, 0], [1, 1, 0]]), np.array([[1, 0, 0], [0, 0, 0]])
    assert LABEL_METRICS["macro_f1"](prediction, target) == pytest.approx((2 / 3 + 0) / 2)
    assert LABEL_METRICS["micro_f1"](prediction, target) == pytest.approx(2 / 4)


def f1(scores, target, threshold):
    said, true = scores >= threshold, target == 1
    return 2 * (said & true).sum() / (said.sum() + true.sum())


def naive_threshold(scores: np.ndarray, target: np.ndarray) -> float:
    if not target.any():
        return 0.5
    return min([*scores, 0.5], key=lambda one: (-f1(scores, target, one), abs(one - 0.5), one))


few_values = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.625, 0.75, 1.0])  # exact, so that equal distances are equal


@given(
    scores=arrays.arrays(np.float64, (9, 3), elements=few_values),
    target=arrays.arrays(np.int64, (9, 3), elements=st.integers(0, 1)),
)
def test_thresholds_are_those_of_a_search_over_every_score(scores, target):
    naive = [naive_threshold(*column) for column in zip(scores.T, target.T, strict=True)]
    assert best_thresholds(scores, target).tolist() == naive
    assert best_thresholds(scores.astype(np.float32), target).tolist() == naive


def test_no_other_threshold_has_a_higher_f1():
    scores, target = drawn("mean_average_precision", (200, 6))
    scores = scores + 1e-3 * np.random.default_rng(0).random(scores.shape)
    for label, threshold in enumerate(best_thresholds(scores, target)[:-1]):
        best = f1(scores[:, label], target[:, label], threshold)
        assert best >= max(f1(scores[:, label], target[:, label], other) for other in np.linspace(0, 1.1, 500))


def test_separable_labels_and_labels_without_rows_keep_a_threshold_of_one_half():
    target = np.array([[1, 0], [0, 0], [1, 0]])
    assert best_thresholds(np.where(target, 0.9, 0.2), target).tolist() == [0.5, 0.5]
