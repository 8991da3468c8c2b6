"""Label sets: any number of labels per text or pair of texts, each predicted by itself."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.label_sets import format_labels, parse_labels, read_labels
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.probes.config.names import PROBABILITY
from permafrost.probes.metrics.bootstrap import bootstrap_metric
from permafrost.probes.metrics.calibration import Thresholds, best_thresholds
from permafrost.probes.metrics.label_sets import (
    LabelStatistic,
    macro_f1,
    mean_average_precision,
    micro_f1,
    subset_accuracy,
)
from permafrost.probes.results.grid import Examples, Grid
from permafrost.probes.tasks.base import (
    BreakdownRow,
    Calibrated,
    Decoded,
    Item,
    OutputSpace,
    Predict,
    Prediction,
    ResampledPair,
    Target,
    parse_label,
)
from permafrost.probes.tasks.examples import label_errors, text_names
from permafrost.probes.tasks.rows import (
    RowScorer,
    RowTask,
    align_predictions,
    call_metric,
    precision_recall_f1,
    predict_items,
    text_columns,
    undefined_as_nan,
)

UNCALIBRATED = 0.5
"""Threshold of every label as long as none were chosen: during training, and for labels without validation rows."""

NEVER = 2.0
"""Threshold that no probability reaches."""


class LabelScorer(RowScorer):
    """Scorer of label sets."""

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return probability less threshold, ``[row, label]``, of logits; a label with 0 or more is predicted.

        A threshold does not change the order of the rows of its label, so ranking metrics are those of the logits.
        """
        return _sigmoid(predictions) - thresholds_of(calibration)


def thresholds_of(calibration: Calibrated | None) -> NDArray[np.float32] | float:
    """Return the thresholds ``[label]``, or one for all labels if none were chosen."""
    return calibration.values if isinstance(calibration, Thresholds) else UNCALIBRATED


