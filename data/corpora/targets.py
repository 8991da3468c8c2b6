"""Kinds of targets: what each checks in a record, its label names, its arrays, and its check of the training rows.

A kind of task adds its own to :data:`TARGETS`, see :func:`permafrost.probes.tasks.registry.register`.
"""

import math
from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.corpora.encoding import NEVER_LEARNT, NamedTargets, Splits, TargetEncoding, Targets, codes_of
from permafrost.data.corpora.label_sets import LabelSets
from permafrost.data.corpora.ranking import Relevance
from permafrost.data.corpora.records import CorpusError, Record, RowError, check_text
from permafrost.data.corpora.tag_schemes import OUTSIDE, find_scheme, iob2_labels, split_tag
from permafrost.data.ragged import offsets_from_lengths


class NoTargets(TargetEncoding):
    """Texts without a target."""

    has_target = False

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows whose targets are zeros."""
        return Rows(texts, np.zeros(len(texts), np.int64))


OUT_OF_RANGE = "score outside corpus.score_range"


class Scores(TargetEncoding):
    """A number per row, scaled from its range to [0, 1]."""

    is_scaled = True

    def __init__(self, targets: Targets) -> None:
        super().__init__(targets)
        self._lowest, self._highest = math.inf, -math.inf

    def check_record(self, record: Record) -> None:
        """Raise a :class:`RowError` if the score is missing, no number, or outside the range."""
        (low, high), target = self.targets.score_range, str(record.target).strip()
        if not target:
            raise RowError(record.origin, "no score", "the score is missing")
        try:
            score = float(target)
        except ValueError:
            problem = f"the score must be a number, got {target!r}"
            raise RowError(record.origin, "score that is no number", problem) from None
        if math.isnan(score):
            raise RowError(record.origin, "no score", f"the score is {target}")
        if math.isfinite(score):
            self._lowest, self._highest = min(self._lowest, score), max(self._highest, score)
        if not low <= score <= high:
            problem = f"the score {target} is outside corpus.score_range = [{low:g}, {high:g}]"
            raise RowError(record.origin, OUT_OF_RANGE, problem)

    def remedies(self) -> dict[str, str]:
        """Return the range that all scores lie in, in whole numbers."""
        if self._lowest > self._highest:
            return {}
        low, high = math.floor(self._lowest), math.ceil(self._highest)
        found = f"scores reach from {self._lowest:g} to {self._highest:g}"
        return {OUT_OF_RANGE: f"set corpus.score_range = [{low}, {high}] ({found})"}

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row]`` scores."""
        low, high = self.targets.score_range
        scores = np.array([float(str(record.target)) for record in records])
        return Rows(texts, (scores - low) / (high - low))


class Classes(NamedTargets):
    """One class per row."""

    def check_record(self, record: Record) -> None:
        """Raise a :class:`RowError` if the label is empty or cannot be encoded."""
        check_text(record.origin, "the label", str(record.target))

    def _labels(self, record: Record) -> Iterable[tuple[str, str]]:
        return [(str(record.target).strip(), record.origin)]

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        return tuple(sorted({label for record in records["train"] for label in self.names(record)}))

    def check_labels(self, record: Record, labels: Collection[str], learnt: Container[str]) -> None:
        """Raise a :class:`RowError` if the class is none of the names, or that of no training row."""
        super().check_labels(record, labels, learnt)
        if not all(name in learnt for name in self.names(record)):
            raise RowError(record.origin, NEVER_LEARNT, f"the label {record.target!r} never occurs in training")

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row]`` indices of classes."""
        codes = codes_of(labels)
        return Rows(texts, np.array([codes[name] for record in records for name in self.names(record)], np.int64))

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Note classes without training rows, with a single one, or without rows in another split."""
        counts = {
            split: np.bincount(rows.targets, minlength=len(corpus.labels)) for split, rows in corpus.splits.items()
        }
        learnt, notes = counts.pop("train"), list[str]()
        folded = Counter(label.casefold() for label in corpus.labels)
        if (alike := np.array([folded[label.casefold()] > 1 for label in corpus.labels])).any():
            notes.append(f"classes that differ in their case alone: {_listed(corpus, alike)}; each is one of its own")
        if not learnt.all():
            notes.append(f"no training row is of {_listed(corpus, learnt == 0)}: it cannot be learnt")
        if (learnt == 1).any():
            notes.append(f"a single training row is of {_listed(corpus, learnt == 1)}")
        for split, found in counts.items():
            if (missing := (found == 0) & (learnt > 0)).any():
                notes.append(f"no row of {split} is of {_listed(corpus, missing)}: it is not measured there")
        return tuple(notes)


