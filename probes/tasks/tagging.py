"""TODO: probes/tasks/tagging.py."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.ragged import bounds, ranges
from permafrost.probes.inputs.alignment import first_tokens
from permafrost.probes.inputs.latents import ProbeInputs, ragged_of
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.entities import entity_counts, entity_types, valid_tags
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.tasks.base import (
    Answers,
    Columns,
    CountScorer,
    Line,
    Scorer,
    chunks,
    only_order,
    precision_recall_f1,
)
from permafrost.probes.tasks.losses import LOSSES

NOTHING, SEVERAL = "no entity", "several types"


def by_type(scorer: Scorer, answers: Answers, corpus: Corpus) -> Iterator[Line]:
    """Precision, recall and F1 of every type of entity, over resampled sentences; ``n`` is how many are true."""
    assert isinstance(scorer, TagScorer)
    counts = [scorer.entities(one) for one in answers]
    for place, name in enumerate(entity_types(corpus.labels)):
        said, true, both = ([one[:, place, column] for one in counts] for column in range(3))
        if any(one.any() for one in (*said, *true)):
            yield from precision_recall_f1("entity type", name, said, true, both, int(true[0].sum()))


IMPOSSIBLE = -1e9
"""The logit of a tag that a word without tokens cannot have."""


class TagObjective:
    """The logits of tags for every word, read off its first token."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        assert rows.spans is not None
        self.inputs, self.rows, self.marks = inputs, rows, rows.spans
        self.windows = inputs.windows[rows.texts[:, 0]]
        self.firsts = first_tokens(inputs, rows)

    def loss(
        self, probe: Probe, how: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; words beyond the end of a cut text cost nothing."""
        logits, words, there = self._logits(probe, how, only_order(rows))
        if not there.any():
            nothing: Tensor = logits.float().sum((1, 2)) * 0  # a mean of none would be nan
            return nothing
        codes = torch.from_numpy(self.marks.codes[words[there]])
        return LOSSES[name](logits[:, torch.from_numpy(there)].float(), codes.expand(logits.shape[0], -1))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """``[member, word, tag]`` logits; a word beyond the end of a cut text has the first tag, "O"."""
        how, outputs = shared_reads(probe.layout), getattr(probe, "outputs", 0)
        said = np.full((len(probe.layout.members), len(self.marks.codes), outputs), IMPOSSIBLE, np.float32)
        said[..., 0] = 0
        for rows in chunks(self.inputs, probe, self.windows):
            logits, words, there = self._logits(probe, how, rows)
            said[:, words[there]] = logits[:, torch.from_numpy(there)].detach().numpy()
        return said

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """The mean of what the members say."""
        return np.asarray(self.predict(probe).mean(0))

    def _logits(
        self, probe: Probe, how: SharedReads, rows: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.bool_]]:
        """Logits of the words of some rows ``[member, word, tag]``, which words, and whether each has a token."""
        assert self.inputs.offsets is not None
        windows = self.windows[rows]
        scores = probe(ragged_of(self.inputs, how, windows), how)
        starts = bounds(np.diff(self.inputs.offsets)[windows])[:-1]
        counts = np.diff(self.marks.offsets)[rows]
        words = ranges(self.marks.offsets[rows], counts)
        there = self.firsts[words] >= 0
        places = self.firsts[words] - np.repeat(self.inputs.offsets[windows] - starts, counts)
        return scores[:, torch.from_numpy(np.where(there, places, 0))], words, there


def tag_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> Columns:
    """Predicted and gold tag of every word."""
    marks, names = scorer.rows.spans, np.array(corpus.labels)
    assert marks is not None
    sentences = np.repeat(np.arange(len(scorer.rows)), np.diff(marks.offsets))
    texts = [corpus.texts[text] for text in scorer.rows.texts[sentences, 0]]
    words = [str(text)[first:last] for text, (first, last) in zip(texts, marks.characters.tolist(), strict=True)]
    labels = {"target": names[marks.codes], "label": names[scorer.decode(predictions)]}
    return {"sentence": sentences + 1, "word": words} | labels


def commonest_tags(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """``[word]``: the tag that each word has most often in training, as far as tags can follow each other."""
    train, labels = corpus.split("train"), len(corpus.labels)
    counts: dict[str, Counter[int]] = {}
    assert train.spans is not None
    assert rows.spans is not None
    for word, code in zip(_words(corpus, train), train.spans.codes.tolist(), strict=True):
        counts.setdefault(word, Counter())[code] += 1
    logits = np.zeros((len(rows.spans.codes), labels))
    for place, word in enumerate(_words(corpus, rows)):
        for code, times in counts.get(word, Counter({0: 1})).items():
            logits[place, code] = times
    return valid_tags(np.log(logits + 1e-3), rows.spans.offsets, corpus.labels)


def _words(corpus: Corpus, rows: Rows) -> list[str]:
    assert rows.spans is not None
    texts = np.repeat(rows.texts[:, 0], np.diff(rows.spans.offsets)).tolist()
    spans = rows.spans.characters.tolist()
    return [str(corpus.texts[text])[first:last] for text, (first, last) in zip(texts, spans, strict=True)]


class TagScorer(CountScorer):
    """Sentences with a tag a word. Entities count whole: right where both ends and the type are."""

    def decode(self, said: NDArray[Any]) -> NDArray[Any]:
        """``[word, tag]`` logits -> ``[word]``, the likeliest tags that follow each other as IOB2 allows."""
        assert self.rows.spans is not None
        return valid_tags(said, self.rows.spans.offsets, self.corpus.labels)

    def counts(self, metric: str, answers: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`CountScorer.counts`: words for accuracy, else entities."""
        marks = self.rows.spans
        assert marks is not None
        if metric == "accuracy":
            right = np.add.reduceat((answers == marks.codes).astype(np.float64), marks.offsets[:-1])
            return right, np.diff(marks.offsets).astype(np.float64)
        said, true, both = self.entities(answers).sum(1).astype(np.float64).T
        wholes = {"precision": said, "recall": true, "f1": (said + true) / 2}
        return both, wholes[metric]

    def entities(self, answers: NDArray[Any]) -> NDArray[np.int64]:
        """``[row, type, 3]``: entities said, true, and both, of every type in the order of its first label."""
        assert self.rows.spans is not None
        return entity_counts(answers, self.rows.spans, self.corpus.labels)
