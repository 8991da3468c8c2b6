"""Shared parts of tasks: one target per row of a text or a pair, tables of two runs, metrics of groups of rows."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.plugin_registry import PluginError, named_errors
from permafrost.data.plugins import Metric
from permafrost.data.text import Segments
from permafrost.probes.metrics.bootstrap import BootstrapSamples, Estimate, bootstrap_metric, bootstrap_ratio
from permafrost.probes.tasks.base import BreakdownRow, Counts, Decoded, Item, Predict, Scorer, Task


class RowScorer(Scorer):
    """Scorer whose metrics compare the decoded predictions with the targets of the rows."""

    def resampled(self, metric: str, decoded: Decoded) -> BootstrapSamples | None:
        """As :meth:`Scorer.resampled`."""
        return bootstrap_metric(self.metrics[metric], decoded, self.rows.targets)

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`."""
        return float(self.metrics[metric](decoded, self.rows.targets))


def own_metric(name: str, part: Metric) -> Callable[..., NDArray[Any]]:
    """Return a metric from outside as one over the last axis: of all rows ``[row]``, or of resamples, one by one."""

    def metric(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        if target.ndim == 1:
            return np.asarray(call_metric(name, part, prediction, target))
        return np.array([undefined_as_nan(name, part, *pair) for pair in zip(prediction, target, strict=True)])

    return metric


def own_answer_metric(name: str, part: Metric) -> Callable[..., float]:
    """Return a metric from outside of a predicted and an acceptable answer."""
    return lambda answer, gold, *_: call_metric(name, part, answer, gold)


def call_metric(name: str, part: Metric, prediction: Any, target: Any) -> float:
    """Return a metric from outside; it is given copies, so that it cannot change what others are computed of.

    Raises:
        PluginError: it fails, or returns no number.
    """
    with named_errors(name, part, "fails; let it return nan where it is undefined"):
        value = part.function(copy.copy(prediction), copy.copy(target))
        value = value.item() if hasattr(value, "item") and not np.ndim(value) else value  # of numpy or torch
    if not isinstance(value, int | float):
        raise PluginError(f"the metric '{name}' must return one number, got {type(value).__name__} {value!s:.60}.")
    return float(value)


def undefined_as_nan(name: str, part: Metric, prediction: Any, target: Any) -> float:
    """Return a metric from outside of a resample; NaN if it refuses it, as one without a class may be.

    Its warnings would come a thousand times; those on all rows are shown.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return call_metric(name, part, prediction, target)
    except PluginError as error:
        if isinstance(error.__cause__, ValueError | ArithmeticError):
            return np.nan
        raise


class RowTask(Task):
    """Task with one target per row."""

    def shuffled(self, corpus: Corpus, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return the rows with their targets in random order."""
        return replace(rows, targets=rng.permutation(rows.targets))


def shuffle_targets(task: Task, corpus: Corpus, seed: int) -> Corpus:
    """Return the corpus with random training targets and the same rows as validation split.

    A probe can fit them only by memorising them. Source: Hewitt and Liang, "Designing and Interpreting Probes with
    Control Tasks" (2019), section 2. There a random target belongs to a word type, which occurs again in the test
    split; here it belongs to a row, so the fit is measured on the training rows themselves.
    """
    rows = task.shuffled(corpus, corpus.split("train"), np.random.default_rng(seed))
    return replace(corpus, splits={"train": rows, "validation": rows})


def text_columns(scorer: Scorer) -> dict[str, Any]:
    """Return the columns of a prediction table that hold the texts of every row."""
    texts = scorer.rows.texts
    names = ["sentence"] if texts.shape[1] == 1 else ["sentence1", "sentence2"]
    corpus = scorer.corpus
    return {name: [str(corpus.texts[index]) for index in column] for name, column in zip(names, texts.T, strict=True)}


def predict_items(items: Sequence[Item], predict: Predict) -> NDArray[np.float32]:
    """Return the predictions for new items, ``[row]`` or ``[row, class]``; each distinct text is read once."""
    distinct = sorted({text for item in items for text in item})
    indices = {text: index for index, text in enumerate(distinct)}
    texts = np.array([[indices[text] for text in item] for item in items])
    return predict(distinct, Rows(texts, np.zeros(len(texts))))


def pair_of_texts(corpus: Corpus, text_indices: NDArray[np.int64]) -> tuple[str | None, str]:
    """Return the first text, None if the row has one only, and the last text of a row."""
    last = corpus.texts[text_indices[-1]]
    if isinstance(last, Segments):
        return last.first, last.second
    return (str(corpus.texts[text_indices[0]]) if len(text_indices) > 1 else None), last


def align_predictions(
    base: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame] | str:
    """Return two prediction tables as ``[row, seed]`` of the same rows; or why they cannot be compared.

    Args:
        keys: columns that identify a row; rows that repeat are counted.
        columns: the first of these columns that a table has is compared.
    """
    first, second = (_rows_by_seed(table, keys, columns) for table in (base, other))
    if first is None or second is None:
        return "no predictions"
    if len(first) != len(second) or not first.index.sort_values().equals(second.index.sort_values()):
        return "not the same rows"
    return first, second.loc[first.index]


def _rows_by_seed(table: pd.DataFrame, keys: Sequence[str], columns: Sequence[str]) -> pd.DataFrame | None:
    """``[row, seed]`` of the first of some columns; None if it or a value is missing."""
    column = next((name for name in columns if name in table), None)
    if column is None or len(keys) < 2 or not set(keys) <= set(table):
        return None
    table = table.assign(seed=table["seed"].fillna(-1))
    table = table.assign(repeat=table.groupby([*keys, "seed"]).cumcount())
    by_seed = table.pivot(index=[*keys, "repeat"], columns="seed", values=column)
    return None if by_seed.isna().to_numpy().any() else by_seed


def precision_recall_f1(
    kind: str, group: str, predicted: Decoded, gold: Decoded, correct: Decoded
) -> Iterator[BreakdownRow]:
    """Yield precision, recall and F1 of one group, ``n`` its gold instances; nothing if it does not occur.

    Args:
        predicted, gold, correct: counts of each seed, ``[row]`` each.
    """
    if not any(rows.any() for rows in (*predicted, *gold)):
        return
    seeds = zip(predicted, gold, correct, strict=True)
    by_seed = [tuple(counts.astype(np.float64) for counts in seed) for seed in seeds]
    ratios = {
        "precision": [(correct, predicted) for predicted, _, correct in by_seed],
        "recall": [(correct, gold) for _, gold, correct in by_seed],
        "f1": [(correct, (predicted + gold) / 2) for predicted, gold, correct in by_seed],
    }
    for metric, counts in ratios.items():
        yield BreakdownRow(kind, group, metric, measured_ratio(counts, int(gold[0].sum())))


def measured_ratio(counts: Sequence[Counts], n: int) -> Estimate:
    """Return a ratio of sums, averaged over seeds, with its bootstrap interval; a single row has no interval."""
    if resampled := bootstrap_ratio(counts):
        return replace(resampled.estimate(), n=n)
    value = float(np.mean([numerator.sum() / max(denominator.sum(), 1) for numerator, denominator in counts]))
    return Estimate(value=value, low=None, high=None, n=n)
