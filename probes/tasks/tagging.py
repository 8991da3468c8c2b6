"""Word tagging: a tag for each word of a text, such as named entities.

Tags follow IOB2, with "O" as the first label; metrics count whole entities.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.tag_schemes import OUTSIDE, split_tag
from permafrost.data.plugin_registry import Registered
from permafrost.data.plugins import Metric
from permafrost.probes.metrics.entities import decode_tags, entity_counts, entity_types
from permafrost.probes.results.grid import Examples, Grid
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.tasks.base import (
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
from permafrost.probes.tasks.entity_spans import find_entities
from permafrost.probes.tasks.examples import tagged_examples
from permafrost.probes.tasks.rows import call_metric, precision_recall_f1

NO_ENTITY, SEVERAL_TYPES = "no entity", "several types"
"""Row labels of sentences without an entity, and with entities of several types."""


class TagScorer(CountScorer):
    """Scorer of word tags; an entity is correct if both ends and the type are."""

    @property
    def spans(self) -> Spans:
        """The tagged words."""
        assert self.rows.spans is not None
        return self.rows.spans

    def decode(self, predictions: NDArray[Any], calibration: Calibrated | None = None) -> NDArray[Any]:
        """Return the most likely tags that IOB2 allows, ``[word]``, from logits ``[word, tag]``."""
        return decode_tags(predictions, self.spans.offsets, self.corpus.labels)

    def counts(self, metric: str, decoded: NDArray[Any]) -> Counts:
        """As :meth:`CountScorer.counts`."""
        counts: Counts = self.metrics[metric](self, decoded)
        return counts

    def entities(self, decoded: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of predicted, gold and correct entities, ``[row, type, 3]``, types in label order."""
        return entity_counts(decoded, self.spans, self.corpus.labels)


TagMetric = Callable[[TagScorer, NDArray[Any]], Counts]
"""Metric of decoded tags: correct entities or words of every row, and those that they are divided by."""


def _of_entities(denominator: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]) -> TagMetric:
    """Return the metric that divides correct entities by a number made of the predicted and the gold ones."""

    def counts(scorer: TagScorer, decoded: NDArray[Any]) -> Counts:
        predicted, gold, correct = np.asarray(scorer.entities(decoded).sum(1).T, np.float64)
        return correct, denominator(predicted, gold)

    return counts


def word_accuracy(scorer: TagScorer, decoded: NDArray[Any]) -> Counts:
    """Accuracy of tags: correct words and words of every row."""
    offsets = scorer.spans.offsets
    correct = np.add.reduceat((decoded == scorer.spans.codes).astype(np.float64), offsets[:-1])
    return correct, np.diff(offsets).astype(np.float64)


def _of_sentences(name: str, part: Metric) -> TagMetric:
    """Return the mean over sentences of a metric from outside."""

    def counts(scorer: TagScorer, decoded: NDArray[Any]) -> Counts:
        names, bounds = np.array(scorer.corpus.labels), scorer.spans.offsets[1:-1]
        by_row = [np.split(names[codes], bounds) for codes in (decoded, scorer.spans.codes)]
        pairs = ((tags.tolist() for tags in pair) for pair in zip(*by_row, strict=True))
        values = [call_metric(name, part, *pair) for pair in pairs]
        return np.array(values), np.ones(len(values))

    return counts


