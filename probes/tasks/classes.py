"""One of several classes for a text, or for a pair of texts."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.data.writing.script import WORD_END, WORD_START, lazy_pattern, units
from permafrost.probes.config.names import PROBABILITY
from permafrost.probes.metrics.bootstrap import bootstrap_centred, bootstrap_metric
from permafrost.probes.metrics.calibration import Temperature
from permafrost.probes.metrics.metrics import accuracy, f1, macro_f1
from permafrost.probes.metrics.probabilities import (
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    mean_loss,
    reliability,
    row_losses,
    softmax,
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
)
from permafrost.probes.tasks.examples import class_errors, text_names
from permafrost.probes.tasks.rows import (
    RowScorer,
    RowTask,
    align_predictions,
    measured_ratio,
    own_metric,
    pair_of_texts,
    precision_recall_f1,
    predict_items,
    text_columns,
)

NEGATION = lazy_pattern(
    rf"{WORD_START}(?:not|no|never|nobody|nothing|none|neither|nor|without|cannot){WORD_END}|n['’]t{WORD_END}",
    re.IGNORECASE,
)
"""English negation words."""

HIGH_OVERLAP = 0.5
"""Word overlap of two texts from which on it counts as high; see :func:`word_overlap`."""


class ClassScorer(RowScorer):
    """Scorer of one class per row."""

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return the most likely class ``[row]`` of logits ``[row, class]``."""
        return np.asarray(predictions.argmax(-1))


def _of_numbers(name: str, part: Metric) -> Callable[..., NDArray[Any]]:
    """Return a metric from outside, which is given class numbers."""
    metric = own_metric(name, part)
    return lambda prediction, target: metric(prediction.astype(np.int64), target.astype(np.int64))


