"""Decision thresholds of labels: the score from which a label is predicted, chosen on validation rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_THRESHOLD = 0.5


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
