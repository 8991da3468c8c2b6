"""Tables of a run of several tasks: metrics and costs of each variant, metrics by epoch, comparisons of variants."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import CORRELATIONS
from permafrost.probes.figures.multitask import (
    in_recipe_order,
    metric_title,
    metrics_by_epoch,
    second_metric_rank,
    selection_rows,
    tables_of_task,
)
from permafrost.probes.figures.style import mean_rows
from permafrost.probes.reports.page import Cell, Grid, Tile, cell_text
from permafrost.probes.reports.summary import decimals, percent, value_cell
from permafrost.probes.results.formatting import format_duration, format_size
from permafrost.probes.results.run_tables import Tables

MOST_COLUMNS = 4
"""Metrics that the table of variants shows; of more metrics the first of each task, at least one."""

MOST_EPOCHS = 12

MOST_OPEN = 20
"""Lines up to which a table is not folded."""

MOST_ROWS = 1000

MOST_FROZEN = 20

IN_UNITS = (*CORRELATIONS, "mae")
"""Metrics whose differences are shown in their unit; those of all others in percentage points."""

COSTS = {"trained": "trained", "saved": "saved", "seconds": "took", "memory": "memory"}
"""Column of ``variants.csv`` -> its head."""

COST_NOTES = {
    "trained": "trained: parameters that were trained, and their share of backbone and heads",
    "saved": "saved: how many more would be trained if each task had blocks of its own",
    "memory": "memory: peak growth of the process during training",
}


class Column(NamedTuple):
    """A metric of a task on a split: a column of the table of variants."""

    task: str
    metric: str
    split: str


def variants_grid(run: Tables) -> Grid | None:
    """Return a line per variant: its metrics on every task with intervals, and its costs; None without tasks."""
    names = _variants(run)
    if not run.tasks or not names:
        return None
    columns, rows, costs = _columns(run), mean_rows(run.metrics), _known_costs(run)
    lines = []
    for name in names:
        cells = [_value(rows[rows["variant"] == name], column) for column in columns]
        lines.append([cell_text(name, 60), *cells, *(_cost(run, name, cost) for cost in costs)])
    splits = list(dict.fromkeys(column.split for column in columns))
    heads = [_column_head(column, len(run.task_names) > 1, len(splits) > 1) for column in columns]
    on = f"On {splits[0]}; in" if len(splits) == 1 else "In"
    caption = f"{on} brackets the bootstrap 95 % interval over rows, {run.seed_aggregation}. A dash: not measured."
    return Grid(
        caption=f"{caption}{_costs_note(costs)}",
        heads=["variant", *heads, *map(COSTS.__getitem__, costs)],
        rows=lines,
        strong=names.index(run.selected) if run.selected in names else None,
    )


def epochs_grid(run: Tables) -> Grid | None:
    """Return a line per task, metric and variant: values before training and after each epoch."""
    rows = run.epochs[run.epochs["value"].notna() & run.epochs["epoch"].notna()]
    means = rows.groupby(["task", "metric", "variant", "epoch"], sort=False)["value"].mean()
    if means.empty:
        return None
    epochs = np.unique(rows["epoch"])
    shown = epochs[np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_EPOCHS)).round().astype(int))]
    lines = []
    for task, metric in [(task, metric) for task, metrics in metrics_by_epoch(run).items() for metric in metrics]:
        for variant in in_recipe_order(run, rows["variant"]):
            cells = [decimals(means.get((task, metric, variant, epoch), np.nan), 3) for epoch in shown]
            if any(cell != "–" for cell in cells):
                lines.append([cell_text(task, 60), cell_text(metric_title(metric), 40), cell_text(variant, 60), *cells])
    splits = " or ".join(dict.fromkeys(tables_of_task(run, task).selection for task in metrics_by_epoch(run)))
    left_out = "; of many epochs some are shown" if len(shown) < len(epochs) else ""
    return Grid(
        caption=f"On {splits}, before training and after each epoch, means over seeds{left_out}.",
        heads=["task", "metric", "variant", *("before" if epoch == 0 else f"epoch {epoch:g}" for epoch in shown)],
        rows=lines[:MOST_ROWS],
        text_columns=3,
        fold=f"All {len(lines):,} lines by epoch" if len(lines) > MOST_OPEN else "",
    )


def frozen_note(run: Tables) -> str:
    """Return a sentence that says which components were frozen and when, means over seeds; empty if none was."""
    rows = run.frozen[run.frozen["epoch"].notna()].groupby(["variant", "component"], sort=False)["epoch"].mean()
    phrases = []
    for variant, component, epoch in rows.reset_index().itertuples(index=False):
        when = "from the start" if epoch == 0 else "after 1 epoch" if epoch == 1 else f"after {epoch:.3g} epochs"
        phrases.append(f"{cell_text(component, 60)} of “{cell_text(variant, 60)}” {when}")
    more = f", and {len(phrases) - MOST_FROZEN:,} more" if len(phrases) > MOST_FROZEN else ""
    return f"Frozen: {'; '.join(phrases[:MOST_FROZEN])}{more}." if phrases else ""


def comparisons_grid(run: Tables) -> Grid | None:
    """Return a line per pair of variants and task: the difference in words, its interval and p value."""
    rows = run.comparisons[run.comparisons["difference"].notna()].head(MOST_ROWS)
    if rows.empty:
        return None
    lines = [
        [
            cell_text(f"{row['variant']} against {row['against']}", 120),
            cell_text(row["task"], 60),
            cell_text(f"{metric_title(row['metric'])} on {row['split']}", 60),
            verdict(row),
            difference_cell(row),
            "–" if pd.isna(row["p"]) else f"{row['p']:.2f}" if row["p"] >= 0.1 else _small_p(row["p"]),
            decimals(row["n"], 0),
        ]
        for _, row in rows.iterrows()
    ]
    caption = (
        "How far the first variant is above the second on the same rows, with the 95 % interval and p of a paired "
        "bootstrap; a point is a hundredth. The outcome is that of the first variant: no difference is shown if the "
        "interval contains 0."
    )
    heads = ["variants", "task", "measured", "outcome", "difference", "p", "rows"]
    return Grid(caption=caption, heads=heads, rows=lines, text_columns=4)


def difference_cell(row: pd.Series) -> Cell:
    """Return a difference in points with its interval, ``-0.4 points`` and ``[-1.2, 0.5]``; or ``-0.004`` in units."""
    scale, places, unit = (1, 3, "") if row["metric"] in IN_UNITS else (100, 1, " points")
    value, low, high = (scale * row[name] for name in ("difference", "low", "high"))
    text = f"{value:+.{places}f}{unit}".replace(" ", "\u00a0")
    return text if pd.isna(low) or pd.isna(high) else (text, f"[{low:.{places}f}, {high:.{places}f}]")


def verdict(row: pd.Series) -> str:
    """Return whether the first variant is better or worse: a difference is shown if its interval excludes 0."""
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return "–"
    sign = -1 if row["metric"] == "mae" else 1
    above, under = row["low"] > 0, row["high"] < 0
    if not above and not under:
        return "no difference shown"
    return "better" if (above and sign > 0) or (under and sign < 0) else "worse"


def _small_p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<\u00a00.001"


def multitask_tiles(run: Tables) -> list[Tile]:
    """Return tiles of the chosen variant: its name, its selection metric on every task, its trained parameters."""
    tiles = [Tile("chosen", cell_text(run.selected, 40))] if run.selected else []
    for task in run.task_names:
        rows = selection_rows(run, task)
        for _, row in rows[rows["variant"] == run.selected].iterrows():
            has_interval = pd.notna(row["low"]) and pd.notna(row["high"])
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if has_interval else ""
            name = f"{cell_text(task, 40)}: {metric_title(row['metric'])} on {row['split']}"
            tiles.append(Tile(cell_text(name, 90), f"{row['value']:.3f}", interval))
    for _, row in run.variants[run.variants["variant"] == run.selected].head(1).iterrows():
        if pd.notna(row["trained"]):
            share = row["trained"] / row["parameters"] if row["parameters"] > 0 else 0
            tiles.append(
                Tile("trained parameters", f"{row['trained']:,.0f}", f"{percent(share)} of all" if share else "")
            )
    return tiles


def _columns(run: Tables) -> list[Column]:
    """The metrics of every task on its scored split, the selection metric first.

    If a held-out part of train selects, the selection metric is shown on validation too.
    """
    most = max(1, MOST_COLUMNS // len(run.task_names))
    columns = []
    for task in run.task_names:
        tables = run.for_task(task)
        rows = mean_rows(tables.metrics)
        rows = rows[~rows["metric"].str.endswith("_p")]
        names = sorted(set(rows.loc[rows["split"] == tables.split, "metric"]), key=_rank_after(tables.metric))
        columns += [Column(task, name, tables.split) for name in names[:most]]
        if tables.selection == HELD_OUT and tables.split == "test" and (rows["split"] == "validation").any():
            columns.append(Column(task, tables.metric, "validation"))
    return columns


def _rank_after(first: str) -> Callable[[str], tuple[bool, int, str]]:
    return lambda name: (name != first, second_metric_rank(name), name)


def _column_head(column: Column, several_tasks: bool, several_splits: bool) -> str:
    head = cell_text(f"{column.task}: " * several_tasks + metric_title(column.metric), 60)
    return f"{head} on {column.split}" if several_splits else head


def _variants(run: Tables) -> list[str]:
    return in_recipe_order(run, [*mean_rows(run.metrics)["variant"], *run.variants["variant"]])[:MOST_ROWS]


def _value(rows: pd.DataFrame, column: Column) -> Cell:
    rows = rows[(rows["task"] == column.task) & (rows["metric"] == column.metric) & (rows["split"] == column.split)]
    return value_cell(rows.sort_values("layer", kind="stable").iloc[-1]) if len(rows) else "–"


def _known_costs(run: Tables) -> list[str]:
    """Columns of costs that are not all zero or missing; for example nothing is saved if no backbone is shared."""
    return [name for name in COSTS if (run.variants[name] > 0).any()]


def _cost(run: Tables, variant: str, cost: str) -> Cell:
    for _, row in run.variants[run.variants["variant"] == variant].head(1).iterrows():
        value = row[cost]
        if pd.isna(value):
            return "–"
        if cost == "seconds":
            return re.sub(r"(?<=\d) ", "\u00a0", format_duration(value))
        if cost == "memory":
            return format_size(value)
        share = value / row["parameters"] if cost == "trained" and row["parameters"] > 0 else 0
        return (f"{value:,.0f}", percent(share).replace(" ", "\u00a0")) if share else f"{value:,.0f}"
    return "–"


def _costs_note(costs: list[str]) -> str:
    note = "; ".join(note for cost, note in COST_NOTES.items() if cost in costs)
    return f" {note[:1].upper()}{note[1:]}." if note else ""
