"""Page of an evaluation: what was evaluated on what, the transfer matrix, and what was predicted of each data set."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from permafrost.probes.config.names import PROBE, UNTRAINED
from permafrost.probes.figures.evaluation import transfer_rows
from permafrost.probes.reports.metrics import comparisons_grid, results_grid
from permafrost.probes.reports.page import Tile
from permafrost.probes.reports.summary import duration_tiles
from permafrost.probes.results.formatting import metric_title
from permafrost.probes.results.grid import Grid, cell_text, pivot_lines, value_cell
from permafrost.probes.results.run_tables import Tables

KEYS = ("run", "task", "data", "split", "variant", "metric", "rows", "left_out")
"""What the record says of each evaluation."""


def evaluations(run: Tables) -> dict[str, Mapping[str, Any]]:
    """Return the evaluations of a folder, name -> what its record says; those that lack something are left out."""
    known = run.record_table("evaluations").items()
    return {name: about for name, about in known if isinstance(about, Mapping) and set(KEYS) <= set(about)}


def evaluation_lead(run: Tables) -> str:
    """Return a sentence that says which runs were evaluated on which data."""
    about = evaluations(run).values()
    runs, data = (", ".join(dict.fromkeys(str(each.get(key)) for each in about)) for key in ("run", "data"))
    return cell_text(f"{runs} on {data}.")


def evaluation_tiles(run: Tables) -> list[Tile]:
    """Return tiles: the metric of a single run on a single data set, rows, rows left out, and the time."""
    about = list(evaluations(run).values())
    tiles = []
    if len(about) == 1:
        rows = run.means[run.means["variant"] == run.selected]
        for _, row in rows[rows["metric"] == about[0]["metric"]].head(1).iterrows():
            interval = value_cell(row)
            tiles.append(
                Tile(
                    cell_text(f"{metric_title(row['metric'])} on {row['split']}", 60),
                    f"{row['value']:.3f}",
                    interval[1] if isinstance(interval, tuple) else "",
                )
            )
    tiles.append(Tile("rows", f"{sum(_count(each, 'rows') for each in about):,}"))
    if left_out := sum(_count(each, "left_out") for each in about):
        tiles.append(Tile("left out", f"{left_out:,}", "rows, listed in skipped.csv"))
    return tiles + duration_tiles(run)


def _count(about: Mapping[str, Any], key: str) -> int:
    value = about.get(key)
    return value if isinstance(value, int) else 0


def single_grids(run: Tables) -> list[Grid]:
    """Return the results of a single evaluation, as a run has them; none of several."""
    grid = results_grid(run) if len(evaluations(run)) < 2 else None
    return [grid] if grid else []


def transfer_grids(run: Tables) -> list[Grid]:
    """Return the transfer matrix, a line per run and a column per data set; one table per metric."""
    if len(evaluations(run)) < 2:
        return []
    rows, grids = transfer_rows(run), []
    for metric in dict.fromkeys(rows["metric"]):
        shown = rows[rows["metric"] == metric]
        data = list(dict.fromkeys(shown["data"]))
        grids.append(
            Grid(
                caption=f"{metric_title(metric)} of each run (trained on, down) on each data set (tested on, across); "
                "in brackets the bootstrap 95 % interval. A dash: not evaluated.",
                heads=["run", *(cell_text(name, 40) for name in data)],
                rows=pivot_lines(shown.assign(column=shown["data"]), ["run"], data, lambda row: value_cell(row, 4)),
            )
        )
    return grids


def comparison_grids(run: Tables) -> list[Grid]:
    """Return a line per data set and pair of runs: the difference in words, its interval and p value."""
    rows = run["metrics"]
    tasks = rows["task"].where(rows["task"] == "", ", " + rows["task"])
    named = replace(run, frames={**run.frames, "metrics": rows.assign(task=rows["corpus"] + tasks)})
    grid = comparisons_grid(named)
    return [replace(grid, heads=["runs", "data", *grid.heads[2:]])] if grid else []


def rows_grid(run: Tables) -> Grid | None:
    """Return what was evaluated: run, data, split, number of rows, and how many were left out."""
    lines = [
        [
            *(cell_text(about.get(key, ""), 60) for key in ("run", "task", "data", "split", "variant")),
            *(f"{_count(about, key):,}" for key in ("rows", "left_out")),
        ]
        for about in evaluations(run).values()
    ]
    if not lines:
        return None
    return Grid(
        caption="What was evaluated. Rows that were left out are in skipped.csv, with the reason.",
        heads=["run", "task", "data", "split", "variant", "rows", "left out"],
        rows=lines,
        text_columns=5,
    )


def pair_tables(run: Tables, name: str) -> Tables:
    """Return one of several evaluations in the form of a run of one task."""
    about = evaluations(run)[name]
    rows = run["metrics"]
    is_own = (rows["variant"] == about["run"]) | (rows["variant"] == f"{UNTRAINED} ({about['run']})")
    own = rows[is_own & (rows["corpus"] == about["data"]) & (rows["task"] == about["task"]) & (rows["against"] == "")]
    frames = {**run.frames, **run.tasks[name], "metrics": own.assign(task="")}
    frames["breakdown"] = frames["breakdown"].assign(variant=about["run"])
    tasks = {PROBE: run.record_table("tasks", name)}
    record = {**run.record, "selected": about["run"], "metric": about["metric"], "tasks": tasks}
    return replace(run, name=name, record=record, frames=frames, tasks={})
