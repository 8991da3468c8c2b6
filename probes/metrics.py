"""The field's metrics through scipy and scikit-learn, with bootstrap intervals.

A metric that does not exist (the correlation of constants) is None, never NaN in a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 1000
CHUNK = 50
"""Resamples in memory at once."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measured:
    """A figure with its bootstrap 95 % interval (percentiles over resampled rows)."""

    value: float
    low: float | None
    high: float | None
    n: int


Statistic = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
"""``[..., row]`` twice (prediction, target) -> ``[...]``."""


def pearson(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Pearson's correlation over the last axis."""
    return np.asarray(stats.pearsonr(prediction, target, axis=-1).statistic)


def spearman(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Spearman's rank correlation over the last axis, ties given their mean rank."""
    return pearson(stats.rankdata(prediction, axis=-1), stats.rankdata(target, axis=-1))


def mean_absolute_error(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Mean absolute error over the last axis."""
    return np.asarray(np.abs(prediction - target).mean(-1))


def accuracy(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Share of rows whose class is right, over the last axis."""
    return np.asarray((prediction == target).mean(-1))


def macro_f1(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Mean over classes of the F1 score, over the last axis; a class that is nowhere does not count."""
    classes = np.union1d(prediction, target)
    scores, present = [], []
    for number in classes:
        said, true = prediction == number, target == number
        both, either = (said & true).sum(-1), said.sum(-1) + true.sum(-1)
        scores.append(np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0))
        present.append(either > 0)
    return np.asarray(np.sum(scores, axis=0) / np.maximum(np.sum(present, axis=0), 1))


METRICS: dict[str, Statistic] = {
    "pearson": pearson,
    "spearman": spearman,
    "mae": mean_absolute_error,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
}


def measure(name: str, predictions: Sequence[NDArray[Any]], target: NDArray[Any], seed: int = 0) -> Measured | None:
    """A metric with its interval; of several predictions (seeds) the mean, over the same resampled rows.

    Args:
        predictions: one or more of ``[row]``.
        target: ``[row]``.

    Returns:
        None where the metric does not exist: fewer than two rows, or a correlation of constants.
    """
    n = len(target)
    if n < 2 or (name in ("pearson", "spearman") and (_constant(target) or any(map(_constant, predictions)))):
        return None
    metric = METRICS[name]
    value = float(np.mean([metric(prediction, target) for prediction in predictions]))
    rng = np.random.default_rng(seed)
    resampled: list[float] = []
    for _ in range(RESAMPLES // CHUNK):
        rows = rng.integers(0, n, (CHUNK, n))
        if name in ("pearson", "spearman"):
            rows = rows[~np.any([_constant_rows(values[rows]) for values in (target, *predictions)], axis=0)]
        if len(rows):
            resampled += list(np.mean([metric(prediction[rows], target[rows]) for prediction in predictions], axis=0))
    if not resampled:
        return Measured(value, None, None, n)
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Measured(value, float(low), float(high), n)


def p_value(name: str, prediction: NDArray[Any], target: NDArray[Any]) -> float | None:
    """Two-sided p-value of a correlation against none; None where it does not exist."""
    if len(target) < 3 or _constant(target) or _constant(prediction):
        return None
    if name == "pearson":
        return float(stats.pearsonr(prediction, target).pvalue)
    return float(stats.spearmanr(prediction, target).pvalue)


def _constant(values: NDArray[Any]) -> bool:
    return bool(np.ptp(values) == 0)


def _constant_rows(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(values, axis=-1) == 0)
