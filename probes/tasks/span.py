"""Extractive question answering: objective, scorer, breakdown by question word, predictions and baseline.

A long context is read in windows, each with the whole question; token 0 of a window stands for "no answer here".
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.ragged import concatenate_ranges, pad_index
from permafrost.data.script import SENTENCE_ENDS, UNSPACED, WORD_END, WORD_START, script_of
from permafrost.data.text import Segments
from permafrost.probes.inputs.alignment import answer_tokens
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.token_inputs import require_tokens
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.squad import (
    answer_text,
    exact_match,
    normalize_answer,
    token_f1,
    trim_span,
    widen_to_words,
)
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.tasks.base import (
    BreakdownRow,
    CountScorer,
    Decoded,
    InputReader,
    Item,
    Prediction,
    Scorer,
    TableColumns,
    Task,
    chunks,
    measured_ratio,
)
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.losses import LOSSES

ANSWERING = Task(
    name="answering",
    loss="span",
    losses=("span",),
    metric="f1",
    metrics=("f1", "exact_match"),
    heads=("span",),
)

MAX_ANSWER_TOKENS = 30
"""Maximum length of a predicted answer, in tokens."""


def best_spans(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the most likely answer of every window; its end is at or after its start.

    Source: Devlin et al., "BERT" (2019), section 4.2; with the product of the two probabilities instead of the sum of
    the logits, so that windows of one text are comparable.

    Args:
        logits: ``[..., window, token, 2]``, -inf for tokens that no answer can contain; token 0 stands for no answer.

    Returns:
        First and last token ``[..., window]``, and the probability of the span.
    """
    start, end = torch.log_softmax(logits, -2).unbind(-1)
    start, end = start[..., 1:], end[..., 1:]
    tokens = start.shape[-1]
    if not tokens:
        zeros = np.zeros(start.shape[:-1], np.int64)
        return zeros, zeros, zeros.astype(np.float32)
    scores = torch.full((*start.shape, min(MAX_ANSWER_TOKENS, tokens)), -torch.inf)
    for further in range(scores.shape[-1]):
        scores[..., : tokens - further, further] = start[..., : tokens - further] + end[..., further:]
    best, index = scores.flatten(-2).max(-1)
    first = index // scores.shape[-1]
    last = first + index % scores.shape[-1]
    return (first + 1).numpy(), (last + 1).numpy(), best.exp().numpy()


QUESTION_WORD = re.compile(
    rf"{WORD_START}(how\s+(?:many|much)|what|who|whom|whose|when|where|why|how|which){WORD_END}(?!-)", re.IGNORECASE
)
"""English question words; questions in other languages have none of them."""

WHO_FORMS = {"whom": "who", "whose": "who"}

OTHER = "other"
"""Group of questions without an English question word."""


def breakdown_by_question_word(scorer: Scorer, decoded: Decoded, corpus: Corpus) -> Iterator[BreakdownRow]:
    """Yield exact match and F1 of the questions with each question word, the most frequent word first."""
    assert isinstance(scorer, AnswerScorer)
    texts = [corpus.texts[index] for index in scorer.rows.texts[:, 0]]
    words = np.array([question_word(text.first if isinstance(text, Segments) else text) for text in texts])
    by_metric = {metric: [scorer.counts(metric, spans)[0] for spans in decoded] for metric in ("exact_match", "f1")}
    for word in pd.Series(words).value_counts().index:
        in_group = words == word
        ones = np.ones(int(in_group.sum()))
        for metric, by_seed in by_metric.items():
            counts = [(values[in_group], ones) for values in by_seed]
            yield BreakdownRow("question word", str(word), metric, measured_ratio(counts, len(ones)))


def question_word(question: str) -> str:
    """Return the first English question word, ``how many`` and ``how much`` as one; ``other`` if there is none."""
    match = QUESTION_WORD.search(question)
    if not match:
        return OTHER
    word = " ".join(match[1].lower().split())
    return "how many/how much" if word in ("how many", "how much") else WHO_FORMS.get(word, word)


