"""Tables of the metrics of a run: variants with their costs, paired comparisons, metrics by epoch."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import CORRELATIONS, PROBE, UNTRAINED
from permafrost.probes.figures.metrics import sorted_by_variant
from permafrost.probes.figures.training import metric_rank, metrics_by_epoch
from permafrost.probes.results.files import number
from permafrost.probes.results.formatting import (
    decimals,
    format_p,
    format_size,
    metric_title,
    percent,
    unbroken_duration,
)
from permafrost.probes.results.grid import Cell, Grid, cell_text, pivot_lines, value_cell
from permafrost.probes.results.metric_row import PARAMETERS, SAVED_PARAMETERS, TRAINED_PARAMETERS
from permafrost.probes.results.run_tables import Tables
from permafrost.probes.tasks.registry import unit_of

MOST_COLUMNS = 4
"""Metrics that the table of several tasks shows; of more metrics the first of each task, at least one."""

MOST_EPOCHS = 12

MOST_OPEN = 20
"""Lines up to which a table is not folded."""

MOST_ROWS = 1000

MOST_FROZEN = 20

IN_UNITS = (*CORRELATIONS, "mae")
"""Metrics whose differences are shown in their unit; those of all others in percentage points."""

COSTS = {TRAINED_PARAMETERS: "trained", SAVED_PARAMETERS: "saved", "seconds": "took", "memory": "memory"}
"""Cost of a variant -> head of its column."""

COST_NOTES = {
    TRAINED_PARAMETERS: "trained: parameters that were trained, and their share of {}",
    SAVED_PARAMETERS: "saved: how many more would be trained if each task had blocks of its own",
    "memory": "memory: peak growth of the process during training",
}


class Column(NamedTuple):
    """A metric of a task on a split: a column of the table of variants."""

    task: str
    metric: str
    split: str


def results_grid(run: Tables) -> Grid | None:
    """Return the table of variants: their metrics with intervals, and their costs.

    A run of several tasks has a line per variant, and columns for each task. Any other run has a line per variant and
    latents, and of the untrained reference one for the last layer of each view and for the best on the split that
    selects. If a held-out part of train selects, validation is shown beside test.
    """
    measured, costs = _shown_rows(run), _cost_rows(run)
    if measured.empty:
        return None
    columns = _columns(run, measured)
    shown_costs = [cost for cost in COSTS if (costs.loc[costs["column"] == cost, "value"] > 0).any()]
    keys = ["variant"] if run.tasks else ["variant", "latents"]
    if not run.tasks:
        costs = costs.merge(measured[keys].drop_duplicates(), on="variant")
    rows = sorted_by_variant(run, pd.concat([measured, costs]))
    lines = pivot_lines(rows, keys, [*columns, *shown_costs], partial(_cell, run))[:MOST_ROWS]
    splits = list(dict.fromkeys(column.split for column in columns))
    many_tasks, many_splits = len({column.task for column in columns}) > 1, len(splits) > 1
    heads = [
        cell_text(f"{task}: " * many_tasks + metric_title(metric), 60) + f" on {split}" * many_splits
        for task, metric, split in columns
    ]
    selected = cell_text(run.selected, 60)
    return Grid(
        caption=_caption(run, measured, splits, shown_costs),
        heads=[*keys, *heads, *map(COSTS.__getitem__, shown_costs)],
        rows=lines,
        text_columns=len(keys),
        strong=next((index for index, line in enumerate(lines) if line[0] == selected), None),
    )


def _shown_rows(run: Tables) -> pd.DataFrame:
    """The means over seeds, of the untrained reference those of the last layer of each view, and of the best one.

    With two more columns: ``latents``, in words, and ``column``, where the row stands. A correlation that is missing
    although the error of the same predictions is there has a row without a value.
    """
    rows = run.means
    rows = rows[~rows["metric"].str.endswith("_p")]
    keys = ["variant", "task"] if run.tasks else ["variant", "view", "task"]
    untrained = rows["variant"].str.startswith(UNTRAINED) & rows["layer"].notna()
    shown = ~untrained | (rows["layer"] == rows.groupby(keys)["layer"].transform("max"))
    if not run.tasks:
        selecting = rows[untrained & (rows["split"] == run.selection) & (rows["metric"] == run.metric)]
        best = selecting.loc[selecting.groupby(keys)["value"].idxmax(), [*keys, "layer"]].assign(best=True)
        shown |= rows.merge(best, how="left", on=[*keys, "layer"])["best"].notna().to_numpy()
    rows = rows[shown]
    with_error = rows[rows["metric"] == "mae"]
    rows = pd.concat([rows, *(with_error.assign(metric=name, value=np.nan) for name in CORRELATIONS)])
    places: Any = list(map(Column, rows["task"], rows["metric"], rows["split"]))
    latents = [
        str(view).replace("+", " + ") + ("" if pd.isna(layer) else f", layer {layer:.0f}")
        for view, layer in zip(rows["view"], rows["layer"], strict=True)
    ]
    return rows.assign(latents=latents, column=places)


def _columns(run: Tables, rows: pd.DataFrame) -> list[Column]:
    """The metrics of every task on its scored split, the selection metric first, and on validation if train selects.

    Of several tasks a few metrics are shown, on validation the selection metric alone.
    """
    columns = []
    for task in run.task_names or list(dict.fromkeys(rows["task"])):
        tables = run.for_task(task)
        task_rows = rows[(rows["task"] == task) & rows["value"].notna()]
        names = list(dict.fromkeys(task_rows.loc[task_rows["split"] == tables.split, "metric"]))
        if run.tasks:
            most = max(1, MOST_COLUMNS // len(run.task_names))
            names = sorted(sorted(names), key=partial(metric_rank, first=tables.metric))[:most]
        columns += [Column(task, name, tables.split) for name in names]
        if tables.selection == HELD_OUT and tables.split == "test" and (task_rows["split"] == "validation").any():
            columns += [Column(task, name, "validation") for name in names if not run.tasks or name == tables.metric]
    return columns


def _caption(run: Tables, rows: pd.DataFrame, splits: list[str], costs: list[str]) -> str:
    if not splits and number(found := run.record_table("corpus", "rows").get(run.split)) == 1:
        return (
            f"No metric: it needs two rows or more of {run.split}, which has {found}. Add labelled rows, or give "
            f"{run.split} more of them, e.g. corpus.fractions = [0.5, 0.25, 0.25]."
        )
    n = rows.loc[rows["split"].isin(splits), "n"].max()
    of = f" of {n:,.0f} {unit_of(run.kind)}" if pd.notna(n) and not run.tasks and len(splits) == 1 else ""
    on = f"On {cell_text(splits[0], 40)}{of}; in" if len(splits) == 1 else "In"
    caption = f"{on} brackets the bootstrap 95 % interval over {unit_of(run.kind)}, {run.seed_aggregation}."
    reference = run.record_table("tasks", PROBE).get("reference")
    if rows["variant"].str.startswith(UNTRAINED).any() and reference:
        caption += f" “{UNTRAINED}” is {cell_text(reference).replace('{split}', run.selection)}."
    whole = "backbone and heads" if (run.counts["metric"] == PARAMETERS).any() else "the backbone's"
    note = "; ".join(note.format(whole) for cost, note in COST_NOTES.items() if cost in costs)
    return f"{caption} A dash: not measured." + (f" {note[:1].upper()}{note[1:]}." if note else "")


def _cost_rows(run: Tables) -> pd.DataFrame:
    """The costs of variants, of the counts in ``metrics.csv`` and of the record: ``variant, column, value``."""
    counts = run.counts[(run.counts["subset"] == "") & run.counts["value"].notna()]
    costs = list(counts[["variant", "metric", "value"]].itertuples(index=False, name=None))
    for variant in dict.fromkeys(counts["variant"]):
        paid = run.record_table("costs", variant)
        costs += [(variant, name, number(paid.get(name))) for name in ("seconds", "memory")]
    return pd.DataFrame([cost for cost in costs if cost[2] is not None], columns=["variant", "column", "value"])


def parameters_and_share(run: Tables, variant: str) -> tuple[float | None, float | None]:
    """Return the trained parameters of a variant, and their share of all or of the backbone's; None if unknown."""
    counts = run.counts[(run.counts["variant"] == variant) & run.counts["value"].notna()]
    known = dict(zip(counts["metric"], counts["value"], strict=True))
    trained = known.get(TRAINED_PARAMETERS)
    whole = known.get(PARAMETERS) or number(run.record_table("probes", variant).get("backbone_parameters"))
    return trained, trained / whole if trained and whole else None


