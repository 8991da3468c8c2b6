"""Progress bars with counts, rate and time left, as terminal and notebook show them."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from permafrost.data.text import escape_control


def make_bar(console: Console, label: str, total: int | None, **options: Any) -> tuple[Progress, Callable[[int], None]]:
    """Return a bar over ``total`` steps (None: a count of them), and a function that advances it by a number of steps.

    Args:
        options: of :class:`rich.progress.Progress`.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, **options)
    task = bar.add_task(escape_control(label), total=total, rate="")

    def advance(steps: int) -> None:
        bar.advance(task, steps)
        speed = bar.tasks[0].speed
        bar.update(task, rate=f"{speed:,.1f}/s" if speed else "")

    return bar, advance
