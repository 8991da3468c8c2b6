"""Breakdown of metrics by group of rows: a class, an entity type, a pattern of the text, a question word."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.metrics.bootstrap import Estimate, bootstrap_ratio

Decoded = Sequence[NDArray[Any]]
"""Decoded predictions, one array per seed."""

RatioCounts = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Numerator and denominator of each row, one pair of arrays per seed."""


class BreakdownRow(NamedTuple):
    """Metric of one group of rows."""

    kind: str
    """Grouping criterion: class, label, pattern, entity type or question word."""

    group: str
    metric: str
    measured: Estimate


def precision_recall_f1(
    kind: str, group: str, predicted: Decoded, gold: Decoded, correct: Decoded, n: int
) -> Iterator[BreakdownRow]:
    """Yield precision, recall and F1 of one group.

    Args:
        predicted, gold, correct: counts of each seed, ``[row]`` each.
        n: number of gold instances.
    """
    seeds = zip(predicted, gold, correct, strict=True)
    by_seed = [tuple(counts.astype(np.float64) for counts in seed) for seed in seeds]
    denominators = {"precision": [p for p, _, _ in by_seed], "recall": [g for _, g, _ in by_seed]}
    denominators["f1"] = [(p + g) / 2 for p, g, _ in by_seed]
    for metric, by_metric in denominators.items():
        counts = [(seed[2], denominator) for seed, denominator in zip(by_seed, by_metric, strict=True)]
        yield BreakdownRow(kind, group, metric, measured_ratio(counts, n))


def measured_ratio(counts: RatioCounts, n: int) -> Estimate:
    """Return a ratio of sums, averaged over seeds, with its bootstrap interval; a single row has no interval."""
    if resampled := bootstrap_ratio(counts):
        return replace(resampled.estimate(), n=n)
    value = float(np.mean([numerator.sum() / max(denominator.sum(), 1) for numerator, denominator in counts]))
    return Estimate(value=value, low=None, high=None, n=n)
