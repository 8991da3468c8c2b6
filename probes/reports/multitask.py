"""Tables of a run that trains several tasks: what each variant is worth and costs, and whether sharing harms a task."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import CORRELATIONS
from permafrost.probes.figures.multitask import SECOND, alone, followed, in_order, measured, plain_metric
from permafrost.probes.figures.style import seedless
from permafrost.probes.reports.page import Grid, Tile, tidy
from permafrost.probes.reports.summary import decimals, percent, value_and_interval
from permafrost.probes.results.formatting import duration, size
from permafrost.probes.results.run_tables import Tables

MOST_COLUMNS = 4
"""Figures of tasks that the table of variants shows; of more metrics some, but one of each task."""

MOST_EPOCHS = 12

MOST_OPEN = 20
"""Lines of a table that stands open; a longer one is folded away."""

MOST_ROWS = 1000

MOST_FROZEN = 20

IN_UNITS = (*CORRELATIONS, "mae")
"""Metrics whose differences are no shares of rows."""

COSTS = {"trained": "trained", "saved": "saved", "seconds": "took", "memory": "memory"}


class Column(NamedTuple):
    """What the table of variants shows of a task."""

    task: str
    metric: str
    split: str


def results(run: Tables) -> Grid | None:
    """A line a variant: its figures on every task with intervals, then what it cost."""
    names = _variants(run)
    if not run.tasks or not names:
        return None
    columns, rows, costs = _columns(run), seedless(run.metrics), _costs(run)
    lines = []
    for name in names:
        cells = [_value(rows[rows["variant"] == name], one) for one in columns]
        lines.append([tidy(name, 60), *cells, *(_cost(run, name, cost) for cost in costs)])
    splits = list(dict.fromkeys(one.split for one in columns))
    several = len(run.task_names) > 1
    heads = [tidy(f"{one.task}: " * several + plain_metric(one.metric), 60) for one in columns]
    heads = [f"{head} on {one.split}" if len(splits) > 1 else head for head, one in zip(heads, columns, strict=True)]
    on = f"On {splits[0]}; in" if len(splits) == 1 else "In"
    said = f"{on} brackets the bootstrap 95 % interval over rows, {run.over_seeds}. A dash: not measured."
    strong = names.index(run.selected) if run.selected in names else None
    return Grid(f"{said}{_costs_said(costs)}", ["variant", *heads, *map(COSTS.__getitem__, costs)], lines, 1, strong)


def by_epoch(run: Tables) -> Grid | None:
    """A line a task, metric and variant: before training and after each epoch."""
    rows = run.epochs[run.epochs["value"].notna() & run.epochs["epoch"].notna()]
    means = rows.groupby(["task", "metric", "variant", "epoch"], sort=False)["value"].mean()
    if means.empty:
        return None
    every = np.unique(rows["epoch"])
    shown = every[np.unique(np.linspace(0, len(every) - 1, min(len(every), MOST_EPOCHS)).round().astype(int))]
    lines = []
    for task, metric in [(task, metric) for task, metrics in followed(run).items() for metric in metrics]:
        for variant in in_order(run, rows["variant"]):
            cells = [decimals(means.get((task, metric, variant, epoch), np.nan), 3) for epoch in shown]
            if any(cell != "–" for cell in cells):
                lines.append([tidy(task, 60), tidy(plain_metric(metric), 40), tidy(variant, 60), *cells])
    splits = " or ".join(dict.fromkeys(alone(run, task).selection for task in followed(run)))
    some = "; of many epochs some are shown" if len(shown) < len(every) else ""
    heads = ["task", "metric", "variant", *("before" if epoch == 0 else f"epoch {epoch:g}" for epoch in shown)]
    fold = f"All {len(lines):,} lines by epoch" if len(lines) > MOST_OPEN else ""
    said = f"On {splits}, before training and after each epoch, means over seeds{some}."
    return Grid(said, heads, lines[:MOST_ROWS], 3, fold=fold)


def frozen(run: Tables) -> str:
    """What stopped learning, and when: in words, means over seeds."""
    rows = run.frozen[run.frozen["epoch"].notna()].groupby(["variant", "component"], sort=False)["epoch"].mean()
    said = []
    for variant, component, epoch in rows.reset_index().itertuples(index=False):
        when = "from the start" if epoch == 0 else "after 1 epoch" if epoch == 1 else f"after {epoch:.3g} epochs"
        said.append(f"{tidy(component, 60)} of “{tidy(variant, 60)}” {when}")
    more = f", and {len(said) - MOST_FROZEN:,} more" if len(said) > MOST_FROZEN else ""
    return f"Frozen: {'; '.join(said[:MOST_FROZEN])}{more}." if said else ""


def comparisons(run: Tables) -> Grid | None:
    """Pairs of variants in words: how much the first is above the second on a task, and whether that is chance."""
    rows = run.comparisons[run.comparisons["difference"].notna()].head(MOST_ROWS)
    if rows.empty:
        return None
    lines = [
        [
            tidy(f"{row['variant']} against {row['against']}", 120),
            tidy(row["task"], 60),
            tidy(f"{plain_metric(row['metric'])} on {row['split']}", 60),
            verdict(row),
            difference(row),
            "–" if pd.isna(row["p"]) else f"{row['p']:.2f}" if row["p"] >= 0.1 else below(row["p"]),
            decimals(row["n"], 0),
        ]
        for _, row in rows.iterrows()
    ]
    said = (
        "How far the first variant is above the second on the same rows, with the 95 % interval and p of a paired "
        "bootstrap; a point is a hundredth. The outcome is the first one's: no difference is shown where the interval "
        "holds 0."
    )
    return Grid(said, ["variants", "task", "measured", "outcome", "difference", "p", "rows"], lines, 4)


def difference(row: pd.Series) -> str | tuple[str, str]:
    """``-0.4 points`` with ``[-1.2, 0.5]`` beside it; of metrics that are no shares, ``-0.004``."""
    scale, places, unit = (1, 3, "") if row["metric"] in IN_UNITS else (100, 1, " points")
    value, low, high = (scale * row[name] for name in ("difference", "low", "high"))
    shown = f"{value:+.{places}f}{unit}".replace(" ", "\u00a0")
    return shown if pd.isna(low) or pd.isna(high) else (shown, f"[{low:.{places}f}, {high:.{places}f}]")


def verdict(row: pd.Series) -> str:
    """Better, worse or neither: whether the interval leaves out 0."""
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return "–"
    sign = -1 if row["metric"] == "mae" else 1
    above, under = row["low"] > 0, row["high"] < 0
    if not above and not under:
        return "no difference shown"
    return "better" if (above and sign > 0) or (under and sign < 0) else "worse"


def below(p: float) -> str:
    """A small p with three decimals, or that it is smaller than they can say."""
    return f"{p:.3f}" if p >= 0.001 else "<\u00a00.001"


def tiles(run: Tables) -> list[Tile]:
    """What was chosen, its figure of merit on every task, and what it trained."""
    found = [Tile("chosen", tidy(run.selected, 40))] if run.selected else []
    for task in run.task_names:
        rows = measured(run, task)
        for _, row in rows[rows["variant"] == run.selected].iterrows():
            known = pd.notna(row["low"]) and pd.notna(row["high"])
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if known else ""
            name = f"{tidy(task, 40)}: {plain_metric(row['metric'])} on {row['split']}"
            found.append(Tile(tidy(name, 90), f"{row['value']:.3f}", interval))
    for _, row in run.variants[run.variants["variant"] == run.selected].head(1).iterrows():
        if pd.notna(row["trained"]):
            share = row["trained"] / row["parameters"] if row["parameters"] > 0 else 0
            found.append(Tile("trained numbers", f"{row['trained']:,.0f}", f"{percent(share)} of all" if share else ""))
    return found


def _columns(run: Tables) -> list[Column]:
    """The metrics of every task on its scored split, the one that chooses first.

    Where a part of train chooses, the metric that chooses is shown on validation too.
    """
    most = max(1, MOST_COLUMNS // len(run.task_names))
    found = []
    for task in run.task_names:
        one = run.for_task(task)
        rows = seedless(one.metrics)
        rows = rows[~rows["metric"].str.endswith("_p")]
        names = sorted(set(rows.loc[rows["split"] == one.split, "metric"]), key=_rank(one.metric))
        found += [Column(task, name, one.split) for name in names[:most]]
        if one.selection == HELD_OUT and one.split == "test" and (rows["split"] == "validation").any():
            found.append(Column(task, one.metric, "validation"))
    return found


def _rank(first: str) -> Callable[[str], tuple[bool, int, str]]:
    return lambda name: (name != first, SECOND.index(name) if name in SECOND else len(SECOND), name)


def _variants(run: Tables) -> list[str]:
    return in_order(run, [*seedless(run.metrics)["variant"], *run.variants["variant"]])[:MOST_ROWS]


def _value(rows: pd.DataFrame, one: Column) -> str | tuple[str, str]:
    rows = rows[(rows["task"] == one.task) & (rows["metric"] == one.metric) & (rows["split"] == one.split)]
    return value_and_interval(rows.sort_values("layer", kind="stable").iloc[-1]) if len(rows) else "–"


def _costs(run: Tables) -> list[str]:
    """Columns of costs that say anything; nothing is saved where no backbone is shared."""
    return [name for name in COSTS if (run.variants[name] > 0).any()]


def _cost(run: Tables, variant: str, cost: str) -> str | tuple[str, str]:
    for _, row in run.variants[run.variants["variant"] == variant].head(1).iterrows():
        value = row[cost]
        if pd.isna(value):
            return "–"
        if cost == "seconds":
            return re.sub(r"(?<=\d) ", "\u00a0", duration(value))
        if cost == "memory":
            return size(value)
        share = value / row["parameters"] if cost == "trained" and row["parameters"] > 0 else 0
        return (f"{value:,.0f}", percent(share).replace(" ", "\u00a0")) if share else f"{value:,.0f}"
    return "–"


def _costs_said(known: list[str]) -> str:
    said = {
        "trained": "trained: numbers that learnt, and their share of backbone and heads",
        "saved": "saved: how many more would learn with blocks of its own for each task",
        "memory": "memory: by how much the process grew at most while it trained",
    }
    parts = [words for name, words in said.items() if name in known]
    return f" {_capital('; '.join(parts))}." if parts else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