class SpanObjective:
    """Objective of answer spans: start and end token of the answer in every window of a text."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        self.inputs, self.rows = require_tokens(inputs), rows
        self.tokens = self.inputs.tokens
        self.windows, self.offsets = self.tokens.windows_of(rows.texts[:, 0])

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """First and last token of the answer in each window, ``[window, 2]``; 0 twice if it is not in the window."""
        return answer_tokens(self.tokens, self.rows, self.windows, self.offsets)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; every window of a row has the same weight."""
        row_indices = single_order(rows)
        window_indices = concatenate_ranges(self.offsets[row_indices], np.diff(self.offsets)[row_indices])
        logits = self._logits(probe, reads, window_indices).float()
        return LOSSES[loss_name](logits, torch.from_numpy(self.targets[window_indices]))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return start, end (exclusive) and probability of the best span of all windows, ``[member, row, 3]``.

        Start and end are characters of the context; -1 twice if no token of the context was read.
        """
        return self._best_spans(probe, len(probe.layout.members), lambda logits: logits)

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the best span by the mean of the members' token probabilities, ``[row, 3]``."""
        return np.asarray(self._best_spans(probe, 1, _log_mean_probabilities)[0])

    def _best_spans(self, probe: Probe, members: int, combine: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        reads, row_of_window = shared_reads(probe.layout), np.repeat(np.arange(len(self.rows)), np.diff(self.offsets))
        predictions = np.full((members, len(self.rows), 3), -1, np.float32)
        predictions[..., 2] = 0
        for indices in chunks(self.inputs, probe, self.windows):
            first, last, probability = best_spans(combine(self._logits(probe, reads, indices).detach()))
            starts = self.tokens.offsets[self.windows[indices]]
            begin, end = self.tokens.spans[starts + first, 0], self.tokens.spans[starts + last, 1]
            for member in range(members):
                for window, row in enumerate(row_of_window[indices]):
                    if probability[member, window] > predictions[member, row, 2]:
                        span = begin[member, window], end[member, window], probability[member, window]
                        predictions[member, row] = span
        return predictions

    def _logits(self, probe: Probe, reads: SharedReads, indices: NDArray[np.int64]) -> Tensor:
        """Return logits ``[member, window, token, 2]``; -inf for all tokens but those of the context and token 0."""
        windows = self.windows[indices]
        states = self.inputs.ragged(reads, windows)
        flat = probe(states, reads)
        index, is_token = pad_index(np.array(states.lengths))
        allowed = self.tokens.spans[self.tokens.tokens_of(windows), 0] >= 0
        allowed[index[:, 0]] = True
        padded: Tensor = flat.new_full((len(flat), *is_token.shape, flat.shape[-1]), -torch.inf)
        padded[:, torch.from_numpy(is_token)] = flat.masked_fill(~torch.from_numpy(allowed)[:, None], -torch.inf)
        return padded


def _log_mean_probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(logits, -2).mean(0, keepdim=True).log()


def predict_answers(run: LoadedRun, items: Sequence[Item], read: InputReader) -> list[Prediction]:
    """Return the answer to each question: a span of whole words of its context, with its probability as score."""
    texts = [Segments(question, context) for question, context in items]
    rows = Rows(np.arange(len(texts))[:, None], np.zeros(len(texts)))
    spans = SpanObjective(read(texts), rows).predict_mean(run.probe)
    answers: list[Prediction] = []
    for text, (start, end, probability) in zip(texts, spans.tolist(), strict=True):
        first, last = widen_to_words(text.second, int(start), int(end))
        answers.append({"text": text.second[first:last], "start": first, "end": last, "score": probability})
    return [{"answer": answer} for answer in answers]


def answer_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> TableColumns:
    """Return question, context, gold answer and predicted answer of every row, with exact match and F1."""
    assert isinstance(scorer, AnswerScorer)
    gold = scorer.rows.spans
    assert gold is not None
    decoded = scorer.decode(predictions)
    spans = [trim_span(context, *span) for context, span in zip(scorer.contexts, decoded.tolist(), strict=True)]
    texts = [corpus.texts[index] for index in scorer.rows.texts[:, 0]]
    metrics = {name: scorer.counts(name, decoded)[0] for name in ("exact_match", "f1")}
    return {
        "question": [text.first for text in texts if isinstance(text, Segments)],
        "context": scorer.contexts,
        "target": [golds[0] for golds in scorer.golds],
        "target_start": gold.characters[gold.offsets[:-1], 0],
        "answer": [answer_text(context, span) for context, span in zip(scorer.contexts, decoded, strict=True)],
        "start": [first for first, _ in spans],
        "end": [last for _, last in spans],
        "score": predictions[:, 2],
    } | metrics


_SENTENCE_SPACE = rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])"

_INSIDE = rf"(?:(?!{_SENTENCE_SPACE})[^.!?{SENTENCE_ENDS}])"

SENTENCE = re.compile(rf"{_INSIDE}+(?:[.!?](?![\s{UNSPACED}]){_INSIDE}*)*(?:[.!?]|[{SENTENCE_ENDS}]+[」』”’）]*)?")
"""Sentence that ends at a full stop; in scripts without spaces between words, such as Thai, also at a space."""


def most_similar_sentences(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """Return the span of the context sentence that shares most words with the question, ``[row, 2]``, end exclusive."""
    spans = np.zeros((len(rows), 2), np.int64)
    for row, text in enumerate(corpus.texts[index] for index in rows.texts[:, 0]):
        assert isinstance(text, Segments)
        script = script_of(text.second)
        question = set(normalize_answer(text.first, script).split())
        sentences = list(SENTENCE.finditer(text.second))
        shared = [len(question & set(normalize_answer(match.group(), script).split())) for match in sentences]
        spans[row] = sentences[int(np.argmax(shared))].span() if sentences else (0, len(text.second))
    return spans


class AnswerScorer(CountScorer):
    """Scorer of answer spans, by the official rules of SQuAD, or of MLQA in scripts other than Latin."""

    def decode(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return spans of whole words ``[row, 2]``, end exclusive, from ``[row, 3]``; 0 twice for no answer."""
        spans = predictions[:, :2].astype(np.int64).tolist()
        widened = [widen_to_words(context, *span) for context, span in zip(self.contexts, spans, strict=True)]
        return np.array(widened, np.int64).reshape(-1, 2)

    def counts(self, metric: str, decoded: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`CountScorer.counts`: the best value over the acceptable answers, and 1."""
        compare = {"f1": token_f1, "exact_match": exact_match}[metric]
        values = [
            max(compare(answer_text(context, span), gold, context) for gold in golds)
            for context, span, golds in zip(self.contexts, decoded, self.golds, strict=True)
        ]
        return np.array(values, np.float64), np.ones(len(values))

    @cached_property
    def contexts(self) -> list[str]:
        """Context of each row."""
        texts = [self.corpus.texts[index] for index in self.rows.texts[:, 0]]
        return [text if isinstance(text, str) else text.second for text in texts]

    @cached_property
    def golds(self) -> list[list[str]]:
        """Acceptable answers of each row."""
        rows = self.rows.spans
        assert rows is not None
        by_row = [rows.characters[low:high] for low, high in pairwise(rows.offsets)]
        return [
            [context[first:last] for first, last in spans] for context, spans in zip(self.contexts, by_row, strict=True)
        ]
