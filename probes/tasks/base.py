"""Interface of a kind of task, and parts that several kinds share: scorers, breakdown rows, decoding.

A task is everything that depends on the kind of the targets: what it needs of a corpus, which heads and losses fit,
decoding of predictions, metrics with bootstrap intervals over rows, result tables, predictions for new texts, the
untrained reference and the control targets. How a probe is trained on it is in :mod:`permafrost.probes.objectives`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.encoding import TargetEncoding
from permafrost.data.corpora.records import PAIR as PAIR  # noqa: PLC0414
from permafrost.data.corpora.records import QUESTION as QUESTION  # noqa: PLC0414
from permafrost.data.corpora.records import RANKED as RANKED  # noqa: PLC0414
from permafrost.data.corpora.records import SINGLE as SINGLE  # noqa: PLC0414
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plugin_registry import find, fitting_names, is_known
from permafrost.data.plugins import Head, Metric
from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import Text
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.metrics.bootstrap import BootstrapSamples, Estimate, bootstrap_ratio
from permafrost.probes.metrics.calibration import Calibration, NullThreshold, Temperature, Thresholds
from permafrost.probes.results.grid import Examples, Grid

Item = tuple[str, ...]
"""Texts of one item to predict: a sentence, a pair, or a question and its context."""

Target = str | float | None
"""Gold label or score of an item; None if unknown."""

Prediction = dict[str, Any]
"""Prediction for one item as users receive it; its keys depend on the task."""

Predict = Callable[[Sequence[Text], Rows], NDArray[np.float32]]
"""Function from distinct texts and rows of them to the predictions of a trained probe, without an axis of members."""

Calibrated = Calibration | Thresholds | NullThreshold | Temperature
"""What is fitted to raw predictions on validation rows, and needed to decode or scale others."""

Counts = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Numerator and denominator of a metric for every row, ``[row]`` each."""

Decoded = Sequence[NDArray[Any]]
"""Decoded predictions, one array per seed."""

ResampledPair = Sequence[BootstrapSamples | None]
"""Metric of two runs on the same resampled rows; None if it is undefined."""


class BreakdownRow(NamedTuple):
    """Metric of one group of rows."""

    kind: str
    """Grouping criterion: class, label, pattern, entity type, answer or question word."""

    group: str
    metric: str
    measured: Estimate


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputSpace:
    """What a trained probe predicts, for :meth:`Task.answers`."""

    labels: tuple[str, ...]
    """Classes, labels or tags, in the order of the logits."""

    score_range: tuple[float, float] | None
    """Lowest and highest score of the corpus; None unless the targets are scores."""

    calibration: Calibrated | None
    """What the task fitted on validation rows; None if it needs nothing. See :meth:`Task.calibrate`."""

    first_number: int | None = None
    """Number of the first label, if rows may have numbers instead of names; else None."""


class Scorer(ABC):
    """Decoding and metrics of the predictions for one split."""

    def __init__(self, metrics: Mapping[str, Any], corpus: Corpus, split: str) -> None:
        """Create a scorer; ``metrics`` are those of its task."""
        self.metrics, self.corpus, self.rows = metrics, corpus, corpus.split(split)

    @property
    def size(self) -> int:
        """Number of rows, or of what else the metrics are means over."""
        return len(self.rows)

    @abstractmethod
    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return the decoded predictions of one member, from ``[row, ...]`` or ``[word, ...]``."""

    @abstractmethod
    def resampled(self, metric: str, decoded: Decoded) -> BootstrapSamples | None:
        """Return the bootstrap of a metric, averaged over several decoded predictions (seeds); None if undefined."""

    @abstractmethod
    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """Return a metric; NaN if undefined."""


class CountScorer(Scorer):
    """Scorer whose metrics are ratios of counts summed over rows."""

    @abstractmethod
    def counts(self, metric: str, decoded: NDArray[Any]) -> Counts:
        """Return numerator and denominator of a metric for every row."""

    def resampled(self, metric: str, decoded: Decoded) -> BootstrapSamples | None:
        """As :meth:`Scorer.resampled`."""
        return bootstrap_ratio([self.counts(metric, predictions) for predictions in decoded])

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`, but 0 if there is nothing to count."""
        numerator, denominator = self.counts(metric, decoded)
        return float(numerator.sum() / denominator.sum()) if denominator.sum() else 0.0


