"""Temperature, log loss and calibration error, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from permafrost.probes.metrics.bootstrap import bootstrap_centred, bootstrap_metric
from permafrost.probes.metrics.probabilities import (
    BINS,
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    reliability,
    row_losses,
)


def drawn(rows, classes=4, scale=1.0, seed=0):
    """Logits, times ``scale``, and classes drawn from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(rows, classes))
    odds = np.exp(log_probabilities(logits))
    target = np.array([rng.choice(classes, p=row) for row in odds])
    return (scale * logits).astype(np.float32), target


@pytest.mark.parametrize("scale", [0.4, 2.5])
def test_the_temperature_undoes_a_scale_of_the_logits(scale):
    logits, target = drawn(4000, scale=scale)
    temperature = fit_temperature(logits, target)
    assert temperature == pytest.approx(scale, rel=0.1)
    other, unseen = drawn(4000, scale=scale, seed=1)
    assert row_losses(other, unseen, temperature).mean() < row_losses(other, unseen).mean()
    assert (log_probabilities(other, temperature).argsort(1) == other.argsort(1)).all()


def test_the_temperature_is_one_if_it_would_lower_the_log_loss_by_chance_alone():
    assert fit_temperature(*drawn(2000)) == 1.0
    assert fit_temperature(*drawn(1)) == 1.0


UNFIT = {
    "infinite": (np.array([[np.inf, 0.0], [0.0, 1.0]]), np.array([0, 1])),
    "minus infinite": (np.array([[-np.inf, 0.0], [0.0, 1.0]]), np.array([1, 1])),
    "not a number": (np.array([[np.nan, 0.0], [0.0, 1.0]]), np.array([1, 1])),
    "no rows": (np.zeros((0, 3)), np.zeros(0)),
    "one class": (np.arange(4.0)[:, None], np.zeros(4)),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_no_temperature_can_be_fitted_to_has_temperature_1(name):
    logits, target = UNFIT[name]
    assert fit_temperature(logits.astype(np.float32), target) == 1.0


def test_logits_as_large_as_float32_holds_are_fitted_without_a_warning():
    logits, target = drawn(40)
    for huge in (logits * np.float32(1e37), np.full((4, 3), np.finfo(np.float32).max, np.float32)):
        assert np.isfinite(fit_temperature(huge, target[: len(huge)] % huge.shape[1]))
    assert fit_temperature(*(drawn(40)[0], np.zeros(40))) > 0


@pytest.mark.parametrize("rows", [20, 500])
def test_rows_that_are_all_right_do_not_make_probabilities_certain(rows):
    target = np.arange(rows) % 3
    temperature = fit_temperature(np.eye(3, dtype=np.float32)[target], target)
    confidence = np.exp(log_probabilities(np.eye(3)[:1], temperature)).max()
    assert 1 - 3 / rows < confidence < 1 - 0.2 / rows


def test_log_loss_is_that_of_scikit_learn():
    logits, target = drawn(300)
    probabilities = np.exp(log_probabilities(logits))
    assert row_losses(logits, target).mean() == pytest.approx(sklearn.log_loss(target, probabilities))


def test_the_calibration_error_is_the_weighted_gap_of_bins_and_is_computed_for_resamples_at_once():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(0.25, 1, (3, 200)), rng.random((3, 200)) < 0.6
    expected = []
    for row, right in zip(confidence, correct, strict=True):
        error = 0.0
        for low in np.arange(BINS) / BINS:
            inside = (row > low) & (row <= low + 1 / BINS)
            if inside.any():
                error += inside.mean() * abs(row[inside].mean() - right[inside].mean())
        expected.append(error)
    np.testing.assert_allclose(expected_calibration_error(confidence, correct), expected)
    bins = reliability(confidence[0], correct[0])
    assert sum(each.n * abs(each.confidence - each.accuracy) for each in bins) / 200 == pytest.approx(expected[0])
    pairs = bootstrap_centred(expected_calibration_error, confidence[:1], correct[:1])
    alone = bootstrap_metric(expected_calibration_error, confidence[:1], correct[0])
    np.testing.assert_allclose(pairs.draws, np.maximum(alone.draws - alone.draws.mean() + alone.value, 0))
    assert pairs.estimate().low < pairs.value < pairs.estimate().high
