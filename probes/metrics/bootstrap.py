"""TODO: probes/metrics/bootstrap.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from permafrost.probes.config.names import CORRELATIONS
from permafrost.probes.metrics.metrics import METRICS

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


@dataclass(frozen=True, eq=False)
class Resampled:
    """A figure, and the same figure over resampled rows: the same rows for every figure on as many rows."""

    value: float
    draws: NDArray[np.float64]
    """``[resample]``; nan where the metric does not exist, as the correlation of rows that drew one value only."""

    n: int

    def measured(self) -> Measured:
        """The figure with its interval."""
        drawn = self.draws[np.isfinite(self.draws)]
        if not len(drawn):
            return Measured(self.value, None, None, self.n)
        low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Measured(self.value, float(low), float(high), self.n)


@dataclass(frozen=True)
class Paired:
    """By how much a second figure is above a first on the same rows."""

    difference: float
    low: float
    high: float
    p: float
    """Two-sided: twice the share of resamples on the other side of zero, never 0."""


def resample(name: str, predictions: Sequence[NDArray[Any]], target: NDArray[Any], seed: int = 0) -> Resampled | None:
    """A metric and its bootstrap; of several predictions (seeds) the mean, over the same resampled rows.

    Args:
        predictions: one or more of ``[row]``.
        target: ``[row]``.

    Returns:
        None where the metric does not exist: fewer than two rows, or a correlation of constants.
    """
    n, metric = len(target), METRICS[name]
    correlation = name in CORRELATIONS
    if n < 2 or (correlation and (_constant(target) or any(map(_constant, predictions)))):
        return None
    value = float(np.mean([metric(prediction, target) for prediction in predictions]))
    rng = np.random.default_rng(seed)
    draws = np.full(RESAMPLES, np.nan)
    for start in range(0, RESAMPLES, CHUNK):
        rows = rng.integers(0, n, (CHUNK, n))
        kept = np.ones(CHUNK, bool)
        if correlation:
            kept = ~np.any([_constant_rows(values[rows]) for values in (target, *predictions)], axis=0)
            rows = rows[kept]
        if len(rows):
            found = np.mean([metric(prediction[rows], target[rows]) for prediction in predictions], axis=0)
            draws[start : start + CHUNK][kept] = found
    return Resampled(value, draws, n)


def resample_ratio(
    counts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], seed: int = 0
) -> Resampled | None:
    """A ratio of sums over rows and its bootstrap, on the rows that :func:`resample` draws.

    Args:
        counts: of each prediction (seed) ``[row]`` twice, what is counted and of how much.

    Returns:
        the mean over predictions; 0 where there was nothing to count. None for fewer than two rows.
    """
    n = len(counts[0][0])
    if n < 2:
        return None
    values = np.stack([np.stack(pair) for pair in counts])
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(0, RESAMPLES, CHUNK):
        rows = rng.integers(0, n, (CHUNK, n))
        draws.append(_ratio(values[:, :, rows].sum(-1)))
    return Resampled(float(_ratio(values.sum(-1, keepdims=True))[0]), np.concatenate(draws), n)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[prediction, part or whole, draw]`` -> ``[draw]``."""
    part, whole = sums[:, 0], sums[:, 1]
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1), 0.0).mean(0))


def measure(name: str, predictions: Sequence[NDArray[Any]], target: NDArray[Any], seed: int = 0) -> Measured | None:
    """A metric with its interval; as :func:`resample`."""
    found = resample(name, predictions, target, seed)
    return found.measured() if found else None


def paired(first: Resampled, second: Resampled) -> Paired | None:
    """The difference of a metric, second minus first, with its bootstrap 95 % interval over rows and a p-value.

    Both were measured on the same resampled rows, so what makes a row hard for both cancels.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 16.

    Returns:
        None where no resample has both figures.
    """
    if first.n != second.n:
        raise ValueError(f"figures on {first.n} and {second.n} rows have no pairs.")
    found = second.draws - first.draws
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    tail = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (len(found) + 1))
    return Paired(second.value - first.value, float(low), float(high), p)


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
