"""Sentence tasks: one score or one class per text or pair of texts.

Objective, scorer, breakdowns by class and pattern, predictions for new items, prediction table and baseline.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.script import WORD_END, WORD_START, units
from permafrost.data.text import Segments
from permafrost.probes.config.names import CORRELATIONS, PROBABILITY
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.bootstrap import BootstrapSamples, bootstrap_metric
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.metrics import METRICS
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.sentence_probes import ClassProbe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.results.metric_row import to_corpus_range
from permafrost.probes.tasks.base import (
    BreakdownRow,
    Decoded,
    InputReader,
    Item,
    Prediction,
    Scorer,
    TableColumns,
    Task,
    chunk_size,
    measured_ratio,
    precision_recall_f1,
)
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.losses import LOSSES

SIMILARITY = Task(
    name="similarity",
    loss="log_variance",
    losses=("mse", "log_variance"),
    metric="spearman",
    metrics=("pearson", "spearman"),
    heads=("cosine", "regression"),
)

CLASSIFICATION = Task(
    name="classification",
    loss="cross_entropy",
    losses=("cross_entropy",),
    metric="accuracy",
    metrics=("accuracy", "macro_f1"),
    heads=("classes",),
)

NEGATION = re.compile(
    rf"{WORD_START}(?:not|no|never|nobody|nothing|none|neither|nor|without|cannot){WORD_END}|n['’]t{WORD_END}",
    re.IGNORECASE,
)
"""English negation words."""

HIGH_OVERLAP = 0.5
"""Word overlap of two texts from which on it counts as high; see :func:`word_overlap`."""


def breakdown_by_class(scorer: Scorer, decoded: Decoded, corpus: Corpus) -> Iterator[BreakdownRow]:
    """Yield precision, recall and F1 of every class that occurs; ``n`` is the number of its gold rows."""
    for code, label in enumerate(corpus.labels):
        gold = scorer.rows.targets == code
        predicted = [classes == code for classes in decoded]
        if gold.any() or any(rows.any() for rows in predicted):
            correct = [rows & gold for rows in predicted]
            yield from precision_recall_f1("class", label, predicted, [gold] * len(predicted), correct, int(gold.sum()))


def breakdown_by_pattern(scorer: Scorer, decoded: Decoded, corpus: Corpus) -> Iterator[BreakdownRow]:
    """Yield accuracy, share of the rows and share of the mistakes of every group of :func:`patterns`."""
    wrong = [(classes != scorer.rows.targets).astype(np.float64) for classes in decoded]
    all_rows = np.ones(len(scorer.rows))
    for group, in_group in patterns(corpus, scorer.rows).items():
        n, group_rows = int(in_group.sum()), all_rows[in_group]
        figures = {
            "accuracy": [(1 - mistakes[in_group], group_rows) for mistakes in wrong],
            "share_of_rows": [(in_group.astype(np.float64), all_rows)],
            "share_of_mistakes": [(mistakes * in_group, mistakes) for mistakes in wrong],
        }
        for metric, counts in figures.items():
            yield BreakdownRow("pattern", group, metric, measured_ratio(counts, n))


def patterns(corpus: Corpus, rows: Rows) -> dict[str, NDArray[np.bool_]]:
    """Return groups of rows by surface patterns, group name -> ``[row]``, each pattern with its complement.

    The patterns are English negation in the last text, and high word overlap of the second text of a pair with the
    first. A pattern that all rows or none have gives no group.
    """
    pairs = [pair_of_texts(corpus, text_indices) for text_indices in rows.texts]
    negated = np.array([bool(NEGATION.search(second)) for _, second in pairs], bool)
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


def pair_of_texts(corpus: Corpus, text_indices: NDArray[np.int64]) -> tuple[str | None, str]:
    """Return the first text, None if the row has one only, and the last text of a row."""
    last = corpus.texts[text_indices[-1]]
    if isinstance(last, Segments):
        return last.first, last.second
    return (str(corpus.texts[text_indices[0]]) if len(text_indices) > 1 else None), last


class RowObjective:
    """Objective of targets per row: scores or classes."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        self.inputs, self.rows = inputs, rows

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`."""
        dtype = torch.int64 if isinstance(probe, ClassProbe) else torch.float32
        target = torch.from_numpy(self.rows.targets[rows[orders]]).to(dtype)
        return LOSSES[loss_name](probe(self.inputs.text_states(reads, self.rows.texts[rows]), reads), target)

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return scores ``[member, row]`` or logits ``[member, row, class]``."""
        if probe.layout.tokens and len(probe.layout.members) > 1:  # members have different pooling queries
            singles = [unstack(probe, member).eval() for member in range(len(probe.layout.members))]
            return np.concatenate([self.predict(single) for single in singles])
        reads, texts = shared_reads(probe.layout), self.rows.texts
        row_bytes = len(probe.layout.sources) * self.inputs.width * 4 * texts.shape[1] * self.inputs.longest
        size = chunk_size(row_bytes)
        outputs = [
            probe(self.inputs.text_states(reads, texts[None, start : start + size]), reads)
            for start in range(0, len(texts), size)
        ]
        predictions: NDArray[np.float32] = torch.cat(outputs, 1).detach().numpy()
        return predictions

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the mean of the members' predictions."""
        return np.asarray(self.predict(probe).mean(0))


def predict_scores(run: LoadedRun, items: Sequence[Item], read: InputReader) -> list[Prediction]:
    """Return a score for each item, in the unit of the corpus."""
    assert run.calibration is not None
    assert run.score_range is not None
    scores = to_corpus_range(run.calibration(_mean_predictions(run, items, read)), run.score_range)
    return [{"score": float(score)} for score in scores]


def predict_classes(run: LoadedRun, items: Sequence[Item], read: InputReader) -> list[Prediction]:
    """Return a label for each item, with the probability of every class."""
    return [
        {
            "label": run.labels[int(row.argmax())],
            "probabilities": dict(zip(run.labels, map(float, row), strict=True)),
        }
        for row in probabilities(_mean_predictions(run, items, read))
    ]


def _mean_predictions(run: LoadedRun, items: Sequence[Item], read: InputReader) -> NDArray[np.float32]:
    """Return the mean predictions of the members, ``[row]`` or ``[row, class]``."""
    distinct = sorted({text for item in items for text in item})
    indices = {text: index for index, text in enumerate(distinct)}
    texts = np.array([[indices[text] for text in item] for item in items])
    return RowObjective(read(distinct), Rows(texts, np.zeros(len(texts)))).predict_mean(run.probe)


def score_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> TableColumns:
    """Return texts, target and score in the unit of the corpus, and raw prediction of every row."""
    unit = corpus.score_range or (0.0, 1.0)
    assert calibration is not None
    score = to_corpus_range(calibration(predictions), unit)
    target = to_corpus_range(scorer.rows.targets, unit)
    return _text_columns(corpus, scorer) | {"target": target, "score": score, "raw": predictions}


def class_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> TableColumns:
    """Return texts, target, predicted class and probability of each class of every row."""
    class_probabilities = probabilities(predictions)
    names = np.array(corpus.labels)
    columns = {PROBABILITY + label: class_probabilities[:, code] for code, label in enumerate(corpus.labels)}
    labels = {"target": names[scorer.rows.targets.astype(np.int64)], "label": names[scorer.decode(predictions)]}
    return _text_columns(corpus, scorer) | labels | columns


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of logits ``[row, class]``."""
    values: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return values


def _text_columns(corpus: Corpus, scorer: Scorer) -> dict[str, Any]:
    texts = scorer.rows.texts
    names = ["sentence"] if texts.shape[1] == 1 else ["sentence1", "sentence2"]
    return {name: [str(corpus.texts[index]) for index in column] for name, column in zip(names, texts.T, strict=True)}


def most_frequent_class(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """Return the most frequent class of the training rows for every row, ``[row]``."""
    return np.full(len(rows), int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax()))


class RowScorer:
    """Scorer of targets per row: scores or classes."""

    def __init__(self, corpus: Corpus, split: str) -> None:
        self.rows = corpus.split(split)

    def decode(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return scores ``[row]`` as they are, and the most likely class of logits ``[row, class]``."""
        return predictions.argmax(-1) if predictions.ndim == 2 else predictions

    def resampled(self, metric: str, decoded: Sequence[NDArray[Any]]) -> BootstrapSamples | None:
        """As :meth:`Scorer.resampled`."""
        return bootstrap_metric(metric, decoded, self.rows.targets)

    def value(self, metric: str, decoded: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`."""
        if metric in CORRELATIONS and np.ptp(decoded) == 0:
            return math.nan
        return float(METRICS[metric](decoded, self.rows.targets))
