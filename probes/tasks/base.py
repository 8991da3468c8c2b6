"""Objectives: what a probe says of some rows, and what it costs, for each way that rows are labelled.

An objective knows the latents, the rows and how the two meet; a probe knows neither.
"""
# MERGED DOCS:
# """Scoring: what was said of a split against what is true of it, as figures with intervals over rows.
#
# What is said is first turned into answers (a number, a class, a tag a word, a place in a context); figures are of those.
# """

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.text import Text
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.bootstrap import Measured, Resampled, resample_ratio
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads

CHUNK_BYTES = 256 << 20
"""Most latents that are read at once where nothing is learnt."""


class Objective(Protocol):
    """Rows as a probe learns them and speaks of them."""

    def loss(
        self, probe: Probe, how: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str
    ) -> Tensor:
        """What some rows cost each member, ``[member]``.

        Args:
            rows: ``[order, row]``.
            orders: ``[member]``, the order that each takes.
            name: of :data:`LOSSES`.
        """

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """What each member says of all rows, ``[member, ...]``."""

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """What the members say together, shaped as what one says."""


def only_order(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``[order, row]`` -> ``[row]``, where there is one order."""
    if len(rows) > 1:
        raise ValueError("members that read tokens take rows in one order.")
    return np.asarray(rows[0])


def chunks(inputs: ProbeInputs, probe: Probe, windows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Places among windows, those of like length together, as many at a time as there is room for."""
    assert inputs.offsets is not None
    lengths = np.diff(inputs.offsets)[windows]
    order = np.argsort(lengths, kind="stable")
    room = max(1, CHUNK_BYTES // (len(probe.layout.sources) * inputs.values.shape[2] * 4))
    filled = np.searchsorted(np.cumsum(lengths[order]) // room, np.arange(lengths.sum() // room + 2)).tolist()
    for start, end in pairwise(filled):
        if start < end:
            yield order[start:end]


class Scorer(Protocol):
    """Figures of one split."""

    rows: Rows

    def decode(self, said: NDArray[Any]) -> NDArray[Any]:
        """What one member says, ``[row, ...]`` or ``[word, ...]``, as its answers."""

    def resampled(self, metric: str, answers: Sequence[NDArray[Any]]) -> Resampled | None:
        """A metric over resampled rows, of several answers (seeds) their mean; None where it does not exist."""

    def value(self, metric: str, answers: NDArray[Any]) -> float:
        """A metric; nan where it does not exist."""


class CountScorer:
    """Rows that add up: each has counts, and a metric is a ratio of their sums."""

    def __init__(self, corpus: Corpus, split: str) -> None:
        self.corpus, self.rows = corpus, corpus.split(split)

    def counts(self, metric: str, answers: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``[row]`` twice: what is counted, and of how much."""
        raise NotImplementedError

    def resampled(self, metric: str, answers: Sequence[NDArray[Any]]) -> Resampled | None:
        """As :meth:`Scorer.resampled`."""
        return resample_ratio([self.counts(metric, one) for one in answers])

    def value(self, metric: str, answers: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`."""
        part, whole = self.counts(metric, answers)
        return float(part.sum() / whole.sum()) if whole.sum() else 0.0


Item = tuple[str, ...]

Target = str | float | None

Line = tuple[str, str, str, Measured]
"""Kind, group, metric, figure."""

Answers = Sequence[NDArray[Any]]
"""Of each voice."""

Counts = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]


def precision_recall_f1(kind: str, group: str, said: Answers, true: Answers, both: Answers, n: int) -> Iterator[Line]:
    """Precision, recall and F1 of ``[row]`` counts of each voice: said, true, and said and true."""
    parts = [tuple(one.astype(np.float64) for one in voice) for voice in zip(said, true, both, strict=True)]
    wholes = {"precision": [s for s, _, _ in parts], "recall": [t for _, t, _ in parts]}
    wholes["f1"] = [(s + t) / 2 for s, t, _ in parts]
    for metric, whole in wholes.items():
        counts = [(part[2], of) for part, of in zip(parts, whole, strict=True)]
        yield kind, group, metric, measured_ratio(counts, n)


def measured_ratio(counts: Counts, n: int) -> Measured:
    """A ratio of sums, the mean over voices; a single row has no interval."""
    if found := resample_ratio(counts):
        measured = found.measured()
        return Measured(measured.value, measured.low, measured.high, n)
    return Measured(float(np.mean([part.sum() / max(whole.sum(), 1) for part, whole in counts])), None, None, n)


Answer = dict[str, Any]

Read = Callable[[Sequence[Text]], ProbeInputs]

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """What a kind of target implies."""

    name: str
    loss: str
    losses: tuple[str, ...]
    metric: str
    metrics: tuple[str, ...]
    heads: tuple[str, ...]
    """The first is taken where a recipe names none."""
