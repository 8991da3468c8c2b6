"""Terminal output: tables, results and JSON on stdout, notices and progress bars on stderr."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table

from permafrost.cli.verb import OUTPUT
from permafrost.data.corpora.records import HELD_OUT
from permafrost.data.text import escape_control
from permafrost.display.terminal import TerminalProgress
from permafrost.probes.results.grid import Grid, plain_text
from permafrost.probes.results.outcomes import RunResult, SimilarityResult

WIDE = 240
"""Width in characters of a table that goes to a file or a pipe."""

NARROW = 24
"""Characters up to which the cells of a column are never wrapped."""


class Console(TerminalProgress):
    """Progress of the running command: on stderr, unless it is quiet; events go to its log, if it has one."""

    def __init__(self) -> None:
        output = OUTPUT.get()
        super().__init__(output.quiet)
        self._log = output.log

    def event(self, name: str, **facts: Any) -> None:
        """Log an event."""
        if self._log:
            self._log.write(name, **facts)


def say(text: object, several_lines: bool = False, error: bool = False) -> None:
    """Print a line, or several that are meant as such, on stdout or else stderr; control characters are escaped."""
    (sys.stderr if error else sys.stdout).write(escape_control(str(text), "\n" if several_lines else "") + "\n")


def show_table(heads: Sequence[str], lines: Sequence[Sequence[str]], strong: int | None = None) -> None:
    """Print a plain table on stdout, as wide as the terminal; the line number ``strong`` is bold."""
    heads, *lines = (list(map(escape_control, line)) for line in (heads, *lines))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        longest = max([len(head), *(len(line[index]) for line in lines)])
        table.add_column(head, no_wrap=longest <= NARROW, overflow="fold")
    for index, line in enumerate(lines):
        table.add_row(*line, style="bold" if index == strong else None)
    RichConsole(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE).print(table)


def show_grid(grid: Grid) -> None:
    """Print a table of results on stdout, its caption below it."""
    show_table(grid.heads, [[plain_text(cell) for cell in line] for line in grid.rows], grid.strong)
    say(grid.caption)


def show_results(run: Path) -> None:
    """Print the tables of results of a run folder."""
    from permafrost.probes.reports.report import result_grids  # loads matplotlib and pandas

    for grid in result_grids(run):
        show_grid(grid)


def show_training(result: RunResult, as_json: bool) -> None:
    """Print the tables of results of a run that trained, the chosen variant, counts of texts and the run folder."""
    if as_json:
        show_json({"run": str(result.path)} | {key: value for key, value in vars(result).items() if key != "path"})
        return
    show_results(result.path)
    if result.selected:
        held_out = any(row["split"] == HELD_OUT for row in result.metrics)
        say(f"chosen on {HELD_OUT if held_out else 'validation'}: {result.selected}")
    say(
        f"texts: {result.texts:,}, distinct {result.texts_distinct:,}, run {result.texts_run:,}; {result.seconds:.1f} s"
    )
    say(f"run: {result.path}")


def show_similarity(result: SimilarityResult, as_json: bool) -> None:
    """Print the cosine of each pair of sentences: a line per pair, a column per backbone."""
    if as_json:
        show_json({"cosines": result.cosines.to_dict("records"), "run": str(result.path)})
        return
    show_results(result.path)
    say(f"texts: {len(result.texts):,}, run {result.texts_run:,}; {result.seconds:.1f} s")
    say(f"run: {result.path}")


def show_facts(facts: Mapping[str, Any]) -> None:
    """Print a table of facts, a line each."""
    show_table(["", ""], [[key.replace("_", " "), cell(value)] for key, value in facts.items()])


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    say(json.dumps(value, ensure_ascii=False))


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {cell(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
