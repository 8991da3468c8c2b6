"""Label sets: the labels of one row, written with separators between them or as a list."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from permafrost.data.corpora.records import CorpusError

NO_LIST = re.compile(r"\s*\[[^\[\]]*\]\s*$")
"""A cell in one pair of brackets."""

ADJACENT = re.compile(r"""['"]\s+['"]""")
"""Texts without a comma between them, as numpy prints arrays; Python would join them."""

WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)


def parse_labels(origin: str, cell: str, separator: str) -> tuple[str, ...]:
    """Return the distinct labels of a cell in their order, without white space around them.

    Args:
        origin: ``file:line`` of the cell, for the error message.
        cell: labels with ``separator`` between them, or a list of texts and whole numbers, as JSON or as Python writes
            it; may be empty.

    Raises:
        CorpusError: the list does not end, or holds anything else.
    """
    values = _list(cell)
    for value in values or ():
        if type(value) not in (str, int):
            found = json.dumps(value, ensure_ascii=False)
            raise CorpusError(f"{origin}: a list of labels holds their names or numbers, found {found}.")
    labels = [str(value).strip() for value in (cell.split(separator) if values is None else values)]
    unread = values is None and cell.lstrip().startswith("[")
    if unread and (NO_LIST.match(cell) or any(text.count("[") != text.count("]") for text in labels)):
        raise CorpusError(f'{origin}: the labels begin with \'[\' and are no list, e.g. ["a", "b"]: {cell[:60]!r}.')
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
