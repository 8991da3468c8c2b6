"""Spans: the best answer that the numbers of tokens spell."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.ragged import bounds, ranges
from permafrost.data.script import STOPS, UNSPACED, WORD_END, WORD_START, script_of
from permafrost.data.text import Segments
from permafrost.probes.inputs.alignment import answer_tokens, windows_of
from permafrost.probes.inputs.latents import ProbeInputs, ragged_of
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.squad import answer_text, exact_match, normalised, overlap, trimmed, whole_words
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.tasks.base import (
    Answer,
    Answers,
    Columns,
    CountScorer,
    Item,
    Line,
    Read,
    Scorer,
    chunks,
    measured_ratio,
    only_order,
)
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.losses import LOSSES

LONGEST = 30
"""Most tokens of an answer."""


def best_spans(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest answer of every window: start and end chosen together, the end at or after the start.

    Source: Devlin et al., "BERT" (2019), section 4.2; the product of the two probabilities in place of their sum of
    logits, so that windows of one text compare.

    Args:
        logits: ``[..., window, token, 2]``, -inf where no answer can stand; token 0 stands for no answer.

    Returns:
        first and last token ``[..., window]``, and the probability of both.
    """
    start, end = torch.log_softmax(logits, -2).unbind(-1)
    start, end = start[..., 1:], end[..., 1:]
    tokens = start.shape[-1]
    if not tokens:
        nothing = np.zeros(start.shape[:-1], np.int64)
        return nothing, nothing, nothing.astype(np.float32)
    scores = torch.full((*start.shape, min(LONGEST, tokens)), -torch.inf)
    for more in range(scores.shape[-1]):
        scores[..., : tokens - more, more] = start[..., : tokens - more] + end[..., more:]
    best, place = scores.flatten(-2).max(-1)
    first = place // scores.shape[-1]
    last = first + place % scores.shape[-1]
    return (first + 1).numpy(), (last + 1).numpy(), best.exp().numpy()


QUESTION = re.compile(
    rf"{WORD_START}(how\s+(?:many|much)|what|who|whom|whose|when|where|why|how|which){WORD_END}(?!-)", re.IGNORECASE
)
"""Negations and question words of English; texts in other languages have none of them."""

PEOPLE = {"whom": "who", "whose": "who"}

OTHER = "other"