class Classification(RowTask):
    """One class per text or pair."""

    kind = "class"
    name = "classification"
    loss = "cross_entropy"
    losses = ("cross_entropy",)
    metric = "accuracy"
    metrics: ClassVar = Registered({"accuracy": accuracy, "macro_f1": macro_f1, "f1": f1}, Metric, _of_numbers)
    heads = ("classes",)
    scorer_class = ClassScorer
    reference = "the commonest class of training"
    required = ("target", "label")

    def check(self, corpus: Corpus) -> None:
        """Raise a :class:`CorpusError` if there is a single class."""
        if len(corpus.labels) < 2:
            raise CorpusError(
                f"{corpus.name}: all its training rows are of the class '{corpus.labels[0]}'; add rows of a second "
                "class, or name another column for the class, last in corpus.columns."
            )

    def metric_names(self, corpus: Corpus) -> tuple[str, ...]:
        """As :meth:`Task.metric_names`; the F1 score is that of the second of two classes."""
        return tuple(name for name in self.metrics if name != "f1" or len(corpus.labels) == 2)

    def balanced_weights(self, rows: Rows) -> NDArray[np.float32]:
        """Return ``rows / (classes * rows of the class)``, as scikit-learn does, of the classes that occur; else 0."""
        counts: NDArray[np.int64] = np.bincount(rows.targets.astype(np.int64))
        weights = len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return np.where(counts > 0, weights, 0.0).astype(np.float32)

    def calibrate(self, predictions: NDArray[np.float32], corpus: Corpus, top: float) -> Calibrated | None:
        """Fit the temperature of the logits."""
        targets = corpus.split(corpus.selection_split).targets
        return Temperature(np.array([fit_temperature(predictions, targets)]))

    def calibration_tables(
        self, scorer: ClassScorer, outputs: Sequence[NDArray[np.float32]], calibrations: Sequence[Calibrated | None]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return log loss and calibration error of the probabilities, and their reliability by confidence.

        Both as the logits give them, and after the temperature, if one was fitted.
        """
        fitted = [temperature_of(calibration) for calibration in calibrations]
        stages = {UNCALIBRATED: [1.0] * len(fitted)} | ({CALIBRATED: fitted} if any(calibrations) else {})
        tables: dict[str, list[dict[str, Any]]] = {"calibration": [], "reliability": []}
        targets = scorer.rows.targets.astype(np.int64)
        for stage, temperatures in stages.items():
            seeds = list(zip(outputs, temperatures, strict=True))
            losses = [row_losses(logits, targets, temperature) for logits, temperature in seeds]
            confidence = [np.exp(log_probabilities(*seed).max(1)) for seed in seeds]
            correct = [(logits.argmax(-1) == targets).astype(np.float64) for logits in outputs]
            for metric, resampled in {
                "log_loss": bootstrap_metric(mean_loss, losses, targets),
                "ece": bootstrap_centred(expected_calibration_error, confidence, correct),
            }.items():
                if resampled:
                    about = {"stage": stage, "temperature": float(np.mean(temperatures)), "metric": metric}
                    tables["calibration"].append(about | asdict(resampled.estimate()))
            bins = reliability(np.concatenate(confidence), np.concatenate(correct))
            tables["reliability"] += [{"stage": stage} | each._asdict() for each in bins]
        return tables

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any]:
        """Return the most frequent class of the training rows for every row, ``[row]``."""
        return np.full(len(rows), int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax()))

    def breakdown(self, scorer: ClassScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield precision, recall and F1 of every class that occurs, then accuracy and shares of :func:`patterns`."""
        for code, label in enumerate(scorer.corpus.labels):
            predicted, gold = [classes == code for classes in decoded], scorer.rows.targets == code
            correct = [rows & gold for rows in predicted]
            yield from precision_recall_f1("class", label, predicted, [gold] * len(predicted), correct)
        wrong = [(classes != scorer.rows.targets).astype(np.float64) for classes in decoded]
        all_rows = np.ones(len(scorer.rows))
        for group, in_group in patterns(scorer.corpus, scorer.rows).items():
            n, group_rows = int(in_group.sum()), all_rows[in_group]
            figures = {
                "accuracy": [(1 - mistakes[in_group], group_rows) for mistakes in wrong],
                "share_of_rows": [(in_group.astype(np.float64), all_rows)],
                "share_of_mistakes": [(mistakes * in_group, mistakes) for mistakes in wrong],
            }
            for metric, counts in figures.items():
                yield BreakdownRow("pattern", group, metric, measured_ratio(counts, n))

    def confusion(self, scorer: ClassScorer, decoded: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return gold and predicted class of each row."""
        names = np.array(scorer.corpus.labels)
        return names[scorer.rows.targets.astype(np.int64)], names[decoded.astype(np.int64)]

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: ClassScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return texts, target, predicted class and probability of each class of every row."""
        probabilities = calibrated_softmax(predictions, calibration)
        target, label = self.confusion(scorer, scorer.decode(predictions))
        by_class = {PROBABILITY + name: probabilities[:, code] for code, name in enumerate(scorer.corpus.labels)}
        return text_columns(scorer) | {"target": target, "label": label} | by_class

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return the mistakes, the surest first."""
        return [class_errors(predictions)]

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by row; classes are in the order of the corpus."""
        aligned = align_predictions(base, other, [*text_names(base), "target"], ("label",))
        if isinstance(aligned, str):
            return aligned
        ordered = [name.removeprefix(PROBABILITY) for name in map(str, base) if name.startswith(PROBABILITY)]
        present = sorted({name for table in (base, other) for column in self.required for name in table[column]})
        codes = {name: code for code, name in enumerate(dict.fromkeys([*ordered, *present]))}
        target = np.array([codes[name] for name in aligned[0].index.get_level_values("target").astype(str)])
        by_run = [[np.array([codes[name] for name in frame[seed].astype(str)]) for seed in frame] for frame in aligned]
        return [bootstrap_metric(self.metrics[metric], seeds, target) for seeds in by_run]

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return a label for each item, with the calibrated probability of every class."""
        logits = predict_items(items, predict)
        probabilities = calibrated_softmax(logits, space.calibration)
        return [
            {
                "label": space.labels[code],
                "probabilities": dict(zip(space.labels, map(float, row), strict=True)),
            }
            for code, row in zip(logits.argmax(1).tolist(), probabilities, strict=True)
        ]

    def is_complete(self, space: OutputSpace) -> bool:
        """Return whether there are classes, and the calibration is a temperature above 0, or none."""
        fitted = space.calibration
        is_temperature = isinstance(fitted, Temperature) and len(fitted.temperature) == 1 and fitted.temperature[0] > 0
        return len(space.labels) > 1 and (fitted is None or bool(is_temperature))

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the class of each row."""
        return [corpus.labels[int(code)] for code in rows.targets]


UNCALIBRATED, CALIBRATED = "uncalibrated", "calibrated"
"""Probabilities as the logits give them, and after the temperature."""


def temperature_of(calibration: Calibrated | None) -> float:
    """Return the temperature that was fitted; 1 if none was."""
    return float(calibration.temperature[0]) if isinstance(calibration, Temperature) else 1.0


def calibrated_softmax(logits: NDArray[np.float32], calibration: Calibrated | None) -> NDArray[np.float32]:
    """Return the probabilities of logits ``[row, class]`` after the temperature, if there is one."""
    return softmax(logits / np.float32(temperature_of(calibration)))


def patterns(corpus: Corpus, rows: Rows) -> dict[str, NDArray[np.bool_]]:
    """Return groups of rows by surface patterns, group name -> ``[row]``, each pattern with its complement.

    The patterns are English negation in the last text, and high word overlap of the second text of a pair with the
    first. A pattern that all rows or none have gives no group.
    """
    pairs = [pair_of_texts(corpus, text_indices) for text_indices in rows.texts]
    negated = np.array([bool(NEGATION().search(second)) for _, second in pairs], bool)
    groups = {"negation": negated, "no negation": ~negated}
    if pairs and pairs[0][0] is not None:
        high = np.array([word_overlap(first or "", second) >= HIGH_OVERLAP for first, second in pairs], bool)
        groups |= {"high word overlap": high, "low word overlap": ~high}
    return {name: in_group for name, in_group in groups.items() if in_group.any() and not in_group.all()}


def word_overlap(first: str, second: str) -> float:
    """Return the share of the distinct words of ``second`` that ``first`` contains; 0 if it has none.

    In scripts without spaces, characters are compared instead of words.
    """
    words = set(units(second.lower()))
    return len(words & set(units(first.lower()))) / max(1, len(words))
