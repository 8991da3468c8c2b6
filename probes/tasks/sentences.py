"""TODO: probes/tasks/sentences.py."""

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
from permafrost.probes.metrics.bootstrap import Resampled, resample
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.metrics import METRICS
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.sentence_probes import ClassProbe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.results.metric_row import in_unit
from permafrost.probes.tasks.base import (
    CHUNK_BYTES,
    Answer,
    Answers,
    Columns,
    Item,
    Line,
    Read,
    Scorer,
    measured_ratio,
    precision_recall_f1,
)
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.losses import LOSSES

NEGATION = re.compile(
    rf"{WORD_START}(?:not|no|never|nobody|nothing|none|neither|nor|without|cannot){WORD_END}|n['’]t{WORD_END}",
    re.IGNORECASE,
)

HIGH_OVERLAP = 0.5
"""Share of the second text's distinct units that the first has too, from which their overlap is high."""


def by_class(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Precision, recall and F1 of every class that is true or said of a row; ``n`` is how many are true."""
    for code, label in enumerate(corpus.labels):
        true = scorer.rows.targets == code
        said = [one == code for one in answers]
        if true.any() or any(one.any() for one in said):
            both = [one & true for one in said]
            yield from precision_recall_f1("class", label, said, [true] * len(said), both, int(true.sum()))


def by_pattern(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Accuracy of the rows that have a pattern and of those that have not, and each one's share of the mistakes."""
    wrong = [(one != scorer.rows.targets).astype(np.float64) for one in answers]
    every = np.ones(len(scorer.rows))
    for group, there in patterns(corpus, scorer.rows).items():
        n, ones = int(there.sum()), every[there]
        figures = {
            "accuracy": [(1 - one[there], ones) for one in wrong],
            "share_of_rows": [(there.astype(np.float64), every)],
            "share_of_mistakes": [(one * there, one) for one in wrong],
        }
        for metric, counts in figures.items():
            yield "pattern", group, metric, measured_ratio(counts, n)


def patterns(corpus: Corpus, rows: Rows) -> dict[str, NDArray[np.bool_]]:
    """Name of a group -> which rows are in it, each beside its complement; a pattern that all or no rows have is none.

    Of pairs the second text is looked at, and how many of its units the first has too. Negation is that of English.
    """
    pairs = [pair_of_texts(corpus, sides) for sides in rows.texts]
    negated = np.array([bool(NEGATION.search(second)) for _, second in pairs], bool)
    found = {"negation": negated, "no negation": ~negated}
    if pairs and pairs[0][0] is not None:
        near = np.array([overlap(first or "", second) >= HIGH_OVERLAP for first, second in pairs], bool)
        found |= {"high word overlap": near, "low word overlap": ~near}
    return {name: there for name, there in found.items() if there.any() and not there.all()}


def overlap(first: str, second: str) -> float:
    """Share of the distinct units of ``second`` that ``first`` has too: words, or characters where there are no spaces.

    0 if it has none.
    """
    words = set(units(second.lower()))
    return len(words & set(units(first.lower()))) / max(1, len(words))


def pair_of_texts(corpus: Corpus, sides: NDArray[np.int64]) -> tuple[str | None, str]:
    """The text before, where there are two, and the text that is looked at."""
    last = corpus.texts[sides[-1]]
    if isinstance(last, Segments):
        return last.first, last.second
    return (str(corpus.texts[sides[0]]) if len(sides) > 1 else None), last


class RowObjective:
    """A number or the logits of classes for every row."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        self.inputs, self.rows = inputs, rows

    def loss(
        self, probe: Probe, how: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`."""
        dtype = torch.int64 if isinstance(probe, ClassProbe) else torch.float32
        target = torch.from_numpy(self.rows.targets[rows[orders]]).to(dtype)
        return LOSSES[name](probe(self.inputs.text_states(how, self.rows.texts[rows]), how), target)

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, row]`` numbers or ``[member, row, class]`` logits."""
        if probe.layout.tokens and len(probe.layout.members) > 1:  # each pools with queries of its own
            singles = [unstack(probe, member).eval() for member in range(len(probe.layout.members))]
            return np.concatenate([self.predict(single) for single in singles])
        how, sides = shared_reads(probe.layout), self.rows.texts
        each = len(probe.layout.sources) * self.inputs.values.shape[2] * 4 * sides.shape[1] * self.inputs.longest
        chunk = max(1, CHUNK_BYTES // each)
        parts = [
            probe(self.inputs.text_states(how, sides[None, at : at + chunk]), how) for at in range(0, len(sides), chunk)
        ]
        said: NDArray[np.float32] = torch.cat(parts, 1).detach().numpy()
        return said

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """The mean of what the members say."""
        return np.asarray(self.predict(probe).mean(0))


def answer_scores(run: LoadedRun, items: Sequence[Item], read: Read) -> list[Answer]:
    """A score for each item, in the corpus's unit."""
    assert run.calibration is not None
    assert run.score_range is not None
    scores = in_unit(run.calibration(_of_rows(run, items, read)), run.score_range)
    return [{"score": float(score)} for score in scores]


