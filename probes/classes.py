"""What every variant makes of the classes of a task: precision, recall and F1 in tables, and a confusion matrix."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from probes.drawing import canvas
from probes.figures import matrix
from probes.page import Grid, tidy
from probes.summary import decimals, with_interval
from probes.tables import Tables, scored
from probes.together_figures import MOST_PANELS, in_order, panels_size, told_apart

GROUPS = {"class": ("class", "classes"), "entity type": ("type", "types")}
"""Kinds of groups that are classes, and what one is called, and several."""

FIGURES = {"precision": "precision", "recall": "recall", "f1": "F1"}
MOST_CLASSES = 6
"""Of which confusion matrices stand side by side; larger ones would be too small to be read."""

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


def confusions(run: Tables) -> Figure | None:
    """A panel a variant: gold classes against predicted ones; None of one variant, or of many classes."""
    rows = run.confusion[run.confusion["n"].notna()]
    names = in_order(run, rows["variant"])[:MOST_PANELS]
    classes = sorted({*rows["target"], *rows["label"]})
    if len(names) < 2 or len(classes) > MOST_CLASSES:
        return None
    side = 0.7 + 0.4 * len(classes)
    size, down = panels_size(len(names), side, side + 0.6, 0.9)
    titles = told_apart(names, 6 * len(classes))
    figure, axes = canvas("gold class (down) against predicted (across)", "", "", titles, size, down)
    across = -(-len(names) // down)
    for place, (panel, name) in enumerate(zip(axes, names, strict=True)):
        table = rows[rows["variant"] == name].pivot_table("n", "target", "label", "sum", 0)
        matrix(panel, table.reindex(index=classes, columns=classes, fill_value=0))
        panel.set_xticks(range(len(classes)), told_apart(classes, 14), rotation=45, ha="right")
        if place % across:
            panel.set_yticks(range(len(classes)), [""] * len(classes))
        panel.tick_params(labelsize=8)
    return figure


def _every(rows: pd.DataFrame, names: list[str], kind: str, split: str) -> Grid:
    """A line a variant and class."""
    lines = []
    for name in names:
        for group, part in rows[rows["variant"] == name].groupby("group", sort=False):
            known = {row["metric"]: with_interval(row) for _, row in part.iterrows()}
            cells = [known.get(metric, "–") for metric in FIGURES]
            lines.append([tidy(name, 60), tidy(group, 60), *cells, decimals(part["n"].iloc[0], 0)])
    said = f"On {split}; in brackets the bootstrap 95 % interval over rows."
    heads = ["variant", kind, *FIGURES.values(), "n"]
    return Grid(said, heads, lines[:MOST_LINES], 2, fold=f"By variant and {kind}, {len(lines):,} lines")
