"""Label sets: the labels of one row, written with separators between them or as a list."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.encoding import NamedTargets, Splits, codes_of
from permafrost.data.corpora.records import CorpusError, Record, RowError, check_text

NO_LIST = re.compile(r"\s*\[[^\[\]]*\]\s*$")
"""A cell in one pair of brackets."""

ADJACENT = re.compile(r"""['"]\s+['"]""")
"""Texts without a comma between them, as numpy prints arrays; Python would join them."""

UNREADABLE = "labels that are no list"

WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)


def parse_labels(origin: str, cell: str, separator: str) -> tuple[str, ...]:
    """Return the distinct labels of a cell in their order, without white space around them.

    Args:
        origin: ``file:line`` of the cell, for the error message.
        cell: labels with ``separator`` between them, or a list of texts and whole numbers, as JSON or as Python writes
            it; may be empty.

    Raises:
        RowError: the list does not end, or holds anything else.
    """
    values = _list(cell)
    for value in values or ():
        if type(value) not in (str, int):
            found = json.dumps(value, ensure_ascii=False)
            raise RowError(origin, UNREADABLE, f"a list of labels holds their names or numbers, found {found}")
    labels = [str(value).strip() for value in (cell.split(separator) if values is None else values)]
    unread = values is None and cell.lstrip().startswith("[")
    if unread and (NO_LIST.match(cell) or any(text.count("[") != text.count("]") for text in labels)):
        problem = f'the labels begin with \'[\' and are no list, e.g. ["a", "b"]: {cell[:60]!r}'
        raise RowError(origin, UNREADABLE, problem)
    return tuple(dict.fromkeys(filter(None, labels)))


def format_labels(labels: Sequence[str]) -> str:
    """Return the labels of one row as a cell of a table: ``a, b``, or a JSON list if that would not read back."""
    plain = not any(", " in label or label.startswith("[") for label in labels)
    return ", ".join(labels) if plain else json.dumps(labels, ensure_ascii=False)


def read_labels(cell: str) -> list[str]:
    """Return the labels that :func:`format_labels` wrote; a list that is broken is one label."""
    if not cell.startswith("["):
        return list(filter(None, cell.split(", ")))
    try:
        return list(map(str, json.loads(cell)))
    except (ValueError, RecursionError):
        return [cell]


def _list(cell: str) -> list[object] | None:
    """Return the list that a cell holds, as JSON or as Python writes it; None if it is none."""
    if not cell.lstrip().startswith("["):
        return None
    readers: tuple[Callable[[str], object], ...] = (json.loads, ast.literal_eval)
    for read in readers[: 1 if ADJACENT.search(cell) else 2]:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            if isinstance(values := read(cell.strip()), list):
                return values
    return None


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels in the order of their numbers if all are whole numbers, else in alphabetical order."""
    labels = sorted(labels)
    return tuple(sorted(labels, key=int) if all(map(WHOLE_NUMBER.fullmatch, labels)) else labels)


class LabelSets(NamedTargets):
    """Any number of labels per row, none included."""

    def check_record(self, record: Record) -> None:
        """Raise a :class:`RowError` if the cell is a list of other than texts and whole numbers."""
        for label, _ in self._labels(record):
            if not self.targets.labels:
                check_text(record.origin, "the label", label)

    def _labels(self, record: Record) -> Iterable[tuple[str, str]]:
        labels = parse_labels(record.origin, record.target or "", self.targets.label_separator)
        return [(label, record.origin) for label in labels]

    def _occurring_names(self, name: str, records: Splits) -> tuple[str, ...]:
        return sorted_labels({label for split in records.values() for record in split for label in self.names(record)})

    def encode(self, texts: NDArray[np.int64], records: Sequence[Record], labels: Sequence[str]) -> Rows:
        """Return rows with ``[row, label]`` targets, 1 if the row has the label and 0 if not."""
        codes, targets = codes_of(labels), np.zeros((len(records), len(labels)))
        for row, record in enumerate(records):
            targets[row, [codes[label] for label in self.names(record)]] = 1
        return Rows(texts, targets)

    @classmethod
    def check_training(cls, corpus: Corpus, train: Rows) -> tuple[str, ...]:
        """Raise a :class:`CorpusError` if no row has a label; note labels without rows, and texts labelled twice."""
        if not train.targets.any():
            raise CorpusError(
                f"{corpus.name}: none of its {len(train):,} training rows has a label; "
                "check corpus.columns and corpus.label_separator."
            )
        notes, targets_of = list[str](), dict[tuple[int, ...], set[bytes]]()
        missing = [corpus.labels[code] for code in np.flatnonzero(~train.targets.any(axis=0))]
        if missing:
            notes.append(
                f"no training row has {', '.join(map(repr, missing))}: such a label cannot be learnt, is never "
                "predicted, and counts as missed where it occurs"
            )
        for rows in corpus.splits.values():
            for texts, targets in zip(rows.texts.tolist(), rows.targets, strict=True):
                targets_of.setdefault(tuple(texts), set()).add(targets.tobytes())
        if count := sum(len(targets) > 1 for targets in targets_of.values()):
            notes.append(f"texts that occur in several rows with different labels: {count:,}; all their rows are kept")
        return tuple(notes)
