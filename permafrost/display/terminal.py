"""Progress on stderr: notices, and bars that are drawn on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from permafrost.data.text import escape_control
from permafrost.display.bars import make_bar


class TerminalProgress:
    """Progress on stderr; a quiet one shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, message: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._console.print(escape_control(message, "\n"), style="dim", markup=False)

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar while the context lasts; yields a function that advances it by a number of steps."""
        hidden = self._quiet or not self._console.is_terminal
        bar, advance = make_bar(self._console, label, total, transient=True, disable=hidden)
        with bar:
            yield advance

    def event(self, name: str, **facts: Any) -> None:
        """Ignore the event."""
