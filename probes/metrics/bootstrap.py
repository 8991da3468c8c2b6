"""Bootstrap of metrics over rows: estimates with 95 % intervals, and paired differences with p-values.

The resampled rows depend on the number of rows only, so all metrics on the same rows are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.metrics.metrics import CORRELATIONS, Metric, of_resamples, pearson

RESAMPLES = 1000
"""Number of bootstrap resamples."""

CHUNK = 50
"""Number of resamples in memory at once."""

CONFIDENCE = 0.95
"""Level of the intervals."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its bootstrap 95 % interval (percentiles over resampled rows); None if it is undefined."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Number of rows."""


@dataclass(frozen=True, eq=False)
class BootstrapSamples:
    """A metric and its bootstrap distribution over resampled rows."""

    value: float
    draws: NDArray[np.float64]
    """``[resample]``; NaN if the metric is undefined, e.g. the correlation of a resample with a single value."""

    n: int
    """Number of rows."""

    def estimate(self) -> Estimate:
        """Return the metric with its interval."""
        defined = self.draws[np.isfinite(self.draws)]
        if not len(defined):
            return Estimate(self.value, None, None, self.n)
        return Estimate(self.value, *_interval(defined), self.n)


@dataclass(frozen=True)
class PairedDifference:
    """Difference of a metric between two predictions of the same rows, with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided p-value: twice the fraction of resamples on the other side of zero, never 0."""

    n: int
    """Number of rows."""


def bootstrap_metric(
    metric: Metric, predictions: Sequence[NDArray[Any]], target: NDArray[Any]
) -> BootstrapSamples | None:
    """Return a metric and its bootstrap distribution; for several predictions (seeds), the mean of their metrics.

    Args:
        metric: the metric.
        predictions: one or more arrays ``[row]``, or ``[row, label]`` for metrics of label sets.
        target: as one of the predictions.

    Returns:
        None if the metric is undefined: there are fewer than two rows, it is a correlation with a constant, or no row
        has a label.
    """
    n = len(target)
    if n < 2 or (metric in CORRELATIONS and any(map(_is_constant, (target, *predictions)))):
        return None
    value = float(np.mean([metric(prediction, target) for prediction in predictions]))
    if target.ndim > 1 and np.isnan(value):
        return None
    rng = np.random.default_rng(0)
    draws = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, CHUNK):
        rows = rng.integers(0, n, (CHUNK, n))
        values = [of_resamples(metric, prediction, target, rows) for prediction in predictions]
        draws[start : start + CHUNK] = np.mean(values, axis=0)
    return BootstrapSamples(value, draws, n)


def bootstrap_centred(
    metric: Metric, predictions: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]
) -> BootstrapSamples | None:
    """As :func:`bootstrap_metric`, of a metric that grows with noise, of predictions that have a target ``[row]`` each.

    Resamples repeat rows and are noisier than all rows: the mean of the draws is moved to the metric of all rows.
    """
    n = len(targets[0])
    if n < 2:
        return None
    pairs = list(zip(predictions, targets, strict=True))
    rng = np.random.default_rng(0)
    resamples = (rng.integers(0, n, (CHUNK, n)) for _ in range(0, RESAMPLES, CHUNK))
    draws = [np.mean([metric(first[rows], second[rows]) for first, second in pairs], axis=0) for rows in resamples]
    value, every = float(np.mean([metric(*pair) for pair in pairs])), np.concatenate(draws)
    return BootstrapSamples(value, np.maximum(every - every.mean() + value, 0), n)


def bootstrap_ratio(counts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> BootstrapSamples | None:
    """Return a ratio of sums over rows and its bootstrap distribution, on the rows that :func:`bootstrap_metric` draws.

    Args:
        counts: numerator and denominator of each row, ``[row]`` each, for each prediction (seed).

    Returns:
        the mean over predictions, 0 if the denominator is 0; None for fewer than two rows.
    """
    n = len(counts[0][0])
    if n < 2:
        return None
    values = np.stack([np.stack(pair) for pair in counts])
    rng = np.random.default_rng(0)
    resamples = (rng.integers(0, n, (CHUNK, n)) for _ in range(0, RESAMPLES, CHUNK))
    draws = [_ratio(values[:, :, rows].sum(-1)) for rows in resamples]
    return BootstrapSamples(float(_ratio(values.sum(-1, keepdims=True))[0]), np.concatenate(draws), n)


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[prediction, numerator or denominator, resample]`` -> ``[resample]``."""
    numerator, denominator = sums[:, 0], sums[:, 1]
    ratios = np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 0.0)
    return np.asarray(ratios.mean(0))


def estimate_metric(metric: Metric, predictions: Sequence[NDArray[Any]], target: NDArray[Any]) -> Estimate | None:
    """Return a metric with its interval; arguments and None as of :func:`bootstrap_metric`."""
    resampled = bootstrap_metric(metric, predictions, target)
    return resampled.estimate() if resampled else None


def paired_difference(first: BootstrapSamples, second: BootstrapSamples) -> PairedDifference | None:
    """Return the difference of a metric, second minus first, with its bootstrap 95 % interval and p-value.

    Both metrics were computed on the same resampled rows, so variation that rows share cancels.
    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 16.

    Returns:
        None if no resample defines both metrics.

    Raises:
        ValueError: the metrics were computed on different numbers of rows.
    """
    if first.n != second.n:
        raise ValueError(f"figures on {first.n} and {second.n} rows have no pairs.")
    differences = second.draws - first.draws
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    p = min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))
    return PairedDifference(second.value - first.value, *_interval(differences), p, second.n)


def _interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def correlation_p_value(metric: Metric, prediction: NDArray[Any], target: NDArray[Any]) -> float | None:
    """Return the two-sided p-value of a correlation against zero correlation; None if it is undefined."""
    if len(target) < 3 or _is_constant(target) or _is_constant(prediction):
        return None
    from scipy import stats  # slow to import, and needed once a model is trained

    if metric is pearson:
        return float(stats.pearsonr(prediction, target).pvalue)
    return float(stats.spearmanr(prediction, target).pvalue)


def _is_constant(values: NDArray[Any]) -> NDArray[np.bool_]:
    """``[..., row]`` -> ``[...]``."""
    return np.asarray(np.ptp(values, axis=-1) == 0)
