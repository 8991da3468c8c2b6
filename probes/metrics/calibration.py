"""Calibration: a probe's raw prediction to a score in the corpus's unit, without changing any order.

Fitted on validation rows; identical texts get the top score, by construction.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

KNOTS = 16

STEEPNESS = 1e-3
"""Least rise of the map from its first knot to its last: flat steps of the isotonic fit would merge ranks."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rising, piecewise linear map from raw predictions to 0..1."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]

    def __call__(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """``[row]`` raw predictions -> ``[row]`` scores in 0..1."""
        return np.interp(raw.astype(np.float64), self.x, self.y)


def calibrate(raw: NDArray[np.floating], target: NDArray[Any], top: float) -> Calibration:
    """Fit the map by isotonic regression, thinned to a few knots.

    Args:
        raw: ``[row]``, predictions on validation rows.
        target: ``[row]``, in 0..1.
        top: the raw prediction of identical texts; it and all above it map to 1.
    """
    raw = raw.astype(np.float64)
    edges = np.unique(np.quantile(raw, np.linspace(0, 1, KNOTS + 1)))
    edges = edges[edges < top]
    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, target)
    lowest = min(float(edges[0]) if len(edges) else top - 1, -1.0)
    x = np.concatenate([[lowest - 1e-6], edges, [top]])
    y = np.concatenate([[0.0], fitted.predict(edges) if len(edges) else [], [1.0]])
    rising = np.maximum.accumulate(y) * (1 - STEEPNESS) + STEEPNESS * (x - x[0]) / (x[-1] - x[0])
    return Calibration(x, rising)
