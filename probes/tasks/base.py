"""Interfaces and shared parts of the tasks: training objectives, scorers, breakdown rows, the description of a task.

An objective gives the loss of a probe on the rows of one split, and its predictions for them; a scorer decodes
predictions (into scores, classes, tags or answer spans) and computes metrics with bootstrap intervals over rows. A
probe knows neither rows nor labels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.text import Text
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.token_inputs import TokenInputs
from permafrost.probes.metrics.bootstrap import BootstrapSamples, Estimate, bootstrap_ratio
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads

CHUNK_BYTES = 256 << 20
"""Maximum bytes of float32 latents that are read at once for predictions."""


class Objective(Protocol):
    """Loss and predictions of a probe on the rows of one split."""

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """Return the loss of each member on a batch, ``[member]``.

        Args:
            reads: layers and row orders that the members share.
            rows: ``[order, row]``, indices of rows.
            orders: ``[member]``, index of the row order of each member.
            loss_name: key of :data:`LOSSES`.
        """

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return the predictions of each member for all rows, ``[member, ...]``."""

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the combined prediction of all members, in the shape of one member's."""


def chunk_size(item_bytes: int) -> int:
    """Return how many items of ``item_bytes`` fit into :data:`CHUNK_BYTES`, at least one."""
    return max(1, CHUNK_BYTES // item_bytes)


def chunks(inputs: TokenInputs, probe: Probe, windows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield indices into ``windows`` in chunks of bounded size, windows of similar length together."""
    lengths = inputs.tokens.lengths[windows]
    order = np.argsort(lengths, kind="stable")
    max_tokens = chunk_size(len(probe.layout.sources) * inputs.width * 4)
    chunk_numbers = np.cumsum(lengths[order]) // max_tokens
    boundaries = np.searchsorted(chunk_numbers, np.arange(lengths.sum() // max_tokens + 2)).tolist()
    for start, end in pairwise(boundaries):
        if start < end:
            yield order[start:end]


class Scorer(Protocol):
    """Decoded predictions and metrics of one split."""

    rows: Rows

    def decode(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return the decoded predictions of one member, from ``[row, ...]`` or ``[word, ...]``."""

    def resampled(self, metric: str, decoded: Sequence[NDArray[Any]]) -> BootstrapSamples | None:
        """Return the bootstrap of a metric, averaged over several decoded predictions (seeds); None if undefined."""

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """Return a metric; NaN if undefined."""


class CountScorer:
    """Scorer whose metrics are ratios of counts summed over rows."""

    def __init__(self, corpus: Corpus, split: str) -> None:
        self.corpus, self.rows = corpus, corpus.split(split)

    def counts(self, metric: str, decoded: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return numerator and denominator of a metric for every row, ``[row]`` each."""
        raise NotImplementedError

    def resampled(self, metric: str, decoded: Sequence[NDArray[Any]]) -> BootstrapSamples | None:
        """As :meth:`Scorer.resampled`."""
        return bootstrap_ratio([self.counts(metric, predictions) for predictions in decoded])

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`, but 0 if there is nothing to count."""
        numerator, denominator = self.counts(metric, decoded)
        return float(numerator.sum() / denominator.sum()) if denominator.sum() else 0.0


Item = tuple[str, ...]
"""Texts of one item to predict: a sentence, a pair, or a question and its context."""

Target = str | float | None
"""Gold label or score of an item; None if unknown."""

Decoded = Sequence[NDArray[Any]]
"""Decoded predictions, one array per seed."""

RatioCounts = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Numerator and denominator of each row, one pair of arrays per seed."""


class BreakdownRow(NamedTuple):
    """Metric of one group of rows."""

    kind: str
    """Grouping criterion: class, pattern, entity type or question word."""

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


Prediction = dict[str, Any]
"""Prediction for one item as users receive it; its keys depend on the task."""

InputReader = Callable[[Sequence[Text]], ProbeInputs]
"""Function from distinct texts to the inputs of a probe."""

TableColumns = Mapping[str, Any]
"""Columns of a prediction table, name -> values."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Losses, metrics and heads that fit one kind of target, with the defaults."""

    name: str
    loss: str
    """Default loss."""

    losses: tuple[str, ...]
    metric: str
    """Default selection metric."""

    metrics: tuple[str, ...]
    heads: tuple[str, ...]
    """The first is the default."""
