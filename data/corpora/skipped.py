"""Rows that cannot be used: left out one by one, counted by reason, and limited in number."""

from typing import NamedTuple

from permafrost.data.corpora.records import CorpusError


class SkippedRow(NamedTuple):
    """A row that is left out."""

    origin: str
    """``file:line``."""

    reason: str
    """The same words for all rows of a kind, e.g. ``no score``; rows are counted by it."""

    problem: str
    """What is wrong with this row."""


class SkippedRows:
    """Collection of the rows that reading a corpus leaves out.

    Args:
        strict: raise an error for the first row instead of leaving it out.
        most: largest share of all rows of the corpus that may be left out.
    """

    def __init__(self, strict: bool = False, most: float = 0.01) -> None:
        self.strict, self.most, self.rows = strict, most, list[SkippedRow]()

    def skip(self, origin: str, reason: str, problem: str) -> None:
        """Leave a row out.

        Raises:
            CorpusError: rows are not to be left out.
        """
        if self.strict:
            raise CorpusError(f"{origin}: {problem}; correct it, or leave out --strict (corpus.strict) to skip it.")
        self.rows.append(SkippedRow(origin, reason, problem))
