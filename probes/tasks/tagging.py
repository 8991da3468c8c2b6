"""Word tagging: objective, scorer, breakdown by entity type, prediction table and baseline.

Tags follow IOB2, with "O" as the first label; metrics count whole entities.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths
from permafrost.probes.inputs.alignment import first_tokens
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.token_inputs import require_tokens
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.metrics.entities import decode_tags, entity_counts, entity_types
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.tasks.base import (
    BreakdownRow,
    CountScorer,
    Decoded,
    Scorer,
    TableColumns,
    Task,
    chunks,
    precision_recall_f1,
)
from permafrost.probes.tasks.losses import LOSSES

TAGGING = Task(
    name="tagging",
    loss="cross_entropy",
    losses=("cross_entropy",),
    metric="f1",
    metrics=("f1", "precision", "recall", "accuracy"),
    heads=("tags",),
)

NO_ENTITY, SEVERAL_TYPES = "no entity", "several types"
"""Row labels of sentences without an entity, and with entities of several types."""


def breakdown_by_entity_type(scorer: Scorer, decoded: Decoded, corpus: Corpus) -> Iterator[BreakdownRow]:
    """Yield precision, recall and F1 of every entity type; ``n`` is the number of gold entities."""
    assert isinstance(scorer, TagScorer)
    counts = [scorer.entities(tags) for tags in decoded]
    for index, name in enumerate(entity_types(corpus.labels)):
        predicted, gold, correct = ([by_seed[:, index, column] for by_seed in counts] for column in range(3))
        if any(rows.any() for rows in (*predicted, *gold)):
            yield from precision_recall_f1("entity type", name, predicted, gold, correct, int(gold[0].sum()))


IMPOSSIBLE_LOGIT = -1e9
"""Logit of every tag but "O" for a word without tokens."""


class TagObjective:
    """Objective of word tags; the logits of a word are those of its first token."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        assert rows.spans is not None
        self.inputs, self.rows, self.spans = require_tokens(inputs), rows, rows.spans
        self.tokens = self.inputs.tokens
        self.windows = self.tokens.starts[rows.texts[:, 0]]
        self.first_tokens = first_tokens(self.tokens, rows)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; words beyond the end of a cut text are ignored."""
        logits, words, has_token = self._word_logits(probe, reads, single_order(rows))
        if not has_token.any():
            zero: Tensor = logits.float().sum((1, 2)) * 0  # the mean of no words would be nan
            return zero
        codes = torch.from_numpy(self.spans.codes[words[has_token]])
        word_logits = logits[:, torch.from_numpy(has_token)].float()
        return LOSSES[loss_name](word_logits, codes.expand(logits.shape[0], -1))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return logits ``[member, word, tag]``; a word beyond the end of a cut text has the first tag, "O"."""
        reads, outputs = shared_reads(probe.layout), getattr(probe, "outputs", 0)
        shape = len(probe.layout.members), len(self.spans.codes), outputs
        predictions = np.full(shape, IMPOSSIBLE_LOGIT, np.float32)
        predictions[..., 0] = 0
        for rows in chunks(self.inputs, probe, self.windows):
            logits, words, has_token = self._word_logits(probe, reads, rows)
            predictions[:, words[has_token]] = logits[:, torch.from_numpy(has_token)].detach().numpy()
        return predictions

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the mean of the members' logits."""
        return np.asarray(self.predict(probe).mean(0))

    def _word_logits(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.bool_]]:
        """Return logits ``[member, word, tag]`` of the words of rows, their indices, and whether each has a token."""
        windows = self.windows[rows]
        token_logits = probe(self.inputs.ragged(reads, windows), reads)
        starts = offsets_from_lengths(self.tokens.lengths[windows])[:-1]
        counts = np.diff(self.spans.offsets)[rows]
        words = concatenate_ranges(self.spans.offsets[rows], counts)
        has_token = self.first_tokens[words] >= 0
        tokens = self.first_tokens[words] - np.repeat(self.tokens.offsets[windows] - starts, counts)
        return token_logits[:, torch.from_numpy(np.where(has_token, tokens, 0))], words, has_token


def tag_columns(
    predictions: NDArray[np.float32], scorer: Scorer, corpus: Corpus, calibration: Calibration | None
) -> TableColumns:
    """Return sentence number, word, gold tag and predicted tag of every word."""
    spans, names = scorer.rows.spans, np.array(corpus.labels)
    assert spans is not None
    sentences = np.repeat(np.arange(len(scorer.rows)), np.diff(spans.offsets))
    labels = {"target": names[spans.codes], "label": names[scorer.decode(predictions)]}
    return {"sentence": sentences + 1, "word": _words(corpus, scorer.rows)} | labels


def most_frequent_tags(corpus: Corpus, rows: Rows) -> NDArray[Any]:
    """Return the most frequent training tag of every word, ``[word]``, under the constraints of IOB2."""
    train, label_count = corpus.split("train"), len(corpus.labels)
    counts: dict[str, Counter[int]] = {}
    assert train.spans is not None
    assert rows.spans is not None
    for word, code in zip(_words(corpus, train), train.spans.codes.tolist(), strict=True):
        counts.setdefault(word, Counter())[code] += 1
    frequencies = np.zeros((len(rows.spans.codes), label_count))
    for index, word in enumerate(_words(corpus, rows)):
        for code, frequency in counts.get(word, Counter({0: 1})).items():
            frequencies[index, code] = frequency
    return decode_tags(np.log(frequencies + 1e-3), rows.spans.offsets, corpus.labels)


def _words(corpus: Corpus, rows: Rows) -> list[str]:
    assert rows.spans is not None
    texts = np.repeat(rows.texts[:, 0], np.diff(rows.spans.offsets)).tolist()
    spans = rows.spans.characters.tolist()
    return [str(corpus.texts[text])[first:last] for text, (first, last) in zip(texts, spans, strict=True)]


class TagScorer(CountScorer):
    """Scorer of word tags; an entity is correct if both ends and the type are."""

    def decode(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Return the most likely tags that IOB2 allows, ``[word]``, from logits ``[word, tag]``."""
        assert self.rows.spans is not None
        return decode_tags(predictions, self.rows.spans.offsets, self.corpus.labels)

    def counts(self, metric: str, decoded: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`CountScorer.counts`: words for accuracy, entities for all other metrics."""
        spans = self.rows.spans
        assert spans is not None
        if metric == "accuracy":
            correct_words = np.add.reduceat((decoded == spans.codes).astype(np.float64), spans.offsets[:-1])
            return correct_words, np.diff(spans.offsets).astype(np.float64)
        predicted, gold, correct = self.entities(decoded).sum(1).astype(np.float64).T
        denominators = {"precision": predicted, "recall": gold, "f1": (predicted + gold) / 2}
        return correct, denominators[metric]

    def entities(self, decoded: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of predicted, gold and correct entities, ``[row, type, 3]``, types in label order."""
        assert self.rows.spans is not None
        return entity_counts(decoded, self.rows.spans, self.corpus.labels)
