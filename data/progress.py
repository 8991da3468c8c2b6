"""How long work tells that it moves: the border between the stages and whatever shows it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """A place for notices and bars."""

    def note(self, message: str) -> None:
        """One line that is worth reading."""

    def bar(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A bar over ``total`` steps; calling what it yields moves it on."""


class Silent:
    """Shows nothing: the default of the Python interface."""

    def note(self, message: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar that is not drawn."""
        yield lambda steps: None


class Screen:
    """Notices and bars on stderr; bars with rate and time left, and only on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, message: str) -> None:
        """Print the line."""
        self._console.print(message, style="dim", markup=False)

    @contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar with count, rate and estimated time left; gone when done."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:
            task = bars.add_task(what, total=total, rate="")

            def advance(steps: int) -> None:
                bars.advance(task, steps)
                speed = bars.tasks[0].speed
                bars.update(task, rate=f"{speed:,.1f}/s" if speed else "")

            yield advance