class Tagging(Task):
    """A tag for each word."""

    kind = "tags"
    name = "tagging"
    loss = "cross_entropy"
    losses = ("cross_entropy",)
    metric = "f1"
    metrics: ClassVar = Registered(
        {
            "f1": _of_entities(lambda predicted, gold: (predicted + gold) / 2),
            "precision": _of_entities(lambda predicted, gold: predicted),
            "recall": _of_entities(lambda predicted, gold: gold),
            "accuracy": word_accuracy,
        },
        Metric,
        _of_sentences,
    )
    heads = ("tags",)
    scorer_class = TagScorer
    reads_tokens = True
    text_counts = (1,)
    target_is_column = False
    reference = "the tag that each word has most often in training"
    required = ("sentence", "word", "target", "label")

    def untrained(self, corpus: Corpus, rows: Rows) -> NDArray[Any]:
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

    def breakdown(self, scorer: TagScorer, decoded: Decoded) -> Iterator[BreakdownRow]:
        """Yield precision, recall and F1 of every entity type; ``n`` is the number of gold entities."""
        counts = [scorer.entities(tags) for tags in decoded]
        for index, name in enumerate(entity_types(scorer.corpus.labels)):
            predicted, gold, correct = ([by_seed[:, index, column] for by_seed in counts] for column in range(3))
            yield from precision_recall_f1("entity type", name, predicted, gold, correct)

    def confusion(self, scorer: TagScorer, decoded: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return gold and predicted tag of each word."""
        names = np.array(scorer.corpus.labels)
        return names[scorer.spans.codes], names[decoded.astype(np.int64)]

    def prediction_columns(
        self, predictions: NDArray[np.float32], scorer: TagScorer, calibration: Calibrated | None
    ) -> dict[str, Any]:
        """Return sentence number, word, gold tag and predicted tag of every word."""
        sentences = np.repeat(np.arange(len(scorer.rows)), np.diff(scorer.spans.offsets))
        target, label = self.confusion(scorer, scorer.decode(predictions))
        words = _words(scorer.corpus, scorer.rows)
        return {"sentence": sentences + 1, "word": words, "target": target, "label": label}

    def examples(self, predictions: pd.DataFrame) -> Sequence[Grid | Examples]:
        """Return sentences with marked entities, mistakes first."""
        _check_tags(predictions)
        return tagged_examples(predictions)

    def paired(self, base: pd.DataFrame, other: pd.DataFrame, metric: str) -> ResampledPair | str:
        """As :meth:`Task.paired`, by sentence; both runs must have the same sentences in the same order."""
        by_run = [
            [seed_rows for _, seed_rows in table.groupby("seed", sort=False, dropna=False)] for table in (base, other)
        ]
        every_seed = [*by_run[0], *by_run[1]]
        first = every_seed[0][["sentence", "word", "target"]].to_numpy()
        for rows in every_seed:
            _check_tags(rows)
            if not np.array_equal(rows[["sentence", "word", "target"]].to_numpy(), first):
                return "not the same rows"
        labels = tuple(sorted({tag for rows in every_seed for tag in (*rows["target"], *rows["label"])}))
        sentences = every_seed[0]["sentence"].to_numpy()
        offsets = np.concatenate([[0], np.flatnonzero(sentences[1:] != sentences[:-1]) + 1, [len(sentences)]])
        gold, *predicted = (
            np.searchsorted(labels, tags.to_numpy().astype(str))
            for tags in (every_seed[0]["target"], *(rows["label"] for rows in every_seed))
        )
        spans = Spans(np.zeros((len(gold), 2), np.int64), gold, offsets)
        texts = np.zeros((len(offsets) - 1, 1), np.int64)
        splits = {"test": Rows(texts, texts[:, 0], spans)}
        scorer = TagScorer(self.metrics, Corpus(name="", texts=(), splits=splits, labels=labels), "test")
        seeds = len(by_run[0])
        return [scorer.resampled(metric, decoded) for decoded in (predicted[:seeds], predicted[seeds:])]

    def answers(self, space: OutputSpace, items: Sequence[Item], predict: Predict) -> list[Prediction]:
        """Return the entities of each text."""
        texts = [text for (text,) in items]
        return [{"entities": entities} for entities in find_entities(space.labels, texts, predict)]

    def shuffled(self, corpus: Corpus, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return the rows with their tags in random order, as far as IOB2 allows it."""
        assert rows.spans is not None
        codes = repair_tags(rng.permutation(rows.spans.codes), rows.spans.offsets, corpus.labels)
        return replace(rows, spans=replace(rows.spans, codes=codes))

    def label_problem(self, labels: Sequence[str]) -> str:
        """As :meth:`Task.label_problem`."""
        are_tags = bool(labels) and labels[0] == OUTSIDE and all(split_tag(label)[0] for label in labels)
        return "" if are_tags else "are no IOB2 tags, 'O' first"

    def row_labels(self, corpus: Corpus, rows: Rows) -> list[Any]:
        """Return the entity type of each sentence."""
        assert rows.spans is not None
        names = np.array([label[2:] for label in corpus.labels], object)[rows.spans.codes].tolist()
        by_sentence = [set(names[low:high]) - {""} for low, high in pairwise(rows.spans.offsets.tolist())]
        return [SEVERAL_TYPES if len(types) > 1 else next(iter(types), NO_ENTITY) for types in by_sentence]


def _check_tags(predictions: pd.DataFrame) -> None:
    """Raise a :class:`ReportError` if a tag of a prediction table is not IOB2."""
    for column in ("target", "label"):
        invalid = [not split_tag(tag)[0] for tag in predictions[column]]
        if any(invalid):
            row = invalid.index(True)
            found = f"{predictions[column].iloc[row][:40]!r}"
            raise ReportError(f"predictions.csv: row {row + 1}: expected an IOB2 tag as B-PER or O, got {found}.")


def repair_tags(codes: NDArray[np.int64], offsets: NDArray[np.int64], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return tags that IOB2 allows, ``[word]``: an I-X that follows neither B-X nor I-X becomes B-X."""
    begin_codes = {code: labels.index(f"B-{label[2:]}") for code, label in enumerate(labels) if label.startswith("I-")}
    valid = codes.copy()
    for low, high in pairwise(offsets.tolist()):
        previous_type = ""
        for word in range(low, high):
            label = labels[valid[word]]
            if label.startswith("I-") and label[2:] != previous_type:
                valid[word] = begin_codes[int(valid[word])]
            previous_type = label[2:]
    return valid


def _words(corpus: Corpus, rows: Rows) -> list[str]:
    assert rows.spans is not None
    texts = np.repeat(rows.texts[:, 0], np.diff(rows.spans.offsets)).tolist()
    spans = rows.spans.characters.tolist()
    return [str(corpus.texts[text])[first:last] for text, (first, last) in zip(texts, spans, strict=True)]
