"""Building a corpus from records: distinct texts, and the targets that the encoding of their kind makes.

Every text, score and label is checked here and nowhere else; an error message begins with the origin of the record.
"""

from collections.abc import Iterable

import numpy as np

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import SPLITS, CorpusError, Record, check_text
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.text import Segments, Text


def build_corpus(name: str, records: Iterable[Record], targets: Targets) -> Corpus:
    """Check records and build a corpus of them.

    Raises:
        CorpusError: a text or label is empty; a score is not a number or out of range; a label is unknown; a tag is
            not IOB2 or cannot follow the one before it; or there are no rows.
    """
    encoding = TARGETS[targets.kind](targets)
    text_indices: dict[Text, int] = {}
    row_texts: dict[str, list[list[int]]] = {}
    row_records: dict[str, list[Record]] = {}
    for record in records:
        _check_texts(record)
        encoding.check_record(record)
        indices = [text_indices.setdefault(text, len(text_indices)) for text in record.texts]
        row_texts.setdefault(record.split, []).append(indices)
        row_records.setdefault(record.split, []).append(record)
    if not row_records:
        raise CorpusError(f"{name}: it holds no rows.")
    labels = encoding.label_names(name, row_records)
    splits = {
        split: encoding.encode(np.array(row_texts[split], np.int64), row_records[split], labels)
        for split in sorted(row_records, key=[*SPLITS, *sorted(row_records)].index)
    }
    return Corpus(
        name=name,
        texts=tuple(text_indices),
        splits=splits,
        labels=labels,
        score_range=targets.score_range if encoding.is_scaled else None,
        kind=targets.kind,
    )


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
