"""Comparison of several runs: what differs between them, their chosen figures, and paired bootstrap tests.

The tests are on the rows that both runs predicted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from permafrost.data.atomic import write_atomically
from permafrost.probes.figures.style import bars_with_intervals, new_figure, short_name
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.reports.headline import Headline, headlines
from permafrost.probes.reports.page import Picture, Section, render_page
from permafrost.probes.reports.report import drawing_settings
from permafrost.probes.results.differences import Settings, differences_grid, run_labels, what_differs
from permafrost.probes.results.formatting import decimals, format_p
from permafrost.probes.results.grid import UNDEFINED, Cell, Grid, cell_text, value_cell
from permafrost.probes.results.run_folder import ReportError, RunFolder
from permafrost.probes.results.run_tables import Tables, read_tables
from permafrost.probes.tasks.base import ResampledPair
from permafrost.probes.tasks.registry import task_of_predictions

COLUMNS = [
    "run", "label", "task", "corpus", "variant", "split", "metric", "value", "low", "high", "n", "parameters",
    "difference", "difference_low", "difference_high", "p", "note",
]  # fmt: skip


def comparison(folders: Sequence[Path]) -> pd.DataFrame:
    """Return a table with a line per run and task: its chosen figure, and the difference from the first run.

    ``run`` is the folder, ``label`` what tells the run from the others; empty if nothing does.

    Raises:
        ReportError: there is no folder, or one is no finished run.
    """
    if not folders:
        raise ReportError("there is nothing to compare: name the folders of two runs or more.")
    names = _names(folders)
    labels = run_labels(differing_settings(folders), list(names))
    lines: list[dict[str, Any]] = []
    first: list[Headline] = []
    for name, folder in names.items():
        found = headlines(read_tables(folder))
        if not found:
            raise ReportError(f"{folder} has nothing to compare: it measured nothing.")
        for headline in found:
            base = next((each for each in first if each.columns["task"] == headline.columns["task"]), None)
            base = first[0] if len(first) == len(found) == 1 else base
            tables = base.tables if base else None
            difference = _difference_columns(tables, headline.tables) if tables and headline.tables else {}
            lines.append({"run": name, "label": labels.get(name, "")} | headline.columns | difference)
        first = first or found
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.assign(note=frame["note"].astype(object).fillna(""))


def differing_settings(folders: Sequence[Path]) -> Settings:
    """Return what differs between runs, dotted key -> run -> value; raises as :func:`comparison`."""
    return what_differs({name: RunFolder(folder, ReportError) for name, folder in _names(folders).items()})


def settings_grid(folders: Sequence[Path]) -> Grid | None:
    """Return a table of what differs between runs; None if nothing does."""
    return differences_grid(differing_settings(folders), list(_names(folders)))


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the name of each run -> its folder: the path, if two runs have the same name."""
    names = [folder.resolve().name for folder in folders]
    distinct = [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
    numbered = [f"{name} ({distinct[:at].count(name) + 1})" if name in distinct[:at] else name
        for at, name in enumerate(distinct)]  # fmt: skip
    return dict(zip(numbered, folders, strict=True))


def write_comparison(frame: pd.DataFrame, out: Path, settings: Grid | None = None) -> Path:
    """Write a table of :func:`comparison` as an HTML page to ``out``; return ``out``.

    Args:
        settings: as of :func:`settings_grid`.

    Raises:
        ReportError: ``out`` is a folder, a pipe or a device, or its folder is missing.
    """
    if (out.exists() and not out.is_file()) or not out.parent.is_dir():
        raise ReportError(f"{out}: a file in a folder that is there is needed; set --out to another.")
    with drawing_settings():
        section = _section(frame, settings)
        lead = f"{frame['run'].nunique()} runs side by side."
        page = render_page("Comparison", "comparison", lead, [], [section])
    write_atomically(out, page)
    return out


def comparison_section(folders: Sequence[Path]) -> Section:
    """Return the comparison of runs as a section of a page; raises as :func:`comparison`."""
    with drawing_settings():
        return _section(comparison(folders), settings_grid(folders))


def _section(frame: pd.DataFrame, settings: Grid | None) -> Section:
    caption, figure = "The chosen figure of each run, with 95 % intervals.", bars(frame)
    pictures = [Picture(name="runs", title="Runs", caption=caption, figure=figure)] if figure else []
    grids = [comparison_grid(frame), *([settings] if settings else [])]
    return Section("results", "Results", "", [*grids, *pictures])


def comparison_grid(frame: pd.DataFrame) -> Grid:
    """Return a comparison as a table with a line per run and task; columns of words that are empty are left out."""
    named = (frame["label"] != "").any()
    words = {"folder": "run"} if named else {"run": "run"}
    words |= {"task": "task", "corpus": "corpus", "chosen": "variant"}
    words = {head: name for head, name in words.items() if name != "task" or (frame[name] != "").any()}
    lines = [
        [
            *([cell_text(row["label"] or row["run"], 160)] if named else []),
            *(cell_text(row[name], 80) for name in words.values()),
            f"{cell_text(row['metric'], 40)} on {row['split']}"
            + ("" if pd.isna(row["n"]) else f", n = {row['n']:,.0f}"),
            value_cell(row),
            decimals(row["parameters"], 0),
            _difference_cell(row),
            format_p(row["p"]),
        ]
        for _, row in frame.iterrows()
    ]
    heads = [*(["run"] if named else []), *words, "measured"]
    return Grid(
        caption="Chosen variants. Brackets are bootstrap 95 % intervals over rows, or queries. Differences are "
        "from the first run, on the same rows.",
        heads=[*heads, "value", "parameters", "difference", "p"],
        rows=lines,
        text_columns=len(heads),
    )


def bars(frame: pd.DataFrame) -> Figure | None:
    """Draw runs as bars with intervals, in the given order; only figures with the metric of the first one."""
    rows = frame[(frame["metric"] == frame["metric"].iloc[0]) & frame["value"].notna()]
    if rows.empty:
        return None
    metric = short_name(rows["metric"].iloc[0])
    figure, (axes,) = new_figure(metric, metric, "", size=(6.4, max(1.8, 0.42 * len(rows) + 1.1)))
    several = rows["run"].duplicated().any()
    names = [
        ", ".join(filter(None, (row["label"] or row["run"], (row["task"] or row["variant"]) if several else "")))
        for _, row in rows.iterrows()
    ]
    bars_with_intervals(axes, rows, [short_name(name) for name in names])
    return figure


def _difference_columns(base: Tables, run: Tables) -> dict[str, Any]:
    resamples = _paired_resamples(base, run)
    if isinstance(resamples, str):
        return {"note": f"{resamples}: no paired test"}
    test = paired_difference(resamples[0], resamples[1]) if resamples[0] and resamples[1] else None
    if test is None:
        return {"note": f"{UNDEFINED}: no paired test"}
    return {"difference": test.value, "difference_low": test.low, "difference_high": test.high, "p": test.p}


def _difference_cell(row: pd.Series) -> Cell:
    names = {"difference": "value", "difference_low": "low", "difference_high": "high"}
    shown = row[list(names)].rename(names)
    return str(row["note"]) or "–" if pd.isna(shown["value"]) else value_cell(shown, sign="+")


def _paired_resamples(base: Tables, run: Tables) -> ResampledPair | str:
    """Return the metric of two runs over the same resamples of rows; or a phrase that says why it cannot be paired."""
    task, other = (task_of_predictions(each.kind, each["predictions"]) for each in (base, run))
    if task is None or other is None:
        return "no predictions"
    if base.metric != run.metric or not task.has_metric(run.metric):
        return "another metric"
    if base.kind != run.kind or base.split != run.split:
        return "not the same rows"
    return task.paired(base["predictions"], run["predictions"], run.metric)