class Tags(NamedTargets):
    """A tag per word; entities are encoded by IOB2."""

    reads = "words"
    noun = "tag"

    @classmethod
    def convert(cls, targets: Targets, records: Iterable[Record]) -> tuple[Targets, Iterable[Record], tuple[str, ...]]:
        """Convert tags and given labels to IOB2, ``O`` first; tags that are numbers of labels become their names."""
        labels, records = targets.labels, list(records)
        names = {str(number): label for number, label in enumerate(labels)}
        sentences = [
            [span._replace(tag=names[span.tag]) if span.tag in names else span for span in record.spans]
            for record in records
        ]
        scheme = find_scheme(sentences, targets.tag_scheme, targets.strict)
        targets = replace(targets, tag_scheme="IOB2", labels=scheme.labels_to_iob2(labels) if labels else ())
        converted = zip(records, map(scheme.to_iob2, sentences), strict=True)
        return targets, [replace(record, spans=spans) for record, spans in converted], scheme.notes()

    def _labels(self, record: Record) -> Iterable[tuple[str, str]]:
        return [(span.tag, span.origin) for span in record.spans]

    def names(self, record: Record) -> Iterable[str]:
        """Return the types of the entities of a converted record."""
        return {split_tag(self._name(tag))[1] for tag, _ in self._labels(record)} - {""}

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        types = sorted({split_tag(span.tag)[1] for record in records["train"] for span in record.spans} - {""})
        if not types:
            raise CorpusError(f"{name}: its training rows hold no entity: every tag is '{OUTSIDE}'.")
        return iob2_labels(types)

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with a span per word."""
        codes = codes_of(labels)
        tags = [codes[self._name(span.tag)] for record in records for span in record.spans]
        return _rows_of_spans(texts, records, tags)

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if ``O`` or a ``B-`` tag does not occur."""
        if train.spans:
            needed = [label for label in corpus.labels if split_tag(label)[0] != "I"]
            _refuse_missing(corpus, needed, train.spans.codes, "tag")
        return ()


class Answers(TargetEncoding):
    """The spans of the answers to a question; none if it has no answer."""

    reads = "questions"

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with a span per answer."""
        return _rows_of_spans(texts, records, [0] * sum(len(record.spans) for record in records))


TARGETS: dict[str, type[TargetEncoding]] = {
    "score": Scores, "class": Classes, "labels": LabelSets, "none": NoTargets, "tags": Tags, "answers": Answers,
    "rank": Relevance,
}  # fmt: skip
"""Kind of target -> its encoding; the keys are the values of ``corpus.target``."""


def _rows_of_spans(texts: NDArray[np.int64], records: Sequence[Record], codes: Sequence[int]) -> Rows:
    characters = [(span.start, span.end) for record in records for span in record.spans]
    spans = Spans(
        np.array(characters, np.int64).reshape(-1, 2),
        np.array(codes, np.int64),
        offsets_from_lengths(np.array([len(record.spans) for record in records], np.int64)),
    )
    return Rows(texts, np.zeros(len(texts), np.int64), spans)


def _listed(corpus: Corpus, chosen: NDArray[np.bool_]) -> str:
    """Return the names of some labels, five at most."""
    names = [repr(corpus.labels[code]) for code in np.flatnonzero(chosen)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _refuse_missing(corpus: Corpus, needed: Sequence[str], codes: NDArray[np.int64], noun: str) -> None:
    """Raise a :class:`CorpusError` if a label does not occur in training; the message names the first one."""
    seen = {corpus.labels[int(code)] for code in np.unique(codes)}
    missing = [label for label in needed if label not in seen]
    if missing:
        raise CorpusError(
            f"{corpus.name}: the {noun} '{missing[0]}' never occurs in its {len(corpus.splits['train']):,} training "
            "rows; give it rows, raise corpus.limit, or leave it out of corpus.labels."
        )
