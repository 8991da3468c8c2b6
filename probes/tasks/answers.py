"""Extractive question answering: the span of a context that answers a question.

A long context is read in windows, each with the whole question; token 0 of a window stands for "no answer here". If
the corpus has questions without an answer, the probe abstains from those whose null score exceeds that of the best span
by more than a threshold, which is chosen on validation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.records import CorpusError
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.text import Segments
from permafrost.data.writing.script import unbreakable_spans
from permafrost.probes.metrics.bootstrap import bootstrap_ratio
from permafrost.probes.metrics.calibration import NullThreshold, best_null_threshold
from permafrost.probes.metrics.questions import closest_sentence, question_word
from permafrost.probes.metrics.squad import answer_text, best_score, exact_match, token_f1, widen_to_words
from permafrost.probes.results.grid import Examples, Grid
from permafrost.probes.tasks.base import (
    QUESTION,
    BreakdownRow,
    Calibrated,
    Counts,
    CountScorer,
    Decoded,
    Item,
    OutputSpace,
    Predict,
    Prediction,
    ResampledPair,
    Task,
)
from permafrost.probes.tasks.examples import answer_examples
from permafrost.probes.tasks.rows import align_predictions, measured_ratio, own_answer_metric, pair_of_texts

HAS_ANSWER, NO_ANSWER = "has answer", "no answer"
"""Groups of questions of a corpus in which some have no answer."""


def null_scores(predictions: NDArray[Any]) -> NDArray[Any]:
    """Return the null score less the score of the best span, ``[row, 4] -> [row]``: log of a ratio of probabilities."""
    scores: NDArray[Any] = predictions[:, 3] - np.log(np.maximum(predictions[:, 2], np.finfo(np.float32).tiny))
    return scores


def abstained(predictions: NDArray[Any], calibration: Calibrated) -> NDArray[np.bool_]:
    """Return which rows are predicted to have no answer."""
    assert isinstance(calibration, NullThreshold)
    return np.asarray(null_scores(predictions) > calibration.null)


class AnswerScorer(CountScorer):
    """Scorer of answer spans, by the official rules of SQuAD, or of MLQA in other languages and scripts.

    If any question of the corpus has no answer, by those of SQuAD 2.0.
    """

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return spans of whole words ``[row, 2]``, end exclusive, from ``[row, 4]``; 0 twice for no answer.

        Without a calibration, as after an epoch of training, the threshold is the best one of these rows: with a fixed
        one, all epochs that abstain from every question would be equal.
        """
        decoded = _widened(self.contexts, predictions)
        if self.may_abstain or calibration:
            decoded[abstained(predictions, calibration or self.best_threshold(predictions))] = 0
        return decoded

    def best_threshold(self, predictions: NDArray[Any]) -> NullThreshold:
        """Return the threshold of null scores with the highest F1 on the rows."""
        answered, _ = self.counts("f1", _widened(self.contexts, predictions))
        unanswered, _ = self.counts("f1", np.zeros((len(predictions), 2), np.int64))
        return NullThreshold(np.array([best_null_threshold(null_scores(predictions), answered - unanswered)]))

    def counts(self, metric: str, decoded: NDArray[Any]) -> Counts:
        """As :meth:`CountScorer.counts`: the best value over the acceptable answers, and 1."""
        compare, language = self.metrics[metric], self.corpus.language
        answers = [answer_text(context, span) for context, span in zip(self.contexts, decoded, strict=True)]
        rows = zip(answers, self.golds, self.contexts, strict=True)
        if self.may_abstain:
            values = [best_score(compare, answer, golds, context, language) for answer, golds, context in rows]
        else:
            values = [
                max(compare(answer, gold, context, language) for gold in golds) for answer, golds, context in rows
            ]
        return np.array(values, np.float64), np.ones(len(values))

    @cached_property
    def may_abstain(self) -> bool:
        """Whether a question of any split has no answer."""
        return any(
            rows.spans is not None and bool(rows.spans.are_missing.any()) for rows in self.corpus.splits.values()
        )

    @cached_property
    def questions(self) -> list[str]:
        """Question of each row; empty if the row has none."""
        return [pair_of_texts(self.corpus, text_indices)[0] or "" for text_indices in self.rows.texts]

    @cached_property
    def contexts(self) -> list[str]:
        """Context of each row."""
        return [pair_of_texts(self.corpus, text_indices)[1] for text_indices in self.rows.texts]

    @cached_property
    def golds(self) -> list[list[str]]:
        """Acceptable answers of each row, none if the question has no answer."""
        return gold_answers(self.corpus, self.rows)


