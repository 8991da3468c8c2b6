"""What the screen shows of a run that trains several tasks: a line a variant, its figures and its costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.results import scored_in, with_interval
from probes.summary import duration, size
from probes.tables import UNTRAINED

MOST_FIGURES = 4
"""Columns of figures; of more metrics the first of each task."""

Row = Mapping[str, Any]


def headline(metrics: Sequence[Row], variants: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Heads, and a line a variant: its metrics on each task's scored split, and what it cost.

    A variant that does not train a task is not measured on it, and its cell is empty. Of what is said without training
    the last layer is shown.

    Args:
        metrics: rows of ``metrics.csv``; of a task the metric that chooses comes first.
        variants: rows of ``variants.csv``.
    """
    summed = [row for row in metrics if row["seed"] is None and not row["metric"].endswith("_p")]
    columns: list[tuple[str, str, str]] = []
    tasks = list(dict.fromkeys(row["task"] for row in summed))
    most = max(1, MOST_FIGURES // max(1, len(tasks)))
    for task in tasks:
        split = scored_in([row for row in summed if row["task"] == task])
        known = dict.fromkeys(row["metric"] for row in summed if (row["task"], row["split"]) == (task, split))
        columns += [(task, metric, split) for metric in list(known)[:most]]
    cells = {
        (row["variant"], (row["task"], row["metric"], row["split"])): with_interval(row)
        for row in sorted(summed, key=lambda row: -1 if row["layer"] is None else row["layer"])
    }
    costs = {row["variant"]: _costs(row) for row in variants}
    untrained = dict.fromkeys(row["variant"] for row in summed if row["variant"].startswith(UNTRAINED))
    names = [
        *untrained,
        *dict.fromkeys([*costs, *(row["variant"] for row in summed if row["variant"] not in untrained)]),
    ]
    lines = [
        [name, *(cells.get((name, column), "") for column in columns), *costs.get(name, [""] * 4)] for name in names
    ]
    heads = [f"{task}: {metric} on {split}" for task, metric, split in columns]
    return ["variant", *heads, "learnt", "saved", "training", "memory"], lines


def _costs(row: Row) -> list[str]:
    """Of a variant; what is not known is empty."""
    shown = {"trained": "{:,.0f}".format, "saved": "{:,.0f}".format, "seconds": duration, "memory": size}
    return ["" if row.get(name) is None else say(row[name]).replace("\u00a0", " ") for name, say in shown.items()]
