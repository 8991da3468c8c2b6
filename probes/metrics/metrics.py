"""Metrics of scores and classes, vectorised over leading axes so that bootstrap resamples are computed at once.

scipy.stats is imported where it is used: that takes as long as reading a corpus, and a training begins without it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Metric = Callable[..., NDArray[Any]]
"""Metric of predictions and targets, ``[..., row]`` each -> ``[...]``; or of rows with a set of labels,
:data:`permafrost.probes.metrics.label_sets.LabelStatistic`."""


def pearson(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Return the Pearson correlation over the last axis."""
    from scipy import stats

    return np.asarray(stats.pearsonr(prediction, target, axis=-1).statistic)


def spearman(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Return the Spearman rank correlation over the last axis; ties get their mean rank."""
    from scipy import stats

    return pearson(stats.rankdata(prediction, axis=-1), stats.rankdata(target, axis=-1))


def mean_absolute_error(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Return the mean absolute error over the last axis."""
    return np.asarray(np.abs(prediction - target).mean(-1))


def accuracy(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[np.float64] | None = None) -> NDArray[Any]:
    """Return the fraction of rows with the correct class, over the last axis.

    Args:
        prediction, target: ``[..., row]``, classes.
        counts: ``[..., row]``, how often each row counts; None counts each once.
    """
    correct = _sum(prediction == target, counts)
    return np.asarray(correct / (target.shape[-1] if counts is None else counts.sum(-1)))


def macro_f1(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[np.float64] | None = None) -> NDArray[Any]:
    """Return the mean F1 score over classes, over the last axis; classes neither predicted nor true are left out.

    Arguments as of :func:`accuracy`.
    """
    scores, present = [], []
    for label in np.union1d(prediction, target):
        predicted, true = prediction == label, target == label
        scores.append(f1(predicted, true, counts))
        present.append(_sum(predicted | true, counts) > 0)
    return np.asarray(np.sum(scores, axis=0) / np.maximum(np.sum(present, axis=0), 1))


def f1(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[np.float64] | None = None) -> NDArray[Any]:
    """Return the F1 score of class 1 of two, ``2 tp / (2 tp + fp + fn)``, over the last axis; 0 if it is 0 / 0.

    Arguments as of :func:`accuracy`.
    """
    predicted, true = prediction == 1, target == 1
    total = _sum(predicted, counts) + _sum(true, counts)
    return np.asarray(np.where(total > 0, 2 * _sum(predicted & true, counts) / np.maximum(total, 1), 0.0))


def _sum(rows: NDArray[np.bool_], counts: NDArray[np.float64] | None) -> NDArray[Any]:
    return np.asarray(rows.sum(-1) if counts is None else (counts * rows).sum(-1))


COUNTED = (accuracy, macro_f1, f1)
"""Metrics of classes, which rows with the same prediction and target need not be told apart for."""

CORRELATIONS = (pearson, spearman)
"""Metrics that are undefined if the predictions or the targets are constant."""


def of_resamples(
    metric: Metric, prediction: NDArray[Any], target: NDArray[Any], rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Return a metric of resampled rows, ``[resample]``; NaN where it is undefined.

    Args:
        prediction: of the shape of ``target``.
        target: ``[row]``, or ``[row, label]`` of 0 and 1.
        rows: ``[resample, row]``, indices of rows.
    """
    if metric in COUNTED:
        pairs, cell = np.unique(np.stack([prediction, target]), axis=1, return_inverse=True)
        places = cell.reshape(-1)[rows] + pairs.shape[1] * np.arange(len(rows))[:, None]
        times = np.bincount(places.ravel(), minlength=pairs.shape[1] * len(rows)).reshape(len(rows), -1)
        return metric(*pairs, times.astype(np.float64))
    if target.ndim == 1 and metric not in CORRELATIONS:
        return metric(prediction[rows], target[rows])
    keys = rows + rows.shape[1] * np.arange(len(rows))[:, None]
    counts = np.bincount(keys.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)
    if target.ndim > 1:
        return metric(prediction, target, counts)
    deviations = _rank_deviations if metric is spearman else _deviations
    first, second = (deviations(values, counts) for values in (prediction, target))
    weighted = counts * first
    scale = np.sqrt((weighted * first).sum(1) * (counts * second**2).sum(1))
    constant = np.any([(values[rows] == values[rows[:, :1]]).all(1) for values in (prediction, target)], axis=0)
    correlation = (weighted * second).sum(1) / np.where(constant, 1.0, scale)
    return np.where(constant, np.nan, np.clip(correlation, -1, 1))


def _deviations(values: NDArray[Any], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deviations of all rows from the mean of each resample, in which they are ``counts`` times."""
    return np.asarray(values.astype(np.float64) - (counts @ values.astype(np.float64) / len(values))[:, None])


def _rank_deviations(values: NDArray[Any], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return those of ranks, as :func:`spearman` has them; values are sorted once for all resamples."""
    order = np.argsort(values)
    _, starts, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    tied = counts[:, order]
    if len(starts) < len(values):
        tied = np.add.reduceat(tied, starts, axis=1)
    ranks = np.cumsum(tied, axis=1) - (tied - 1) / 2
    deviations = np.empty_like(counts)
    deviations[:, order] = ranks[:, inverse] - (len(values) + 1) / 2
    return deviations
