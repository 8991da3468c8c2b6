"""Progress in the output of a notebook cell, by messages that every Jupyter front end understands; no widgets."""

import io
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from rich.console import Console
from rich.progress import Progress

from permafrost.display.bars import make_bar

MOST_NOTES = 100
"""Notices that a cell keeps; of more the last ones."""

MIN_SECONDS = 0.5
"""Seconds before a bar is shown in a cell that shows nothing yet, so that short work leaves no trace."""

REFRESH_SECONDS = 0.2
"""Shortest time in seconds between two pictures of a bar."""

WIDTH = 88
"""Width of a bar in characters."""

STYLE = "margin:0;white-space:pre-wrap;font-size:.85em;line-height:1.4;opacity:.75"


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookProgress:
    """Progress in one place of a cell's output: notices, and below them the bars of what runs."""

    def __init__(self) -> None:
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._bars: list[Progress] = []
        self._handle: Any = None  # of IPython, which has no types
        self._drawn = 0.0

    def note(self, message: str) -> None:
        """Show a line."""
        self._notes.append(message)
        self._draw()

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar while the context lasts; yields a function that advances it by a number of steps."""
        console = Console(file=io.StringIO(), width=WIDTH, record=True, force_jupyter=False)
        bar, advance_bar = make_bar(console, label, total, auto_refresh=False)
        self._bars.append(bar)
        started = time.monotonic()

        def advance(steps: int) -> None:
            advance_bar(steps)
            now = time.monotonic()
            if now - (self._drawn if self._handle else started - REFRESH_SECONDS + MIN_SECONDS) >= REFRESH_SECONDS:
                self._draw()

        if self._handle:
            self._draw()
        try:
            yield advance
        finally:
            self._bars.remove(bar)
            if self._handle and not self._notes:  # else nothing would be left in the cell
                of_total = "" if total is None else f" of {total:,}"
                self._notes.append(f"{label}: {bar.tasks[0].completed:,.0f}{of_total}")
            if self._handle:
                self._draw()

    def event(self, name: str, **facts: Any) -> None:
        """Ignore the event."""

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn = time.monotonic()
        lines, text = [escape(note) for note in self._notes], list(self._notes)
        for bar in self._bars:
            bar.console.print(bar.get_renderable())
            lines.append(bar.console.export_html(code_format="{code}", inline_styles=True, clear=False).rstrip())
            text.append(bar.console.export_text().rstrip())
        data = {"text/html": f'<pre style="{STYLE}">{chr(10).join(lines)}</pre>', "text/plain": "\n".join(text)}
        if self._handle:
            self._handle.update(data, raw=True)
        else:
            self._handle = display(data, raw=True, display_id=True)