class Answering(Task):
    """The span of a context that answers a question."""

    kind = "answers"
    name = "answering"
    loss = "span"
    losses = ("span",)
    metric = "f1"
    metrics: ClassVar = Registered({"f1": token_f1, "exact_match": exact_match}, Metric, own_answer_metric)
    heads = ("span",)
    scorer_class = AnswerScorer
    reads_tokens = True
    text_counts = (1,)
    target_is_column = False
    reference = "the sentence that shares most words with the question"
    required = ("question", "context", "target", "answer", "start", "end", "score", "exact_match", "f1")
    numbers = ("target_start", "start", "end", "score", "exact_match", "f1")

    def text_names(self, texts_per_row: int) -> Item:
        """As :meth:`Task.text_names`."""
        return QUESTION

    def check(self, corpus: Corpus) -> None:
        """Raise a :class:`CorpusError` if no training question has an answer."""
        train = corpus.split("train")
        assert train.spans is not None
        if train.spans.are_missing.all():
            raise CorpusError(
                f"{corpus.name}: none of its {len(train):,} training questions has an answer; set corpus.columns to "
                "those of question, context and answer."
            )

    def calibrate(self, predictions: NDArray[np.float32], corpus: Corpus, top: float) -> Calibrated | None:
        """Choose the threshold of null scores with the highest F1 on the split that selects.

        None if every question of the corpus has an answer.
        """
        scorer = self.scorer_class(self.metrics, corpus, corpus.selection_split)
        return scorer.best_threshold(predictions) if scorer.may_abstain else None

    def fixed_calibration(self, space: OutputSpace) -> Calibrated:
        """As :meth:`Task.fixed_calibration`: a probe that never learnt to abstain gives every question an answer."""
        return space.calibration or NullThreshold(np.array([np.inf]))

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any]:
        """Return the span of the sentence that shares most words with the question, ``[row, 2]``, end exclusive."""
        spans = np.zeros((len(rows), 2), np.int64)
        for row, text in enumerate(corpus.texts[index] for index in rows.texts[:, 0]):
            assert isinstance(text, Segments)
            spans[row] = closest_sentence(text.first, text.second)
        return spans

    def breakdown(self, scorer: AnswerScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield exact match and F1 of the questions with an answer and without, if the corpus has both.

        Then those of the questions with each question word, the most frequent word first.
        """
        groupings = {"question word": [question_word(question) for question in scorer.questions]}
        if scorer.may_abstain:
            groupings = {"answer": [HAS_ANSWER if golds else NO_ANSWER for golds in scorer.golds]} | groupings
        by_metric = {metric: [scorer.counts(metric, spans)[0] for spans in decoded] for metric in ("exact_match", "f1")}
        for kind, groups in groupings.items():
            for group, count in pd.Series(groups).value_counts().items():
                in_group, ones = np.array(groups) == group, np.ones(count)
                for metric, by_seed in by_metric.items():
                    counts = [(values[in_group], ones) for values in by_seed]
                    yield BreakdownRow(kind, str(group), metric, measured_ratio(counts, count))

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: AnswerScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return question, context, gold answer and predicted answer of every row, with exact match and F1.

        If the corpus has questions without an answer, also whether one is predicted, and the null score.
        """
        gold = scorer.rows.spans
        assert gold is not None
        decoded = scorer.decode(predictions, calibration)
        spans = decoded * (decoded[:, :1] < decoded[:, 1:])  # 0 twice for an answer of white space alone
        metrics = {name: scorer.counts(name, decoded)[0] for name in ("exact_match", "f1")}
        null = _null_columns(predictions, spans) if scorer.may_abstain else {}
        starts = np.zeros(len(gold.are_missing), np.int64)
        starts[~gold.are_missing] = gold.characters[gold.offsets[:-1][~gold.are_missing], 0]
        return {
            "question": scorer.questions,
            "context": scorer.contexts,
            "target": [golds[0] if golds else "" for golds in scorer.golds],
            "target_start": starts,
            "answer": [answer_text(context, span) for context, span in zip(scorer.contexts, decoded, strict=True)],
            "start": spans[:, 0],
            "end": spans[:, 1],
            "score": predictions[:, 2],
            **null,
        } | metrics

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return contexts with marked answers, mistakes first."""
        return answer_examples(predictions)

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by question; each row holds its own metrics."""
        aligned = align_predictions(base, other, ["question", "context", "target"], (metric,))
        if isinstance(aligned, str):
            return aligned
        ones = np.ones(len(aligned[0]))
        return [bootstrap_ratio([(frame[seed].to_numpy(), ones) for seed in frame]) for frame in aligned]

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return the answer to each question: a span of whole words of its context, with its probability as score.

        If the probe may abstain, also whether there is an answer, and the null score.
        """
        texts = [Segments(question, context) for question, context in items]
        rows = Rows(np.arange(len(texts))[:, None], np.zeros(len(texts)))
        predictions = predict(texts, rows)
        spans = _widened([text.second for text in texts], predictions)
        columns: dict[str, NDArray[Any]] = {"start": spans[:, 0], "end": spans[:, 1], "score": predictions[:, 2]}
        if isinstance(space.calibration, NullThreshold):
            spans[abstained(predictions, space.calibration)] = 0
            columns |= _null_columns(predictions, spans)
        fields = zip(*(column.tolist() for column in columns.values()), strict=True)
        answers = [dict(zip(columns, values, strict=True)) for values in fields]
        return [
            {"answer": {"text": text.second[answer["start"] : answer["end"]]} | answer}
            for text, answer in zip(texts, answers, strict=True)
        ]

    def shuffled(self, corpus: Corpus, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return the rows with one answer each, at a random position of its context; as many as before have none.

        It has as many words as a gold answer, or characters in scripts without spaces.
        """
        assert rows.spans is not None
        lengths = [  # in words, of the first answer; 0 if there is none
            max(1, len(unbreakable_spans(golds[0]))) if golds else 0 for golds in gold_answers(corpus, rows)
        ]
        if 0 in lengths:
            lengths = rng.permutation(lengths).tolist()
        answers = []
        for text_indices, length in zip(rows.texts, lengths, strict=True):
            if length:
                words = unbreakable_spans(pair_of_texts(corpus, text_indices)[1])
                last = min(length, len(words)) - 1
                word = int(rng.integers(len(words) - last))
                answers.append((words[word][0], words[word + last][1]))
        offsets = offsets_from_lengths(np.sign(lengths))
        return replace(rows, spans=Spans(np.array(answers), np.zeros(len(answers), np.int64), offsets))

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the question word of each row."""
        return [question_word(pair_of_texts(corpus, text_indices)[0] or "") for text_indices in rows.texts]

    def is_complete(self, space: OutputSpace) -> bool:
        """Return whether the calibration is a threshold, or none."""
        return space.calibration is None or isinstance(space.calibration, NullThreshold)


def gold_answers(corpus: Corpus, rows: Rows) -> list[list[str]]:
    """Return the acceptable answers of each row, none if the question has no answer."""
    assert rows.spans is not None
    by_row = [rows.spans.characters[low:high] for low, high in pairwise(rows.spans.offsets)]
    contexts = [pair_of_texts(corpus, text_indices)[1] for text_indices in rows.texts]
    return [[context[first:last] for first, last in spans] for context, spans in zip(contexts, by_row, strict=True)]


def _widened(contexts: Sequence[str], predictions: NDArray[Any]) -> NDArray[np.int64]:
    """Return the best spans, of whole words, ``[row, 2]``; 0 twice for none."""
    spans = predictions[:, :2].astype(np.int64).tolist()
    widened = [widen_to_words(context, *span) for context, span in zip(contexts, spans, strict=True)]
    return np.array(widened, np.int64).reshape(-1, 2)


def _null_columns(predictions: NDArray[Any], spans: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return what predictions hold if a question may have no answer; their score is then the probability of none."""
    has_answer = spans[:, 0] < spans[:, 1]
    scores = np.where(has_answer, predictions[:, 2], np.exp(predictions[:, 3]))
    return {"score": scores, "has_answer": has_answer, "null_score": null_scores(predictions)}
