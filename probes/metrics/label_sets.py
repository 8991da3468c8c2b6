"""Metrics of label sets: F1, mean average precision and exact matches of several labels a row.

Each takes ``[..., row, label]``, or ``[row, label]`` with ``counts`` ``[..., row]``: how often each row of a resample
was drawn. Counts give what the drawn rows give, without building them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LabelStatistic = Callable[[NDArray[Any], NDArray[Any], NDArray[Any] | None], NDArray[Any]]
"""Metric of predictions, targets (0 or 1) and counts -> ``[...]``."""


def micro_f1(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the F1 score of all labels of all rows, ``2 tp / (2 tp + fp + fn)``; 0 if there are none."""
    correct, total = _f1_counts(prediction, target, counts)
    return _divide(2 * correct.sum(-1), total.sum(-1), 0.0)


def macro_f1(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the mean F1 score over labels; labels neither predicted nor true in any row are left out."""
    correct, total = _f1_counts(prediction, target, counts)
    return np.asarray(_divide(2 * correct, total, 0.0).sum(-1) / np.maximum((total > 0).sum(-1), 1))


def subset_accuracy(prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the fraction of rows whose set of labels is predicted exactly."""
    exact = (np.asarray(prediction, bool) == np.asarray(target, bool)).all(-1)
    return np.asarray(_sum_rows(exact[..., None], counts)[..., 0] / exact.shape[-1])


def mean_average_precision(
    scores: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return the mean over labels of the average precision, ``sum of precision * rise of recall`` over thresholds.

    Rows with equal scores pass a threshold together, as in scikit-learn's ``average_precision_score``. Labels that no
    row has are left out.

    Returns:
        ``[...]``; NaN if no row has a label.
    """
    if scores.ndim > 2:
        pairs = zip(*(values.reshape(-1, *values.shape[-2:]) for values in (scores, target)), strict=True)
        return np.array([mean_average_precision(*pair) for pair in pairs]).reshape(scores.shape[:-2])
    counts = np.ones(len(scores)) if counts is None else counts
    columns = zip(scores.T, np.asarray(target, bool).T, strict=True)
    precisions = np.stack([_average_precision(*column, counts) for column in columns], axis=-1)
    defined = np.isfinite(precisions)
    return _divide(np.where(defined, precisions, 0).sum(-1), defined.sum(-1), np.nan)


def _average_precision(scores: NDArray[Any], target: NDArray[np.bool_], counts: NDArray[Any]) -> NDArray[Any]:
    """Return the average precision of one label, ``[...]``; NaN if none of the counted rows has it.

    Args:
        scores: ``[row]``.
        target: ``[row]``.
        counts: ``[..., row]``.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true = np.flatnonzero(target[order])
    ends = last_of_ties[np.searchsorted(last_of_ties, true)]  # recall rises only at these
    last_of_end = np.flatnonzero(np.diff(ends, append=-1))
    counts = counts[..., order]
    hits = counts[..., true].cumsum(-1)[..., last_of_end]
    rows = counts.cumsum(-1)[..., ends[last_of_end]]
    area = (np.diff(hits, prepend=0, axis=-1) * hits / np.maximum(rows, 1)).sum(-1)
    return _divide(area, counts[..., true].sum(-1), np.nan)


def _f1_counts(
    prediction: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return true positives, and predicted plus true labels, ``[..., label]`` each."""
    predicted, true = np.asarray(prediction, bool), np.asarray(target, bool)
    return _sum_rows(predicted & true, counts), _sum_rows(predicted.astype(float) + true, counts)


def _sum_rows(values: NDArray[Any], counts: NDArray[Any] | None) -> NDArray[Any]:
    """``[..., row, label]`` -> ``[..., label]``."""
    return np.asarray(values.sum(-2) if counts is None else counts @ values.astype(float))


def _divide(numerator: NDArray[Any], denominator: NDArray[Any], undefined: float) -> NDArray[Any]:
    """Return the ratio, ``undefined`` if the denominator is 0."""
    return np.asarray(np.where(denominator > 0, numerator / np.maximum(denominator, 1), undefined))
