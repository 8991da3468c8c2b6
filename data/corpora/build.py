"""Building a corpus from records: those that can be used, distinct texts, and the targets that their encoding makes.

Every text, score and label is checked here and nowhere else; an error message begins with the origin of the record.
"""

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import replace

import numpy as np

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.encoding import TargetEncoding, Targets
from permafrost.data.corpora.records import SPLITS, CorpusError, Record, RowError, check_text
from permafrost.data.corpora.skipped import SkippedRows
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.text import Segments, Text


def make_encoding(targets: Targets) -> TargetEncoding:
    """Return the encoding of a kind of target."""
    return TARGETS[targets.kind](targets)


def usable_records(records: Iterable[Record], encoding: TargetEncoding, skipped: SkippedRows) -> Iterator[Record]:
    """Yield the records whose texts and target can be used, one by one; the others go to ``skipped``.

    Raises:
        CorpusError: a record has no text or more than two, or no row may be left out.
    """
    for record in records:
        if skipped.ignore(record.origin, record.target):
            continue
        try:
            _check_texts(record)
            encoding.check_record(record)
        except RowError as error:
            skipped.skip(error.origin, error.reason, error.problem)
            continue
        skipped.kept += 1
        yield record
    skipped.remedies |= encoding.remedies()


def build_corpus(name: str, records: Iterable[Record], targets: Targets, skipped: SkippedRows | None = None) -> Corpus:
    """Build a corpus of records that :func:`usable_records` yields.

    Args:
        name: of the corpus, for error messages.
        records: with their splits.
        targets: kind of the targets, and their legal values.
        skipped: gets the records with a label that is unknown or never occurs in training; None refuses them.

    Raises:
        CorpusError: a tag is of no scheme, a label cannot be used and rows may not be left out, or
            there are no rows.
    """
    targets, converted, notes = TARGETS[targets.kind].convert(targets, records)
    encoding, skipped, records = make_encoding(targets), skipped or SkippedRows(strict=True), list(converted)
    if not records:
        raise CorpusError(f"{name}: it holds no rows.")
    number_of = {id(record): number for number, record in enumerate(records)}
    labels = encoding.label_names(name, _by_split(records))
    learnt = {label for record in records if record.split == "train" for label in encoding.names(record)}
    records = list(_with_known_labels(records, encoding, frozenset(labels), learnt or set(labels), skipped))
    text_indices: dict[Text, int] = {}
    for record in records:
        for text in record.texts:
            text_indices.setdefault(text, len(text_indices))
    row_records, splits = _by_split(records), {}
    for split in sorted(row_records, key=[*SPLITS, *sorted(row_records)].index):
        texts = [[text_indices[text] for text in record.texts] for record in row_records[split]]
        rows = encoding.encode(np.array(texts, np.int64), row_records[split], labels)
        numbers = np.array([number_of[id(record)] for record in row_records[split]], np.int64)
        splits[split] = replace(rows, numbers=numbers)
    return Corpus(
        name=name,
        texts=tuple(text_indices),
        splits=splits,
        labels=labels,
        score_range=targets.score_range if encoding.is_scaled else None,
        kind=targets.kind,
        notes=notes,
        first_number=targets.first_number if targets.labels else None,
    )


def _with_known_labels(
    records: Iterable[Record],
    encoding: TargetEncoding,
    labels: Collection[str],
    learnt: Container[str],
    skipped: SkippedRows,
) -> Iterator[Record]:
    """Yield the records whose labels are known and learnt; the others go to ``skipped``, which had them as kept."""
    for record in records:
        try:
            encoding.check_labels(record, labels, learnt)
        except RowError as error:
            skipped.kept -= 1
            skipped.skip(error.origin, error.reason, error.problem)
            continue
        yield record


def _by_split(records: Iterable[Record]) -> dict[str, list[Record]]:
    splits: dict[str, list[Record]] = {}
    for record in records:
        splits.setdefault(record.split, []).append(record)
    return splits


def check_training(corpus: Corpus) -> tuple[str, ...]:
    """Check that the training rows, if there are any, can be learnt from, as :meth:`TargetEncoding.check_training`."""
    train = corpus.splits.get("train")
    return TARGETS[corpus.kind].check_training(corpus, train) if train else ()


def _check_texts(record: Record) -> None:
    if not 1 <= len(record.texts) <= 2:
        raise CorpusError(
            f"{record.origin}: expected one text or two, corpus.columns and corpus.target make it {len(record.texts)}."
        )
    for number, text in enumerate(record.texts, 1):
        if isinstance(text, Segments):
            check_text(record.origin, "the question", text.first)
            check_text(record.origin, "the context", text.second)
        else:
            check_text(record.origin, f"text {number}" if len(record.texts) > 1 else "the text", text)