def answer_classes(run: LoadedRun, items: Sequence[Item], read: Read) -> list[Answer]:
    """A class for each item, with the probability of every class."""
    shares = probabilities(_of_rows(run, items, read))
    return [
        {"label": run.labels[int(some.argmax())], "probabilities": dict(zip(run.labels, map(float, some), strict=True))}
        for some in shares
    ]


def _of_rows(run: LoadedRun, items: Sequence[Item], read: Read) -> NDArray[np.float32]:
    """What is said of rows of one text or two, the mean over members: ``[row]`` or ``[row, class]``."""
    index = {text: place for place, text in enumerate(sorted({text for item in items for text in item}))}
    sides = np.array([[index[text] for text in item] for item in items])
    return RowObjective(read(list(index)), Rows(sides, np.zeros(len(sides)))).predict_mean(run.probe)


def score_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> Columns:
    """Score in the corpus's unit, raw prediction and target of every row."""
    unit = corpus.score_range or (0.0, 1.0)
    assert calibration is not None
    score = in_unit(calibration(predictions), unit)
    return _texts(corpus, scorer) | {"target": in_unit(scorer.rows.targets, unit), "score": score, "raw": predictions}


def class_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> Columns:
    """Predicted class, probability of each class and target of every row."""
    shares = probabilities(predictions)
    names = np.array(corpus.labels)
    columns = {PROBABILITY + label: shares[:, code] for code, label in enumerate(corpus.labels)}
    labels = {"target": names[scorer.rows.targets.astype(np.int64)], "label": names[scorer.decode(predictions)]}
    return _texts(corpus, scorer) | labels | columns


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[row, class]`` logits to probabilities."""
    values: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return values


def _texts(corpus: Corpus, scorer: Scorer) -> dict[str, Any]:
    sides = scorer.rows.texts
    names = ["sentence"] if sides.shape[1] == 1 else ["sentence1", "sentence2"]
    return {name: [str(corpus.texts[i]) for i in column] for name, column in zip(names, sides.T, strict=True)}


def commonest_class(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[row]``: the class that most training rows have."""
    return np.full(len(rows), int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax()))


class RowScorer:
    """Rows that have a number or a class each."""

    def __init__(self, corpus: Corpus, split: str) -> None:
        self.rows = corpus.split(split)

    def decode(self, said: NDArray[Any]) -> NDArray[Any]:
        """``[row]`` numbers as they are; of ``[row, class]`` logits the most likely class."""
        return said.argmax(-1) if said.ndim == 2 else said

    def resampled(self, metric: str, answers: Sequence[NDArray[Any]]) -> Resampled | None:
        """As :meth:`Scorer.resampled`."""
        return resample(metric, answers, self.rows.targets)

    def value(self, metric: str, answers: NDArray[Any]) -> float:
        """As :meth:`Scorer.value`."""
        if metric in CORRELATIONS and np.ptp(answers) == 0:
            return math.nan
        return float(METRICS[metric](answers, self.rows.targets))
