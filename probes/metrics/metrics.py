"""The field's metrics through scipy and scikit-learn, with bootstrap intervals.

A metric that does not exist (the correlation of constants) is None, never NaN in a table.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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


def f1(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """F1 score of class 1 of two, over the last axis: ``2 tp / (2 tp + fp + fn)``; 0 where it is nowhere."""
    said, true = prediction == 1, target == 1
    either = said.sum(-1) + true.sum(-1)
    return np.asarray(np.where(either > 0, 2 * (said & true).sum(-1) / np.maximum(either, 1), 0.0))


METRICS: dict[str, Statistic] = {
    "pearson": pearson,
    "spearman": spearman,
    "mae": mean_absolute_error,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "f1": f1,
}