def _cell(run: Tables, row: pd.Series) -> Cell:
    """The cell of a metric, or of a cost."""
    value, column = row["value"], row["column"]
    if column not in COSTS:
        return value_cell(row, 4)
    if column in ("seconds", "memory"):
        return unbroken_duration(value) if column == "seconds" else format_size(value)
    share = parameters_and_share(run, row["variant"])[1] if column == TRAINED_PARAMETERS else None
    return (f"{value:,.0f}", percent(share)) if share else f"{value:,.0f}"


def comparisons_grid(run: Tables) -> Grid | None:
    """Return a line per pair of variants and task: the difference in words, its interval and p value."""
    rows = run.differences[(run.differences["subset"] == "") & run.differences["value"].notna()].head(MOST_ROWS)
    if rows.empty:
        return None
    lines = [
        [
            cell_text(f"{row['variant']} against {row['against']}", 120),
            cell_text(row["task"], 60),
            cell_text(f"{metric_title(row['metric'])} on {row['split']}", 60),
            verdict(row),
            difference_cell(row),
            format_p(row["p"]),
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
    scale, places, unit = (1, 3, "") if row["metric"] in IN_UNITS else (100, 1, "\u00a0points")
    value, low, high = (scale * row[name] for name in ("value", "low", "high"))
    text = f"{value:+.{places}f}{unit}"
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


def epochs_grid(run: Tables) -> Grid | None:
    """Return a line per task, metric and variant: values before training and after each epoch."""
    rows = run["epochs"].dropna(subset=["value", "epoch"])
    metrics = metrics_by_epoch(run)
    places = [(task, metric) for task, some in metrics.items() for metric in some]
    rows = sorted_by_variant(run, rows)
    parts = [rows[(rows["task"] == task) & (rows["metric"] == metric)] for task, metric in places]
    if not parts:
        return None
    keys = ["task", "metric", "variant"]
    means = pd.concat(parts).groupby([*keys, "epoch"], sort=False)["value"].mean().reset_index(name="value")
    epochs = np.unique(rows["epoch"])
    shown = epochs[np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_EPOCHS)).round().astype(int))]
    means = means.assign(metric=means["metric"].map(metric_title), column=means["epoch"])
    means = means[means["epoch"].isin(shown)]
    lines = pivot_lines(means, keys, list(shown), lambda row: decimals(row["value"], 3))
    splits = " or ".join(dict.fromkeys(run.for_task(task).selection for task in metrics))
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
    rows = run["frozen"][run["frozen"]["epoch"].notna()].groupby(["variant", "component"], sort=False)["epoch"].mean()
    phrases = []
    for variant, component, epoch in rows.reset_index().itertuples(index=False):
        when = "from the start" if epoch == 0 else "after 1 epoch" if epoch == 1 else f"after {epoch:.3g} epochs"
        phrases.append(f"{cell_text(component, 60)} of “{cell_text(variant, 60)}” {when}")
    more = f", and {len(phrases) - MOST_FROZEN:,} more" if len(phrases) > MOST_FROZEN else ""
    return f"Frozen: {'; '.join(phrases[:MOST_FROZEN])}{more}." if phrases else ""