class Task(ABC):
    """A kind of task. Subclasses are added by :func:`permafrost.probes.tasks.registry.register`."""

    kind: ClassVar[str]
    """Value of ``corpus.target``."""

    encoding: ClassVar[type[TargetEncoding] | None] = None
    """Encoding of its targets, of a kind that :data:`permafrost.data.corpora.targets.TARGETS` does not have."""

    name: ClassVar[str]
    loss: ClassVar[str]
    """Default loss."""

    losses: ClassVar[tuple[str, ...]]
    metric: ClassVar[str]
    """Default selection metric."""

    metrics: ClassVar[Mapping[str, Any]]
    """Metric name -> what the scorer measures it with; iteration is over ours."""

    heads: ClassVar[tuple[str, ...]]
    """Heads of a probe that fit, the default first; a head from outside takes the place of the last one."""

    scorer_class: ClassVar[type[Scorer]]
    reads_tokens: ClassVar[bool] = False
    """Whether its heads have an output for every token."""

    text_counts: ClassVar[tuple[int, ...]] = (1, 2)
    """Numbers of texts that a row may have; a question with its context is one text."""

    empty_is_target: ClassVar[bool] = False
    """Whether an empty field is a target, and not an unknown one."""

    target_is_column: ClassVar[bool] = True
    """Whether the target of an item is a single field of a file."""

    unit: ClassVar[str] = "rows"
    """Plural of what metrics are means over, and what is resampled for intervals."""

    compares_texts: ClassVar[bool] = False
    """Whether its untrained reference is the cosine of the latents of two texts."""

    reference: ClassVar[str]
    """The untrained reference in words."""

    def check(self, corpus: Corpus) -> None:  # noqa: B027  most tasks can learn from any corpus
        """Raise a :class:`CorpusError` if there is nothing to learn from a corpus."""

    def scorer(self, corpus: Corpus, split: str) -> Scorer:
        """Return the scorer of a split."""
        return self.scorer_class(self.metrics, corpus, split)

    def has_metric(self, name: str) -> bool:
        """Return whether a metric fits, ours or one from outside."""
        return name in self.metrics or (is_known(Metric, name) and self.kind in find(Metric, name).targets)

    def metric_names(self, corpus: Corpus) -> tuple[str, ...]:
        """Return our metrics of a corpus."""
        return tuple(self.metrics)

    def head(self, spec: ProbeSpec, texts_per_row: int) -> str:
        """Return the name of the head; of one from outside, that of ours whose place it takes.

        Raises:
            SpecError: the recipe names a head that does not fit.
        """
        if spec.head not in Head.built_in and self.kind in find(Head, spec.head).targets:
            return self.heads[-1]
        if spec.head not in ("auto", *self.heads):
            fitting = fitting_names(Head, self.kind, self.heads, spec.head)
            raise SpecError(f"probe.head = '{spec.head}' does not fit {self.name}{fitting}")
        return self.heads[0] if spec.head == "auto" else spec.head

    def parse_target(self, space: OutputSpace, value: str, column: str, spec: CorpusSpec) -> Target:
        """Return the gold target of an item to predict, from the field ``column`` of its file.

        Raises:
            CorpusError: the field holds no target of this task; the message lacks the location.
        """
        return parse_label(space, value, column)

    def text_names(self, texts_per_row: int) -> Item:
        """Return the names of the texts of an item to predict."""
        return PAIR if texts_per_row == 2 else SINGLE

    def calibrate(self, predictions: NDArray[np.float32], corpus: Corpus, top: float) -> Calibrated | None:
        """Fit what decoding needs besides the predictions of the split that selects; None if it needs nothing.

        Predictions are of one member, or the mean of several; ``top`` is the largest one possible, of identical texts.
        """
        return None

    def fixed_calibration(self, space: OutputSpace) -> Calibrated | None:
        """Return what a trained probe decodes with whatever the rows are, those of other data included."""
        return space.calibration

    def balanced_weights(self, rows: Rows) -> NDArray[np.float32] | None:
        """Return weights for the loss by which all classes of some rows count alike; None if there are no classes."""
        return None

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any] | None:
        """Return the decoded predictions of a reference without a probe; None if it is the cosine of the latents."""
        return None

    def breakdown(self, scorer: Any, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield the metrics of groups of rows."""
        return iter(())

    def calibration_tables(
        self, scorer: Any, outputs: Sequence[NDArray[np.float32]], calibrations: Sequence[Calibrated | None]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return tables on how well the probabilities of each seed are calibrated, name -> rows; none without any."""
        return {}

    def confusion(self, scorer: Any, decoded: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return gold and predicted name of each row or word; None if the targets are no classes."""
        return None

    required: ClassVar[tuple[str, ...]] = ("target",)
    """Columns that a prediction table must have for :meth:`examples` and :meth:`paired`."""

    numbers: ClassVar[tuple[str, ...]] = ()
    """Columns of the prediction table that hold numbers; probabilities of labels do too."""

    @abstractmethod
    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: Any, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return the columns of the prediction table of a split, name -> values."""

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return tables or marked texts of the page that show predictions, mistakes first."""
        return []

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """Return a metric of two prediction tables on the same resampled rows; or why it cannot be compared."""
        return "no predictions"

    @abstractmethod
    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return the prediction for each new item, as users receive it."""

    def compared(self, items: Sequence[Item], answers: list[Prediction]) -> list[Prediction]:
        """Return the predictions for all items, with what depends on the other items."""
        return answers

    @abstractmethod
    def shuffled(self, corpus: Corpus, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return rows with random targets, which a probe can only fit by memorising them."""

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return a short description of the target of each row."""
        raise NotImplementedError

    def label_problem(self, labels: Sequence[str]) -> str:
        """Return what is wrong with the labels of a stored probe, as a clause; empty if nothing is."""
        return ""

    def is_complete(self, space: OutputSpace) -> bool:
        """Return whether a stored probe has what its predictions need."""
        return len(space.labels) > 1


def parse_label(space: OutputSpace, value: str, column: str) -> str:
    """Return the label that a field names, as its name or as its number if labels have numbers."""
    labels, first = space.labels, space.first_number
    if value in labels:
        return value
    if first is not None and value.isascii() and value.isdigit() and 0 <= int(value) - first < len(labels):
        return labels[int(value) - first]
    raise CorpusError(f"unknown label {value!r} in column '{column}'. {nearest(value, labels)}")