def by_question_word(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Exact match and F1 of the questions that each question word asks, the commonest first."""
    assert isinstance(scorer, AnswerScorer)
    texts = [corpus.texts[text] for text in scorer.rows.texts[:, 0]]
    words = np.array([question_word(text.first if isinstance(text, Segments) else text) for text in texts])
    counts = {metric: [scorer.counts(metric, one)[0] for one in answers] for metric in ("exact_match", "f1")}
    for word in pd.Series(words).value_counts().index:
        group = words == word
        for metric, values in counts.items():
            ones = np.ones(int(group.sum()))
            yield "question word", str(word), metric, measured_ratio([(one[group], ones) for one in values], len(ones))


def question_word(question: str) -> str:
    """The first English question word, ``how many`` and ``how much`` as one; ``other`` where there is none."""
    found = QUESTION.search(question)
    if not found:
        return OTHER
    word = " ".join(found[1].lower().split())
    return "how many/how much" if word in ("how many", "how much") else PEOPLE.get(word, word)


class SpanObjective:
    """Where the answer of every row starts and ends, over the windows of its text."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        assert inputs.spans is not None
        self.inputs, self.rows, self.spans = inputs, rows, inputs.spans
        self.windows, self.offsets = windows_of(inputs, rows)

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """``[window, 2]``: first and last token of the answer within the window, 0 where it is not there."""
        return answer_tokens(self.inputs, self.rows, self.windows, self.offsets)

    def loss(
        self, probe: Probe, how: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; every window of a row counts the same."""
        chosen = only_order(rows)
        taken = ranges(self.offsets[chosen], np.diff(self.offsets)[chosen])
        return LOSSES[name](self._logits(probe, how, taken).float(), torch.from_numpy(self.targets[taken]))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, row, 3]``: first character of the answer in its context, the first after it, and how likely it is.

        The best span of all windows; -1 twice where no token of the context was read.
        """
        return self._spans(probe, len(probe.layout.members), lambda logits: logits)

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """The best span by the mean of the probabilities that the members give each token."""
        return np.asarray(
            self._spans(probe, 1, lambda logits: torch.softmax(logits, -2).mean(0, keepdim=True).log())[0]
        )

    def _spans(self, probe: Probe, members: int, meet: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        assert self.inputs.offsets is not None
        how, member_of = shared_reads(probe.layout), np.repeat(np.arange(len(self.rows)), np.diff(self.offsets))
        said = np.full((members, len(self.rows), 3), -1, np.float32)
        said[..., 2] = 0
        for taken in chunks(self.inputs, probe, self.windows):
            first, last, likely = best_spans(meet(self._logits(probe, how, taken).detach()))
            starts = self.inputs.offsets[self.windows[taken]]
            begin, end = self.spans[starts + first, 0], self.spans[starts + last, 1]
            for member in range(len(said)):
                for place, row in enumerate(member_of[taken]):
                    if likely[member, place] > said[member, row, 2]:
                        said[member, row] = begin[member, place], end[member, place], likely[member, place]
        return said

    def _logits(self, probe: Probe, how: SharedReads, taken: NDArray[np.int64]) -> Tensor:
        """``[member, window, token, 2]``; -inf where no answer can stand, but for token 0, which says that none is."""
        assert self.inputs.offsets is not None
        windows = self.windows[taken]
        states = ragged_of(self.inputs, how, windows)
        flat = probe(states, how)
        real = np.arange(max(states.lengths)) < np.array(states.lengths)[:, None]
        within = ranges(self.inputs.offsets[windows], np.array(states.lengths))
        allowed = self.spans[within, 0] >= 0
        allowed[bounds(np.array(states.lengths))[:-1]] = True
        padded: Tensor = flat.new_full((len(flat), *real.shape, flat.shape[-1]), -torch.inf)
        padded[:, torch.from_numpy(real)] = flat.masked_fill(~torch.from_numpy(allowed)[:, None], -torch.inf)
        return padded


def answer_spans(run: LoadedRun, items: Sequence[Item], read: Read) -> list[Answer]:
    """The answer to each question: a stretch of its context, in whole words."""
    texts = [Segments(question, context) for question, context in items]
    rows = Rows(np.arange(len(texts))[:, None], np.zeros(len(texts)))
    said = SpanObjective(read(texts), rows).predict_mean(run.probe)
    found = []
    for text, (start, end, likely) in zip(texts, said.tolist(), strict=True):
        first, last = whole_words(text.second, int(start), int(end))
        found.append({"text": text.second[first:last], "start": first, "end": last, "score": likely})
    return [{"answer": one} for one in found]


def answer_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> Columns:
    """Predicted and gold answer of every row, with EM and F1."""
    assert isinstance(scorer, AnswerScorer)
    marks = scorer.rows.spans
    assert marks is not None
    answers = scorer.decode(predictions)
    places = [trimmed(context, *span) for context, span in zip(scorer.contexts, answers.tolist(), strict=True)]
    texts = [corpus.texts[text] for text in scorer.rows.texts[:, 0]]
    judged = {name: scorer.counts(name, answers)[0] for name in ("exact_match", "f1")}
    return {
        "question": [text.first for text in texts if isinstance(text, Segments)],
        "context": scorer.contexts,
        "target": [golds[0] for golds in scorer.golds],
        "target_start": marks.characters[marks.offsets[:-1], 0],
        "answer": [answer_text(text, span) for text, span in zip(scorer.contexts, answers, strict=True)],
        "start": [first for first, _ in places],
        "end": [last for _, last in places],
        "score": predictions[:, 2],
    } | judged


_GAP = rf"(?<=[{UNSPACED}])\s+(?=[{UNSPACED}])"

_IN = rf"(?:(?!{_GAP})[^.!?{STOPS}])"

SENTENCE = re.compile(rf"{_IN}+(?:[.!?](?![\s{UNSPACED}]){_IN}*)*(?:[.!?]|[{STOPS}]+[」』”’）]*)?")
"""Ends at a full stop; in scripts that are written without spaces at a space too, as in Thai."""


def likeliest_sentences(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[row, 2]``: first character, and the first after, of the sentence with most units of the question."""
    found = np.zeros((len(rows), 2), np.int64)
    for row, text in enumerate(corpus.texts[place] for place in rows.texts[:, 0]):
        assert isinstance(text, Segments)
        script = script_of(text.second)
        asked = set(normalised(text.first, script).split())
        sentences = list(SENTENCE.finditer(text.second))
        shared = [len(asked & set(normalised(one.group(), script).split())) for one in sentences]
        found[row] = sentences[int(np.argmax(shared))].span() if sentences else (0, len(text.second))
    return found


class AnswerScorer(CountScorer):
    """Questions with an answer in a context, by the official rules of SQuAD, or of MLQA in other scripts."""

    def decode(self, said: NDArray[Any]) -> NDArray[Any]:
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
        texts = [self.corpus.texts[text] for text in self.rows.texts[:, 0]]
        return [text if isinstance(text, str) else text.second for text in texts]

    @cached_property
    def golds(self) -> list[list[str]]:
        """``[row]``: the acceptable answers of each."""
        marks = self.rows.spans
        assert marks is not None
        spans = [marks.characters[low:high] for low, high in zip(marks.offsets, marks.offsets[1:], strict=False)]
        return [
            [context[first:last] for first, last in some] for context, some in zip(self.contexts, spans, strict=True)
        ]
