"""How a file of text is written, as far as settings say it, and what becomes of a row that cannot be read."""

from collections.abc import Callable
from dataclasses import dataclass

from permafrost.data.errors import EMPTY_ROW, CorpusError


@dataclass(frozen=True)
class FileFormat:
    """How a file of text is written; "auto" finds it from the file."""

    encoding: str = "auto"
    delimiter: str = "auto"
    quoting: str = "auto"
    header: str = "auto"
    decimal: str = "point"
    reader: str = ""
    """Reader from outside; empty reads by one if the file has its name for a suffix."""


Skip = Callable[[str, str, str], None]
"""Receives a row that cannot be read: its origin, the reason (the same words for all of a kind), and the problem."""


def refuse_row(origin: str, reason: str, problem: str) -> None:
    """Raise a :class:`CorpusError` for a row that cannot be read; one of empty cells is left out."""
    if reason != EMPTY_ROW:
        raise CorpusError(f"{origin}: {problem}.")
