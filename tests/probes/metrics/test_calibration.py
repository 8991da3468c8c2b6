"""The map from raw predictions to scores: it rises, stays within 0..1 and ends at 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.probes.metrics.calibration import best_null_threshold, calibrate

GRID = 1e-4  # raw predictions are cosines in float32: what is closer than this is hardly two predictions
raws = st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=60).map(lambda values: np.array(values) * GRID)


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    raw = draw(raws)
    target = draw(st.lists(st.floats(0, 1), min_size=len(raw), max_size=len(raw)))
    return raw.astype(np.float32), np.array(target), draw(st.integers(-9_999, 10_000)) * GRID


@given(rows(), raws)
def test_the_map_keeps_order_below_the_top_and_ends_at_one(fitted_on, asked):
    raw, target, top = fitted_on
    calibration = calibrate(raw, target, top)
    assert (np.diff(calibration.x) > 0).all()
    assert (np.diff(calibration.y) > 0).all()
    below = np.unique(asked[asked < top])
    assert (np.diff(calibration(below)) > 0).all()
    assert ((calibration(asked) >= 0) & (calibration(asked) <= 1)).all()
    assert (calibration(np.array([top, top + GRID, 2.0])) == 1).all()


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_are_enough(rows):
    calibration = calibrate(np.linspace(0.2, 0.6, rows), np.linspace(0, 1, rows), top=1.0)
    assert calibration(np.array([1.0])) == 1
    assert calibration(np.array([0.1])) < calibration(np.array([0.7])) < 1


def test_equal_predictions_get_equal_scores_near_the_mean_of_their_targets():
    raw, target = np.repeat([0.2, 0.8], 20), np.tile([0.0, 0.4, 0.2, 0.2], 10) + np.repeat([0.0, 0.5], 20)
    np.testing.assert_allclose(calibrate(raw, target, top=1.0)(np.array([0.2, 0.8])), [0.2, 0.7], atol=2e-3)


def test_predictions_that_are_all_the_top_still_make_a_map():
    calibration = calibrate(np.ones(5), np.linspace(0, 1, 5), top=1.0)
    np.testing.assert_array_equal(calibration(np.array([1.0])), [1.0])
    assert 0 <= calibration(np.array([0.5])) < 1


def test_calibrated_scores_are_nearer_to_the_truth():
    rng = np.random.default_rng(0)
    target = rng.random(600)
    raw = 0.7 + 0.3 * target**3 - 0.02 * rng.random(600)  # the right order, a wrong unit
    calibration = calibrate(raw[:300], target[:300], top=1.0)
    before, after = np.abs(raw - target)[300:].mean(), np.abs(calibration(raw[300:]) - target[300:]).mean()
    assert after < 0.1 < before


@pytest.mark.parametrize("seed", range(20))
def test_no_null_threshold_gains_more_than_the_best_which_is_the_lowest_of_equals(seed):
    rng = np.random.default_rng(seed)
    scores = rng.choice(np.linspace(-2, 2, 9), 12).astype(np.float32)
    gains = rng.choice([-1.0, 0.0, 0.5, 1.0], 12)
    best = best_null_threshold(scores, gains)
    others = np.concatenate([[-9.0], np.unique(scores)])  # answered are the rows up to a score
    sums = np.array([gains[scores <= other].sum() for other in others])
    assert gains[scores <= best].sum() == sums.max()
    assert (scores <= best).tolist() == (scores <= others[np.argmax(sums)]).tolist()
    assert np.isfinite(best)
