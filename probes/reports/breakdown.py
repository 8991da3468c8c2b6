"""Tables of a breakdown: metrics by class, label, entity type, pattern or question word, and by variant."""

import pandas as pd

from permafrost.probes.figures.breakdown import largest_groups, shown_metrics
from permafrost.probes.figures.metrics import sorted_by_variant
from permafrost.probes.figures.predictions import CLASS_METRICS
from permafrost.probes.results.formatting import decimals
from permafrost.probes.results.grid import Grid, cell_text, pivot_lines
from permafrost.probes.results.run_tables import Tables, reported_split

COUNT_HEADS = {
    "class": "rows",
    "label": "rows",
    "entity type": "entities",
    "pattern": "rows",
    "question word": "questions",
}
"""Kind of group -> head of the column of counts."""

GROUP_HEADS = {
    "class": "class",
    "label": "label",
    "entity type": "type",
    "pattern": "rows with",
    "question word": "asks",
}
"""Kind of group -> head of the column of groups."""

CLASS_NOUNS = {"class": ("class", "classes"), "label": ("label", "labels"), "entity type": ("type", "types")}
"""Kind of group that is a class -> its noun, singular and plural."""

MOST_LINES = 1000


def breakdown_grids(run: Tables, kind: str) -> list[Grid]:
    """Return the tables of one kind of group: of the scored split first, then of the others, folded."""
    rows = run["breakdown"][run["breakdown"]["kind"] == kind]
    first = reported_split(rows)
    splits = sorted(dict.fromkeys(rows["split"]), key=lambda split: split != first)[:4]
    return [
        _split_grid(rows[rows["split"] == split], kind, split, run.seed_aggregation, split != first) for split in splits
    ]


def _split_grid(rows: pd.DataFrame, kind: str, split: str, over_seeds: str, folded: bool) -> Grid:
    groups, metrics = largest_groups(rows), shown_metrics(rows)
    shown = rows[rows["group"].isin(groups)].assign(column=rows["metric"])
    left_out = rows["group"].nunique() - len(groups)
    more = f" {left_out:,} more groups are in breakdown.csv." if left_out else ""
    heads = (cell_text(metric.replace("_", " "), 40) for metric in metrics)
    return Grid(
        caption=f"On {cell_text(split, 40)}; in brackets the bootstrap 95 % interval over rows, {over_seeds}.{more}",
        heads=[GROUP_HEADS.get(kind, cell_text(kind, 40)), *heads, COUNT_HEADS.get(kind, "rows")],
        rows=pivot_lines(shown, ["group"], metrics, closing=["n"]),
        fold=f"On {cell_text(split, 40)}" if folded else "",
    )


def variant_grids(run: Tables, task: str) -> list[Grid]:
    """Return a table of means over classes with a line per variant, and a folded one with a line per variant and class.

    Empty if the task has no classes, or the run one variant.
    """
    rows = run.tasks[task]["breakdown"]
    rows = rows[rows["kind"].isin(list(CLASS_NOUNS)) & rows["metric"].isin(list(CLASS_METRICS))]
    rows = rows[rows["split"] == reported_split(rows)].assign(column=rows["metric"])
    rows = sorted_by_variant(run, rows)
    names = list(dict.fromkeys(rows["variant"]))
    if len(names) < 2:
        return []
    split, (noun, plural) = cell_text(rows["split"].iloc[0], 40), CLASS_NOUNS[rows["kind"].iloc[0]]
    means = rows.groupby(["variant", "column"], sort=False)["value"].mean().reset_index()
    lines = pivot_lines(rows, ["variant", "group"], list(CLASS_METRICS), closing=["n"])
    return [
        Grid(
            caption=f"On {split}, {run.seed_aggregation}: means over {plural}, each of which counts the same.",
            heads=["variant", *(f"macro {name}" for name in CLASS_METRICS.values())],
            rows=pivot_lines(means, ["variant"], list(CLASS_METRICS), lambda row: decimals(row["value"], 3)),
            strong=names.index(run.selected) if run.selected in names else None,
        ),
        Grid(
            caption=f"On {split}; in brackets the bootstrap 95 % interval over rows.",
            heads=["variant", noun, *CLASS_METRICS.values(), "n"],
            rows=lines[:MOST_LINES],
            text_columns=2,
            fold=f"By variant and {noun}, {len(lines):,} lines",
        ),
    ]
