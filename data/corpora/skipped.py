"""Rows that cannot be used: left out one by one, counted by reason, and limited in number."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from permafrost.data.corpora.records import CorpusError
from permafrost.data.errors import EMPTY_ROW


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
        ignored: targets of rows that the user wants left out; they are counted, and no share limits them.
    """

    def __init__(self, strict: bool = False, most: float = 0.01, ignored: Iterable[str] = ()) -> None:
        self.strict, self.most, self.ignored = strict, most, frozenset(ignored)
        self.held: int | None = None
        """Number of rows that are held of each reason, the first ones; the others are counted. None holds all."""

        self.rows = list[SkippedRow]()
        self.unwanted = list[SkippedRow]()
        """Rows with a target of ``ignored``, and rows of empty cells: no share limits them."""

        self._counts, self._unwanted_counts = Counter[str](), Counter[str]()
        self.kept = 0
        """Number of rows that were read and are not left out."""

        self.remedies = dict[str, str]()
        """Reason -> what to do about its rows, for the error message, if that is not to correct them."""

    def skip(self, origin: str, reason: str, problem: str) -> None:
        """Leave a row out.

        Raises:
            CorpusError: rows are not to be left out.
        """
        if self.strict:
            remedy = f"{self.remedies[reason]}, or " if reason in self.remedies else "correct it, or "
            raise CorpusError(f"{origin}: {problem}; {remedy}leave out --strict (corpus.strict = false) to skip it.")
        self._leave_out(SkippedRow(origin, reason, problem), reason == EMPTY_ROW)

    def ignore(self, origin: str, target: str | None) -> bool:
        """Return whether a target is one of those to leave out; its row is counted if it is."""
        if target not in self.ignored:
            return False
        problem = "corpus.ignore names its label; set it to [] to keep such rows"
        self.leave_out(SkippedRow(origin, f"label '{target}'", problem))
        return True

    def leave_out(self, row: SkippedRow) -> None:
        """Leave out a row that is nobody's fault: no share limits such rows."""
        self._leave_out(row, True)

    def _leave_out(self, row: SkippedRow, is_unwanted: bool) -> None:
        counts, rows = (self._unwanted_counts, self.unwanted) if is_unwanted else (self._counts, self.rows)
        counts[row.reason] += 1
        if self.held is None or counts[row.reason] <= self.held:
            rows.append(row)

    @property
    def all_rows(self) -> tuple[SkippedRow, ...]:
        """All rows that are left out and held, those that are nobody's fault last."""
        return *self.rows, *self.unwanted

    def check(self, name: str) -> None:
        """Check that few rows of the corpus ``name`` are left out.

        Raises:
            CorpusError: they are more than the largest share; the message begins with the first one.
        """
        count = self._counts.total()
        total = count + self.kept
        if count <= self.most * total:
            return
        first, reasons = self.rows[0], by_reason(self.rows)
        counts = "; ".join(
            f"{reason}: {self._counts[reason]:,}" + f", the first {rows[0].origin}" * (rows[0] is not first)
            for reason, rows in reasons.items()
        )
        share = min(1.0, math.ceil(1000 * count / total) / 1000)
        remedies = [self.remedies[reason] for reason in reasons if reason in self.remedies]
        remedies += ["correct them"] * (len(remedies) < len(reasons))
        raise CorpusError(
            f"{first.origin}: {first.problem}; {count:,} of {total:,} rows of {name} cannot be used ({counts}), and "
            f"corpus.most_skipped = {self.most:g} allows {math.floor(self.most * total):,}; {', or '.join(remedies)}, "
            f"or set corpus.most_skipped = {share:g} to leave them out."
        )

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason: how many rows are left out, and the first one."""
        counts = self._counts + self._unwanted_counts
        total = counts.total() + self.kept
        return tuple(
            f"{counts[reason]:,} of {total:,} rows ({counts[reason] / total:.2%}) are left out, {reason}; the first: "
            f"{rows[0].origin}" + (f"; {self.remedies[reason]}" if reason in self.remedies else "")
            for reason, rows in by_reason(self.all_rows).items()
        )


def by_reason(rows: Iterable[SkippedRow]) -> Mapping[str, list[SkippedRow]]:
    """Return rows by reason, in the order of their first ones."""
    reasons = dict[str, list[SkippedRow]]()
    for row in rows:
        reasons.setdefault(row.reason, []).append(row)
    return reasons
