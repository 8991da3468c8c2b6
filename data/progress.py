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
