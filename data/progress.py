"""Progress of long work: the protocol for notices and progress bars, and an estimate of the remaining time.

Library code reports through :class:`Progress` and never prints; the command line shows it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Protocol

MIN_ANNOUNCED_SECONDS = 10.0
"""Shortest remaining time, in seconds, that is announced."""


class Receive(Protocol):
    """A function that is told what has happened, as :meth:`Progress.event`."""

    def __call__(self, name: str, **facts: Any) -> None:
        """Receive an event."""


class Progress(Protocol):
    """A display for notices and progress bars, and a record of events."""

    def note(self, message: str) -> None:
        """Show one line of text."""

    def bar(self, label: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar over ``total`` steps; call the yielded function with the number of steps done.

        Without a total, which is not known of a stream, it counts the steps.
        """

    def event(self, name: str, **facts: Any) -> None:
        """Record that something has happened, for programs that follow a command: ``extracted``, ``epoch``, ..."""


ProgressOption = Progress | bool | None
"""Argument of a function of the Python interface: a display; True, which shows; False, which does not; or None, which
does as :func:`permafrost.display.choose.show_progress` says."""


class Eta:
    """An estimate of the remaining time of long work, announced once."""

    def __init__(self, progress: Progress, total: float, after: float = 5.0, label: str = "") -> None:
        """Start the clock.

        Args:
            total: amount of work, in any unit.
            after: seconds to measure before the estimate is announced.
            label: name of the work in the notice; empty names none.
        """
        self._progress, self._total, self._after, self._label = progress, total, after, label
        self._started, self._done, self._announced = time.monotonic(), 0.0, False

    def advance(self, work: float) -> None:
        """Count ``work`` as done; announce the remaining time as soon as enough has been measured."""
        self._done += work
        elapsed = time.monotonic() - self._started
        if self._announced or elapsed <= self._after or not self._done:
            return
        self._announced = True
        if (remaining := elapsed * (self._total - self._done) / self._done) > MIN_ANNOUNCED_SECONDS:
            of_label = f" of {self._label}" if self._label else ""
            self._progress.note(f"expected time{of_label}: about {timedelta(seconds=round(remaining))}")


class NoProgress:
    """A :class:`Progress` that shows nothing."""

    def note(self, message: str) -> None:
        """Ignore the message."""

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yield a function that ignores the steps."""
        yield lambda steps: None

    def event(self, name: str, **facts: Any) -> None:
        """Ignore the event."""


def given_display(progress: ProgressOption) -> Progress:
    """Return the display that is given, and one that shows nothing if an argument ``progress`` only says whether."""
    return NoProgress() if progress is None or isinstance(progress, bool) else progress


class EventsOnly(NoProgress):
    """A :class:`Progress` that shows nothing and passes events on: of trainings that are one step of longer work."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    def event(self, name: str, **facts: Any) -> None:
        """Pass the event on."""
        self._receive(name, **facts)
