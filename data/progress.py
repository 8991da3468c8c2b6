"""Expected time: measured at the beginning of long work, and said once."""
# MERGED DOCS:
# """How long work tells that it moves: the border between the stages and whatever shows it."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Protocol

WORTH_SECONDS = 10.0
"""Less is not announced."""


class Progress(Protocol):
    """A place for notices and bars."""

    def note(self, message: str) -> None:
        """One line that is worth reading."""

    def bar(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A bar over ``total`` steps; calling what it yields moves it on."""


class Eta:
    """Counts work done; says once how long the rest will take."""

    def __init__(self, progress: Progress, total: float, after: float, what: str = "") -> None:
        """Begin to measure.

        Args:
            total: how much there is to do, in any unit.
            after: seconds that are measured first.
            what: what takes the time, where that is not plain.
        """
        self._progress, self._total, self._after, self._what = progress, total, after, what
        self._started, self._done, self._said = time.monotonic(), 0.0, False

    def advance(self, work: float) -> None:
        """Note that some of it is done."""
        self._done += work
        took = time.monotonic() - self._started
        if self._said or took <= self._after or not self._done:
            return
        self._said = True
        if (left := took * (self._total - self._done) / self._done) > WORTH_SECONDS:
            of = f" of {self._what}" if self._what else ""
            self._progress.note(f"expected time{of}: about {timedelta(seconds=round(left))}")


class Silent:
    """Shows nothing: the default of the Python interface."""

    def note(self, message: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that is not drawn."""
        yield lambda steps: None
