"""TODO: probes/reports/breakdown.py."""

import numpy as np
import pandas as pd

from permafrost.probes.figures.breakdown import largest_groups, metrics_of
from permafrost.probes.figures.confusion import FIGURES
from permafrost.probes.figures.multitask import in_order
from permafrost.probes.reports.page import Grid, tidy
from permafrost.probes.reports.summary import decimals, value_and_interval
from permafrost.probes.results.run_tables import Tables, scored

COUNTED = {"class": "rows", "entity type": "entities", "pattern": "rows", "question word": "questions"}

HEADS = {"class": "class", "entity type": "type", "pattern": "rows with", "question word": "asks"}


def grids(run: Tables, kind: str) -> list[Grid]:
    """A table a split, that of the scored one first and the others folded away."""
    rows = run.breakdown[run.breakdown["kind"] == kind]
    first = scored(rows)
    splits = sorted(dict.fromkeys(rows["split"]), key=lambda split: split != first)[:4]
    return [_grid(rows[rows["split"] == split], kind, split, run.over_seeds, split != first) for split in splits]


def _grid(rows: pd.DataFrame, kind: str, split: str, over: str, folded: bool) -> Grid:
    groups, metrics = largest_groups(rows), metrics_of(rows)
    lines = []
    for group in groups:
        part = rows[rows["group"] == group]
        known = {row["metric"]: value_and_interval(row) for _, row in part.iterrows()}
        cells = [known.get(metric, "–") for metric in metrics]
        n = part["n"].iloc[0]
        lines.append([tidy(group, 60), *cells, "–" if pd.isna(n) else f"{n:,.0f}"])
    left_out = rows["group"].nunique() - len(groups)
    more = f" {left_out:,} more groups are in breakdown.csv." if left_out else ""
    said = f"On {tidy(split, 40)}; in brackets the bootstrap 95 % interval over rows, {over}.{more}"
    heads = [HEADS[kind], *(tidy(metric.replace("_", " "), 40) for metric in metrics), COUNTED[kind]]
    return Grid(said, heads, lines, fold=f"On {tidy(split, 40)}" if folded else "")


GROUPS = {"class": ("class", "classes"), "entity type": ("type", "types")}
"""Kinds of groups that are classes, and what one is called, and several."""

MOST_LINES = 1000


def by_variant(run: Tables, task: str) -> list[Grid]:
    """A line a variant, means over classes; and, folded away, a line a variant and class.

    Nothing where there are no classes, or one variant alone.
    """
    rows = run.tasks[task].breakdown
    rows = rows[rows["kind"].isin(list(GROUPS)) & rows["metric"].isin(list(FIGURES))]
    rows = rows[rows["split"] == scored(rows)]
    names = in_order(run, rows["variant"])
    if len(names) < 2:
        return []
    split, (kind, kinds) = tidy(rows["split"].iloc[0], 40), GROUPS[rows["kind"].iloc[0]]
    means = rows.groupby(["variant", "metric"])["value"].mean()
    lines = [
        [tidy(name, 60), *(decimals(means.get((name, metric), np.nan), 3) for metric in FIGURES)] for name in names
    ]
    strong = names.index(run.selected) if run.selected in names else None
    said = f"On {split}, {run.over_seeds}: means over {kinds}, each of which counts the same."
    heads = ["variant", *(f"macro {name}" for name in FIGURES.values())]
    return [Grid(said, heads, lines, 1, strong), _every(rows, names, kind, split)]


def _every(rows: pd.DataFrame, names: list[str], kind: str, split: str) -> Grid:
    """A line a variant and class."""
    lines = []
    for name in names:
        for group, part in rows[rows["variant"] == name].groupby("group", sort=False):
            known = {row["metric"]: value_and_interval(row) for _, row in part.iterrows()}
            cells = [known.get(metric, "–") for metric in FIGURES]
            lines.append([tidy(name, 60), tidy(group, 60), *cells, decimals(part["n"].iloc[0], 0)])
    said = f"On {split}; in brackets the bootstrap 95 % interval over rows."
    heads = ["variant", kind, *FIGURES.values(), "n"]
    return Grid(said, heads, lines[:MOST_LINES], 2, fold=f"By variant and {kind}, {len(lines):,} lines")
