"""Comparison of several runs: their chosen variants, and paired bootstrap tests on the rows that both predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from permafrost.data.atomic import write_atomically
from permafrost.probes.figures.style import bars_with_intervals, new_figure, short_name
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.reports.metrics import parameters_and_share
from permafrost.probes.reports.page import Picture, Section, render_page
from permafrost.probes.reports.report import drawing_settings
from permafrost.probes.results.formatting import decimals, format_p
from permafrost.probes.results.grid import UNDEFINED, Cell, Grid, cell_text, value_cell
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.results.run_tables import Tables, read_tables
from permafrost.probes.tasks.base import ResampledPair
from permafrost.probes.tasks.registry import task_of_predictions

COLUMNS = [
    "run", "corpus", "variant", "split", "metric", "value", "low", "high", "n", "parameters",
    "difference", "difference_low", "difference_high", "p", "note",
]  # fmt: skip


def comparison(folders: Sequence[Path]) -> pd.DataFrame:
    """Return a table with a line per run: the metric of its chosen variant, and the difference from the first run.

    Raises:
        ReportError: there is no folder, or one is no finished run of one task with variants.
    """
    if not folders:
        raise ReportError("there is nothing to compare: name the folders of two runs or more.")
    runs = [read_tables(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        if run.experiment != "run" or run.metrics.empty:
            raise ReportError(
                f"{folder} has no variants to compare: several tasks, layers, an ablation, a study or pretraining have "
                "reports of their own."
            )
    names = [run.name for run in runs]
    distinct = [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
    lines = [
        _metric_columns(name, run) | (_difference_columns(runs[0], run) if index else {})
        for index, (name, run) in enumerate(zip(distinct, runs, strict=True))
    ]
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.assign(note=frame["note"].astype(object).fillna(""))


def write_comparison(frame: pd.DataFrame, out: Path) -> Path:
    """Write a table of :func:`comparison` as an HTML page to ``out``; return ``out``.

    Raises:
        ReportError: ``out`` is a folder or its folder is missing.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise ReportError(f"{out}: a file in a folder that is there is needed; set --out to another.")
    with drawing_settings():
        section = _section(frame)
        page = render_page("Comparison", "comparison", f"{len(frame)} runs side by side.", [], [section])
    write_atomically(out, page)
    return out


def comparison_section(folders: Sequence[Path]) -> Section:
    """Return the comparison of runs as a section of a page; raises as :func:`comparison`."""
    with drawing_settings():
        return _section(comparison(folders))


def _section(frame: pd.DataFrame) -> Section:
    caption, figure = "The chosen variant of each run, with 95 % intervals.", bars(frame)
    pictures = [Picture(name="runs", title="Runs", caption=caption, figure=figure)] if figure else []
    return Section("results", "Results", "", [comparison_grid(frame), *pictures])


def comparison_grid(frame: pd.DataFrame) -> Grid:
    """Return a comparison as a table with a line per run."""
    lines = [
        [
            *(cell_text(row[name], 80) for name in ("run", "corpus", "variant")),
            f"{cell_text(row['metric'], 40)} on {row['split']}, n = {decimals(row['n'], 0)}",
            value_cell(row),
            decimals(row["parameters"], 0),
            _difference_cell(row),
            format_p(row["p"]),
        ]
        for _, row in frame.iterrows()
    ]
    return Grid(
        caption="Chosen variants. Brackets are bootstrap 95 % intervals over rows, or queries. Differences are "
        "from the first run, on the same rows.",
        heads=["run", "corpus", "chosen", "measured", "value", "parameters", "difference", "p"],
        rows=lines,
        text_columns=4,
    )


def bars(frame: pd.DataFrame) -> Figure | None:
    """Draw runs as bars with intervals, in the given order; only runs with the metric of the first one."""
    rows = frame[(frame["metric"] == frame["metric"].iloc[0]) & frame["value"].notna()]
    if rows.empty:
        return None
    metric = short_name(rows["metric"].iloc[0])
    figure, (axes,) = new_figure(metric, metric, "", size=(6.4, max(1.8, 0.42 * len(rows) + 1.1)))
    bars_with_intervals(axes, rows, [short_name(name) for name in rows["run"]])
    return figure


def _metric_columns(name: str, run: Tables) -> dict[str, Any]:
    rows = run.metrics[(run.metrics["variant"] == run.selected) & (run.metrics["metric"] == run.metric)]
    rows = rows[(rows["split"] == run.split) & rows["seed"].isna()]
    measured = {key: rows[key].iloc[0] if len(rows) else float("nan") for key in ("value", "low", "high", "n")}
    parameters = parameters_and_share(run, run.selected)[0]
    about = {"run": name, "corpus": str(run.record_table("corpus").get("name", "")), "variant": run.selected}
    return about | {"split": run.split, "metric": run.metric} | measured | {"parameters": parameters}


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
