"""Scoring: what was said of a split against what is true of it, as figures with intervals over rows.

What is said is first turned into answers (a number, a class, a tag a word, a place in a context); figures are of those.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data.corpus import Corpus, Kind, Rows
from probes.answers import answer_text, exact_match, overlap, whole_words
from probes.entities import entity_counts, valid_tags
from probes.metrics import CORRELATIONS, METRICS, Resampled, resample, resample_ratio


class Scorer(Protocol):
    """Figures of one split."""

    rows: Rows

    def answers(self, said: NDArray[Any]) -> NDArray[Any]:
        """What one member says, ``[row, ...]`` or ``[word, ...]``, as its answers."""

    def resampled(self, metric: str, answers: Sequence[NDArray[Any]]) -> Resampled | None:
        """A metric over resampled rows, of several answers (seeds) their mean; None where it does not exist."""

    def value(self, metric: str, answers: NDArray[Any]) -> float:
        """A metric; nan where it does not exist."""


class RowScorer:
    """Rows that have a number or a class each."""

    def __init__(self, corpus: Corpus, split: str) -> None:
        self.rows = corpus.split(split)

    def answers(self, said: NDArray[Any]) -> NDArray[Any]:
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


class TagScorer(CountScorer):
    """Sentences with a tag a word. Entities count whole: right where both ends and the type are."""

    def answers(self, said: NDArray[Any]) -> NDArray[Any]:
        """``[word, tag]`` logits -> ``[word]``, the likeliest tags that follow each other as IOB2 allows."""
        assert self.rows.marks is not None
        return valid_tags(said, self.rows.marks.offsets, self.corpus.labels)

    def counts(self, metric: str, answers: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`CountScorer.counts`: words for accuracy, else entities."""
        marks = self.rows.marks
        assert marks is not None
        if metric == "accuracy":
            right = np.add.reduceat((answers == marks.codes).astype(np.float64), marks.offsets[:-1])
            return right, np.diff(marks.offsets).astype(np.float64)
        said, true, both = self.entities(answers).sum(1).astype(np.float64).T
        wholes = {"precision": said, "recall": true, "f1": (said + true) / 2}
        return both, wholes[metric]

    def entities(self, answers: NDArray[Any]) -> NDArray[np.int64]:
        """``[row, type, 3]``: entities said, true, and both, of every type in the order of its first label."""
        assert self.rows.marks is not None
        return entity_counts(answers, self.rows.marks, self.corpus.labels)


class AnswerScorer(CountScorer):
    """Questions with an answer in a context, by the official rules of SQuAD, or of MLQA in other scripts."""

    def answers(self, said: NDArray[Any]) -> NDArray[Any]:
        """``[row, 3]`` -> ``[row, 2]``, first character and the first after, of whole words; 0 twice if none."""
        spans = said[:, :2].astype(np.int64).tolist()
        whole = [whole_words(context, *span) for context, span in zip(self.contexts, spans, strict=True)]
        return np.array(whole, np.int64).reshape(-1, 2)

    def counts(self, metric: str, answers: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`CountScorer.counts`: the best over the acceptable answers, of one a row."""
        judge = {"f1": overlap, "exact_match": exact_match}[metric]
        found = [
            max(judge(answer_text(context, span), gold, context) for gold in golds)
            for context, span, golds in zip(self.contexts, answers, self.golds, strict=True)
        ]
        return np.array(found, np.float64), np.ones(len(found))

    @cached_property
    def contexts(self) -> list[str]:
        """``[row]``."""
        texts = [self.corpus.texts[text] for text in self.rows.sides[:, 0]]
        return [text if isinstance(text, str) else text.second for text in texts]

    @cached_property
    def golds(self) -> list[list[str]]:
        """``[row]``: the acceptable answers of each."""
        marks = self.rows.marks
        assert marks is not None
        spans = [marks.spans[low:high] for low, high in zip(marks.offsets, marks.offsets[1:], strict=False)]
        return [
            [context[first:last] for first, last in some] for context, some in zip(self.contexts, spans, strict=True)
        ]


SCORERS: dict[Kind, Callable[[Corpus, str], Scorer]] = {
    "score": RowScorer,
    "class": RowScorer,
    "tags": TagScorer,
    "answers": AnswerScorer,
}


def scorer_of(corpus: Corpus, split: str) -> Scorer:
    """How what is said of a split is scored."""
    return SCORERS[corpus.kind](corpus, split)
