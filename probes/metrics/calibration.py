"""Calibration on validation rows: a map from a probe's raw predictions to scores in 0..1, thresholds, or
a temperature.

The map is strictly increasing: ranks are unchanged, and identical texts get the highest score by construction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KNOTS = 16
"""Number of quantile intervals of the raw predictions, whose edges are the knots of the map."""

STEEPNESS = 1e-3
"""Minimum rise of the map from its first knot to its last; flat steps of the isotonic fit would merge ranks."""

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Calibration:
    """A strictly increasing, piecewise linear map from raw predictions to 0..1."""

    x: NDArray[np.float64]
    """``[knot]``, raw predictions, ascending."""

    y: NDArray[np.float64]
    """``[knot]``, their scores in 0..1."""

    def __call__(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map raw predictions ``[row]`` to scores ``[row]`` in 0..1."""
        return np.interp(raw.astype(np.float64), self.x, self.y)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Probability of each label from which on it is predicted."""

    values: NDArray[np.float32]
    """``[label]``, in 0..1; 2 for a label that is never predicted."""


@dataclass(frozen=True, eq=False)
class NullThreshold:
    """Null score above which a question is said to have no answer."""

    null: NDArray[np.float64]
    """``[1]``."""


@dataclass(frozen=True, eq=False)
class Temperature:
    """Temperature by which logits are divided before they become probabilities."""

    temperature: NDArray[np.float64]
    """``[1]``, above 0."""


CALIBRATIONS: dict[frozenset[str], Callable[..., Calibration | Thresholds | NullThreshold | Temperature]] = {
    frozenset(("x", "y")): Calibration,
    frozenset(("values",)): Thresholds,
    frozenset(("null",)): NullThreshold,
    frozenset(("temperature",)): Temperature,
}
"""Names of arrays -> what they are the fields of, to read it from a file."""


def calibrate(raw: NDArray[np.floating], target: NDArray[Any], top: float) -> Calibration:
    """Fit a calibration by isotonic regression, reduced to a few knots.

    Args:
        raw: ``[row]``, predictions on validation rows.
        target: ``[row]``, in 0..1.
        top: raw prediction of identical texts; it and all larger predictions map to 1.
    """
    from sklearn.isotonic import IsotonicRegression  # slow to import, and needed once a model is trained

    raw = raw.astype(np.float64)
    edges = np.unique(np.quantile(raw, np.linspace(0, 1, KNOTS + 1)))
    edges = edges[edges < top]
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, target)
    lowest = min(float(edges[0]) if len(edges) else top - 1, -1.0)
    x = np.concatenate([[lowest - 1e-6], edges, [top]])
    y = np.concatenate([[0.0], fitted.predict(edges) if len(edges) else [], [1.0]])
    rising = np.maximum.accumulate(y) * (1 - STEEPNESS) + STEEPNESS * (x - x[0]) / (x[-1] - x[0])
    return Calibration(x, rising)


def best_thresholds(scores: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Return the threshold of each label with the highest F1 score; a row has the label if its score reaches it.

    Thresholds are every score of the label, and 0.5. Of equally good ones the nearest to 0.5 is taken, of two equally
    near the lower; a label that no row has gets 0.5.

    Args:
        scores: ``[row, label]``, in [0, 1].
        target: ``[row, label]``, 0 or 1.

    Returns:
        ``[label]``.
    """
    true = np.asarray(target, bool)
    order = np.argsort(-scores, axis=0, kind="stable")
    descending = np.take_along_axis(scores, order, axis=0).astype(np.float64)
    hits, predicted = np.take_along_axis(true, order, axis=0).cumsum(0), np.arange(1, len(scores) + 1)[:, None]
    f1 = 2 * hits / (predicted + true.sum(0))
    f1[:-1][np.diff(descending, axis=0) == 0] = -1  # rows with equal scores are predicted together
    above = scores >= DEFAULT_THRESHOLD
    f1_of_default = 2 * (above & true).sum(0) / np.maximum(above.sum(0) + true.sum(0), 1)
    f1 = np.vstack([f1, f1_of_default])
    thresholds = np.vstack([descending, np.full(scores.shape[1], DEFAULT_THRESHOLD)])
    distance = np.where(f1 == f1.max(0), np.abs(thresholds - DEFAULT_THRESHOLD), np.inf)
    nearest = np.where(distance == distance.min(0), thresholds, np.inf).min(0)
    return np.where(true.any(0), nearest, DEFAULT_THRESHOLD)


def best_null_threshold(scores: NDArray[Any], gains: NDArray[np.float64]) -> float:
    """Return the null score above which no answer is given, with the largest sum of gains over the rows below it.

    Thresholds lie midway between neighbouring scores, below all and above all; the lowest of equally good ones is
    taken. Source: ``find_best_thresh`` of SQuAD 2.0's ``evaluate-v2.0.py``, which takes the score below.

    Args:
        scores: ``[row]``, null scores.
        gains: ``[row]``, metric of the row if it is answered less that if it is not.
    """
    order = np.argsort(scores, kind="stable")
    ascending = scores[order].astype(np.float64)
    thresholds = np.concatenate([[ascending[0] - 1], (ascending[1:] + ascending[:-1]) / 2, [ascending[-1] + 1]])
    sums = np.concatenate([[0.0], np.cumsum(gains[order])])
    sums[1:-1][np.diff(ascending) == 0] = -np.inf  # rows with equal scores are answered together
    return float(thresholds[np.argmax(sums)])