def _of_predicted(metric: LabelStatistic) -> LabelStatistic:
    """Return a metric of predicted labels as a metric of margins."""

    def of_margins(margins: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
        return metric(margins >= 0, target, counts)

    return of_margins


def _of_sets(name: str, part: Metric) -> LabelStatistic:
    """Return a metric from outside of predicted labels, 0 or 1, as a metric of margins."""

    def of_margins(margins: NDArray[Any], target: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
        pair = (margins >= 0).astype(np.int64), target.astype(np.int64)
        if counts is None:
            return np.asarray(call_metric(name, part, *pair))
        resamples = ([np.repeat(rows, times.astype(np.int64), axis=0) for rows in pair] for times in counts)
        return np.array([undefined_as_nan(name, part, *rows) for rows in resamples])

    return of_margins


class MultiLabel(RowTask):
    """Several labels, or none, per text or pair."""

    kind = "labels"
    empty_is_target = True
    name = "multi-label classification"
    loss = "binary_cross_entropy"
    losses = ("binary_cross_entropy",)
    metric = "mean_average_precision"
    metrics: ClassVar = Registered(
        {
            "mean_average_precision": mean_average_precision,
            "micro_f1": _of_predicted(micro_f1),
            "macro_f1": _of_predicted(macro_f1),
            "subset_accuracy": _of_predicted(subset_accuracy),
        },
        Metric,
        _of_sets,
    )
    heads = ("labels",)
    scorer_class = LabelScorer
    reference = "the labels that at least half of the training rows have"
    required = ("target", "labels")

    def check(self, corpus: Corpus) -> None:
        """Raise a :class:`CorpusError` if no row that selects has a label."""
        if not corpus.split(corpus.selection_split).targets.any():
            raise CorpusError(
                f"{corpus.name}: none of its {corpus.selection_split} rows has a label; add rows with labels to it."
            )

    def calibrate(self, predictions: NDArray[np.float32], corpus: Corpus, top: float) -> Calibrated | None:
        """Choose the threshold of each label that has the highest F1 score on the rows that select.

        A label that no training row has cannot be learnt, and is never predicted.
        """
        rows, learnt = corpus.split(corpus.selection_split), corpus.split("train").targets.any(0)
        thresholds = np.where(learnt, best_thresholds(_sigmoid(predictions), rows.targets), NEVER)
        return Thresholds(thresholds.astype(np.float32))

    def balanced_weights(self, rows: Rows) -> NDArray[np.float32]:
        """Return rows without a label / rows with it, so that both count alike; 1 if all rows are alike."""
        positive = rows.targets.sum(0)
        negative = len(rows) - positive
        mixed = (positive > 0) & (negative > 0)
        return np.where(mixed, negative / np.maximum(positive, 1), 1.0).astype(np.float32)

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any]:
        """Return for every row the share of training rows that have each label, less one half, ``[row, label]``."""
        return np.tile(corpus.split("train").targets.mean(0) - UNCALIBRATED, (len(rows), 1))

    def breakdown(self, scorer: LabelScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield precision, recall and F1 of every label that occurs; ``n`` is the number of its gold rows."""
        for index, label in enumerate(scorer.corpus.labels):
            predicted, gold = [margins[:, index] >= 0 for margins in decoded], scorer.rows.targets[:, index] > 0
            correct = [rows & gold for rows in predicted]
            yield from precision_recall_f1("label", label, predicted, [gold] * len(predicted), correct)

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: LabelScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return texts, gold labels, predicted labels and probability of each label of every row."""
        names, probabilities = scorer.corpus.labels, _sigmoid(predictions)
        predicted = scorer.decode(predictions, calibration) >= 0
        by_label = {PROBABILITY + name: probabilities[:, index] for index, name in enumerate(names)}
        sets = {"target": joined(names, scorer.rows.targets > 0), "labels": joined(names, predicted)}
        return text_columns(scorer) | sets | by_label

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return the rows with the most wrong labels."""
        return [label_errors(predictions)]

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by row: probabilities are ranked, and predicted labels compared."""
        names = [name for name in map(str, base) if name.startswith(PROBABILITY)]
        if not names:
            return "no predictions"
        columns = names if metric == self.metric else ["labels"]
        by_column: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        for column in columns:
            aligned = align_predictions(base, other, [*text_names(base), "target"], (column,))
            if isinstance(aligned, str):
                return aligned
            by_column.append(aligned)
        labels = [name.removeprefix(PROBABILITY) for name in names]
        target = indicators(by_column[0][0].index.get_level_values("target"), labels)
        resampled = []
        for frames in zip(*by_column, strict=True):
            values = [
                np.stack([frame[seed] for frame in frames], 1)
                if columns is names
                else indicators(frames[0][seed], labels) - UNCALIBRATED
                for seed in frames[0]
            ]
            resampled.append(bootstrap_metric(self.metrics[metric], values, target))
        return resampled

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return the labels of each item, with the probability of every label."""
        probabilities = _sigmoid(predict_items(items, predict))
        predicted = probabilities >= thresholds_of(space.calibration)
        return [
            {
                "labels": [name for name, chosen in zip(space.labels, row, strict=True) if chosen],
                "probabilities": dict(zip(space.labels, map(float, values), strict=True)),
            }
            for row, values in zip(predicted, probabilities, strict=True)
        ]

    def parse_target(self, space: OutputSpace, value: str, column: str, spec: CorpusSpec) -> Target:
        """As :meth:`Task.parse_target`: the labels of the item, joined."""
        labels = parse_labels(f"column '{column}'", value, spec.label_separator)
        return format_labels([parse_label(space, label, column) for label in labels])

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the labels of each row, joined."""
        return joined(corpus.labels, rows.targets > 0)

    def is_complete(self, space: OutputSpace) -> bool:
        """Return whether there are labels, and a threshold for each."""
        thresholds = space.calibration
        return bool(space.labels) and isinstance(thresholds, Thresholds) and len(thresholds.values) == len(space.labels)


def indicators(cells: Iterable[object], labels: Sequence[str]) -> NDArray[np.float64]:
    """Return which labels each cell of joined names has, ``[row, label]`` of 0 and 1."""
    sets = [set(read_labels(str(cell))) for cell in cells]
    return np.array([[float(label in row) for label in labels] for row in sets])


def joined(names: Sequence[str], chosen: NDArray[np.bool_]) -> list[str]:
    """Return the names of the labels of each row, ``[row, label]`` -> ``a, b``."""
    return [format_labels([name for name, is_chosen in zip(names, row, strict=True) if is_chosen]) for row in chosen]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logistic function of logits, element by element."""
    import torch  # as above

    values: NDArray[np.float32] = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return values
