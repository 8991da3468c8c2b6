"""Extractive question answering: the span of a context that answers a question.

A long context is read in windows, each with the whole question; token 0 of a window stands for "no answer here".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.script import (
    SENTENCE_ENDS,
    UNSPACED,
    WORD_END,
    WORD_START,
    lazy_pattern,
    script_of,
    unbreakable_spans,
)
from permafrost.data.text import Segments
from permafrost.probes.metrics.bootstrap import bootstrap_ratio
from permafrost.probes.metrics.squad import answer_text, exact_match, normalize_answer, token_f1, widen_to_words
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
from permafrost.probes.tasks.rows import align_predictions, measured_ratio, pair_of_texts

QUESTION_WORD = lazy_pattern(
    rf"{WORD_START}(how\s+(?:many|much)|what|who|whom|whose|when|where|why|how|which){WORD_END}(?!-)", re.IGNORECASE
)
"""English question words; questions in other languages have none of them."""

WHO_FORMS = {"whom": "who", "whose": "who"}

OTHER = "other"
"""Group of questions without an English question word."""

_SENTENCE_SPACE = rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])"

_INSIDE = rf"(?:(?!{_SENTENCE_SPACE})[^.!?{SENTENCE_ENDS}])"

SENTENCE = re.compile(rf"{_INSIDE}+(?:[.!?](?![\s{UNSPACED}]){_INSIDE}*)*(?:[.!?]|[{SENTENCE_ENDS}]+[」』”’）]*)?")
"""Sentence that ends at a full stop; in scripts without spaces between words, such as Thai, also at a space."""


class AnswerScorer(CountScorer):
    """Scorer of answer spans, by the official rules of SQuAD, or of MLQA in scripts other than Latin."""

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return spans of whole words ``[row, 2]``, end exclusive, from ``[row, 3]``; 0 twice for no answer."""
        spans = predictions[:, :2].astype(np.int64).tolist()
        widened = [widen_to_words(context, *span) for context, span in zip(self.contexts, spans, strict=True)]
        return np.array(widened, np.int64).reshape(-1, 2)

    def counts(self, metric: str, decoded: NDArray[Any]) -> Counts:
        """As :meth:`CountScorer.counts`: the best value over the acceptable answers, and 1."""
        compare = self.metrics[metric]
        values = [
            max(compare(answer_text(context, span), gold, context) for gold in golds)
            for context, span, golds in zip(self.contexts, decoded, self.golds, strict=True)
        ]
        return np.array(values, np.float64), np.ones(len(values))

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
        """Acceptable answers of each row."""
        rows = self.rows.spans
        assert rows is not None
        by_row = [rows.characters[low:high] for low, high in pairwise(rows.offsets)]
        return [
            [context[first:last] for first, last in spans] for context, spans in zip(self.contexts, by_row, strict=True)
        ]


class Answering(Task):
    """The span of a context that answers a question."""

    kind = "answers"
    name = "answering"
    loss = "span"
    losses = ("span",)
    metric = "f1"
    metrics: ClassVar = {"f1": token_f1, "exact_match": exact_match}
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

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any]:
        """Return the span of the sentence that shares most words with the question, ``[row, 2]``, end exclusive."""
        spans = np.zeros((len(rows), 2), np.int64)
        for row, text in enumerate(corpus.texts[index] for index in rows.texts[:, 0]):
            assert isinstance(text, Segments)
            script = script_of(text.second)
            question = set(normalize_answer(text.first, script).split())
            sentences = list(SENTENCE.finditer(text.second))
            shared = [len(question & set(normalize_answer(match.group(), script).split())) for match in sentences]
            spans[row] = sentences[int(np.argmax(shared))].span() if sentences else (0, len(text.second))
        return spans

    def breakdown(self, scorer: AnswerScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield exact match and F1 of the questions with each question word, the most frequent word first."""
        words = np.array([question_word(question) for question in scorer.questions])
        by_metric = {metric: [scorer.counts(metric, spans)[0] for spans in decoded] for metric in ("exact_match", "f1")}
        for word in pd.Series(words).value_counts().index:
            in_group = words == word
            ones = np.ones(int(in_group.sum()))
            for metric, by_seed in by_metric.items():
                counts = [(values[in_group], ones) for values in by_seed]
                yield BreakdownRow("question word", str(word), metric, measured_ratio(counts, len(ones)))

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: AnswerScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return question, context, gold answer and predicted answer of every row, with exact match and F1."""
        gold = scorer.rows.spans
        assert gold is not None
        decoded = scorer.decode(predictions)
        spans = decoded * (decoded[:, :1] < decoded[:, 1:])  # 0 twice for an answer of white space alone
        metrics = {name: scorer.counts(name, decoded)[0] for name in ("exact_match", "f1")}
        return {
            "question": scorer.questions,
            "context": scorer.contexts,
            "target": [golds[0] for golds in scorer.golds],
            "target_start": gold.characters[gold.offsets[:-1], 0],
            "answer": [answer_text(context, span) for context, span in zip(scorer.contexts, decoded, strict=True)],
            "start": spans[:, 0],
            "end": spans[:, 1],
            "score": predictions[:, 2],
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
        """Return the answer to each question: a span of whole words of its context, with its probability as score."""
        texts = [Segments(question, context) for question, context in items]
        rows = Rows(np.arange(len(texts))[:, None], np.zeros(len(texts)))
        answers: list[Prediction] = []
        for text, (start, end, probability) in zip(texts, predict(texts, rows).tolist(), strict=True):
            first, last = widen_to_words(text.second, int(start), int(end))
            answers.append({"text": text.second[first:last], "start": first, "end": last, "score": probability})
        return [{"answer": answer} for answer in answers]

    def shuffled(self, corpus: Corpus, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return the rows with one answer each, at a random position of its context.

        It has as many words as the gold answer, or characters in scripts without spaces.
        """
        assert rows.spans is not None
        answers = []
        spans = rows.spans
        for text_indices, (first, last) in zip(rows.texts, spans.characters[spans.offsets[:-1]], strict=True):
            _, context = pair_of_texts(corpus, text_indices)
            words = unbreakable_spans(context)
            further_words = max(0, len(unbreakable_spans(context[first:last])) - 1)
            word = int(rng.integers(len(words) - further_words))
            answers.append((words[word][0], words[word + further_words][1]))
        random_spans = Spans(np.array(answers), np.zeros(len(answers), np.int64), np.arange(len(answers) + 1))
        return replace(rows, spans=random_spans)

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the question word of each row."""
        return [question_word(pair_of_texts(corpus, text_indices)[0] or "") for text_indices in rows.texts]

    def is_complete(self, space: OutputSpace) -> bool:
        """Return True: a span needs nothing else."""
        return True


def question_word(question: str) -> str:
    """Return the first English question word, ``how many`` and ``how much`` as one; ``other`` if there is none."""
    match = QUESTION_WORD().search(question)
    if not match:
        return OTHER
    word = " ".join(match[1].lower().split())
    return "how many/how much" if word in ("how many", "how much") else WHO_FORMS.get(word, word)
