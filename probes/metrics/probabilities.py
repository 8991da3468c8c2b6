"""Probabilities of classes: temperature scaling on validation rows, log loss, calibration error and reliability."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.metrics.bootstrap import bootstrap_metric, paired_difference

BINS = 15
"""Number of bins of confidence, of equal width."""

MOST_SCALING = np.log(100.0)
"""Largest absolute logarithm of a temperature."""


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of logits ``[row, class]``."""
    import torch  # loaded already by whoever has logits; pages and checks of recipes have none

    values: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return values


def fit_temperature(logits: NDArray[Any], target: NDArray[Any]) -> float:
    """Return the temperature by which logits are divided, that with the lowest log loss on validation rows.

    A further row that may be of any class counts as one row in ``row + 1``, so that rows which are all right do not
    make the temperature 0. It is 1 unless the log loss of the rows gets lower by more than chance: the 95 % interval of
    the paired difference excludes 0; and 1 if there are no rows, a single class, or logits that are not finite. Source:
    Guo et al., "On Calibration of Modern Neural Networks" (2017), section 4.2.

    Args:
        logits: ``[row, class]``.
        target: ``[row]``, classes.
    """
    if len(target) == 0 or logits.shape[1] < 2 or not np.isfinite(logits).all():
        return 1.0
    from scipy.optimize import minimize_scalar  # slow to import, and needed once a model is trained

    def objective(log_temperature: float) -> float:
        logs = log_probabilities(logits, float(np.exp(log_temperature)))
        known = np.take_along_axis(logs, target[:, None].astype(np.int64), 1)[:, 0]
        return -float(known.sum() + logs.mean()) / (len(target) + 1)

    found = minimize_scalar(objective, bounds=(-MOST_SCALING, MOST_SCALING), method="bounded")
    temperature = float(np.exp(found.x))
    before, after = (
        bootstrap_metric(mean_loss, [row_losses(logits, target, scale)], np.zeros(len(target)))
        for scale in (1.0, temperature)
    )
    difference = paired_difference(before, after) if before and after else None
    return temperature if difference and difference.high < 0 else 1.0


def log_probabilities(logits: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of the classes, ``[row, class]``."""
    from scipy.special import log_softmax  # as above

    return np.asarray(log_softmax(logits.astype(np.float64) / temperature, axis=1))


def row_losses(logits: NDArray[Any], target: NDArray[Any], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the log loss of each row in nats, ``[row]``."""
    logs = log_probabilities(logits, temperature)
    losses: NDArray[np.float64] = -np.take_along_axis(logs, target[:, None].astype(np.int64), 1)[:, 0]
    return losses


def mean_loss(losses: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Return the log loss of rows whose losses are known, ``[..., row] -> [...]``; the target is not looked at."""
    return np.asarray(losses.mean(-1))


def expected_calibration_error(confidence: NDArray[Any], correct: NDArray[Any]) -> NDArray[Any]:
    """Return the mean distance of confidence and accuracy over bins of confidence, weighted by their rows.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).

    Args:
        confidence: ``[..., row]``, probability of the predicted class.
        correct: ``[..., row]``, whether it is the right one.

    Returns:
        ``[...]``, from 0 to 1.
    """
    shape, rows = confidence.shape[:-1], confidence.shape[-1]
    of_bin = bins_of(confidence).reshape(-1, rows)
    places = of_bin + BINS * np.arange(len(of_bin))[:, None]
    gaps = (confidence - correct).reshape(-1, rows)
    sums = np.bincount(places.ravel(), gaps.ravel(), BINS * len(of_bin)).reshape(-1, BINS)
    return np.asarray(np.abs(sums).sum(-1) / rows).reshape(shape)


def bins_of(confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Return the bin of each confidence; a bin contains its upper edge."""
    numbers: NDArray[np.int64] = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return numbers


class ReliabilityBin(NamedTuple):
    """Rows of similar confidence."""

    confidence: float
    """Mean probability of the predicted class."""

    accuracy: float
    n: int


def reliability(confidence: NDArray[Any], correct: NDArray[Any]) -> list[ReliabilityBin]:
    """Return the bins of confidence that hold rows, ``[row]`` each, in ascending order."""
    of_bin = bins_of(confidence)
    return [
        ReliabilityBin(float(confidence[rows].mean()), float(correct[rows].mean()), int(rows.sum()))
        for rows in (of_bin == number for number in np.unique(of_bin))
    ]
