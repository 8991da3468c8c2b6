"""Figures of a run of several tasks: metrics by variant; losses, metrics, weights and gradient conflicts by epoch.

Also the order and the short names in which figures and tables show variants and metrics.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import UNTRAINED
from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    integer_ticks,
    mean_rows,
    new_figure,
    series_style,
    shared_legend,
    short_name,
)
from permafrost.probes.results.run_tables import Tables

MOST_PANELS = 12

MOST_LINES = 14
"""Variants, or pairs of tasks, that are drawn; so many styles of lines can be told apart."""

LEAST_ASPECT = 1.42
"""Least width over height of a figure of several panels; on a narrow screen the page then scrolls it."""

SECOND_METRICS = ("f1", "macro_f1", "accuracy", "exact_match")
"""Metrics that are drawn beside the selection metric: the first of these that was measured, else any other."""

LEAST_CHANGE = 1e-6
"""A weight that changes by less counts as constant."""


def variants(run: Tables) -> Figure | None:
    """Draw the selection metric with its interval, a panel per task, a point per variant; the chosen one is filled."""
    rows_of_task = {task: selection_rows(run, task) for task in run.task_names}
    tasks = [task for task, rows in rows_of_task.items() if len(rows)][:MOST_PANELS]
    if not tasks:
        return None
    names = in_recipe_order(run, pd.concat([rows_of_task[task] for task in tasks])["variant"])
    titles = _panel_titles([(task, _metric_and_split(rows_of_task[task])) for task in tasks])
    left = 0.4 + 0.075 * min(30, max(map(len, names)))
    size, down = panels_layout(len(tasks), 2.6, 0.25 * len(names) + 0.75, left)
    figure, axes = new_figure("variants, with 95 % intervals", "", "", titles, size, down)
    across = -(-len(tasks) // down)
    for index, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        for _, row in rows_of_task[task].iterrows():
            _point(panel, row, names.index(row["variant"]), row["variant"] == run.for_task(task).selected)
        labels = distinct_names(names, 30) if index % across == 0 else [""] * len(names)
        panel.set_yticks(range(len(names)), labels, fontsize=9)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.1)
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(axis="x", labelsize=9)
    return figure


def losses(run: Tables) -> Figure | None:
    """Draw the mean training loss by epoch, before any weight, a panel per task."""
    rows = _task_training(run, "loss")
    tasks = {(task,): rows[rows["task"] == task] for task in _distinct(rows["task"])}
    return _curves(run, "loss by epoch, on train", tasks, "loss")


def by_epoch(run: Tables) -> Figure | None:
    """Draw the selection metric by epoch, a panel per task; epoch 0 is before training."""
    return _metric_curves(run, 0)


def by_epoch_second(run: Tables) -> Figure | None:
    """Draw a second metric by epoch, a panel per task; epoch 0 is before training."""
    return _metric_curves(run, 1)


def weights(run: Tables) -> Figure | None:
    """Draw the mean weight of each task's loss by epoch, a panel per variant in which weights change."""
    rows = _task_training(run, "weight")
    panels: dict[tuple[str, ...], pd.DataFrame] = {}
    for variant, variant_rows in rows.groupby("variant", sort=False):
        means = variant_rows.groupby(["task", "epoch"])["weight"].mean().groupby("task")
        if (means.max() - means.min() > LEAST_CHANGE).any():
            panels[(str(variant),)] = variant_rows
    figure = _curves(run, "weight of each task's loss by epoch", panels, "weight", "task")
    for panel, variant_rows in zip(figure.axes if figure else [], panels.values(), strict=False):
        if variant_rows["weight"].min() > 0 and variant_rows["weight"].max() > 20 * variant_rows["weight"].min():
            panel.set_yscale("log")
    return figure


def conflicts(run: Tables) -> Figure | None:
    """Draw the cosine of two tasks' gradients by epoch, and how often it is below 0, two panels per variant."""
    table = run.conflicts
    tasks = _distinct(pd.concat([table["first"], table["second"]]))
    short = dict(zip(tasks, distinct_names(tasks, 18), strict=True))
    pairs = [
        f"{short.get(first, first)} and {short.get(second, second)}"
        for first, second in table[["first", "second"]].to_numpy()
    ]
    panels = {
        (str(variant), quantity): variant_rows.rename(columns={column: "shown"})
        for variant, variant_rows in list(table.assign(pair=pairs).groupby("variant", sort=False))[: MOST_PANELS // 2]
        for column, quantity in (("cosine", "mean cosine"), ("conflict", "share of steps below 0"))
        if variant_rows[column].notna().any()
    }
    figure = _curves(run, "gradients of two tasks by epoch", panels, "shown", "pair")
    for panel, (_, quantity) in zip(figure.axes if figure else [], panels, strict=True):
        low, high = panel.get_ylim()
        if quantity == "mean cosine":
            panel.set_ylim(min(low, -0.05), max(high, 0.05))
            panel.axhline(0, color=GREY, linewidth=1, linestyle="--")
        else:
            panel.set_ylim(-0.03, max(1.03, high))
    return figure


def selection_rows(run: Tables, task: str) -> pd.DataFrame:
    """Return the selection metric of a task on its scored split, a row per variant; the last layer if untrained."""
    tables = run.for_task(task)
    rows = mean_rows(tables.metrics)
    rows = rows[(rows["split"] == tables.split) & (rows["metric"] == tables.metric)]
    return rows.sort_values("layer", kind="stable").drop_duplicates("variant", keep="last").sort_index()


def in_recipe_order(run: Tables, names: Iterable[str]) -> list[str]:
    """Return distinct variants in the order of the recipe, after those that the recipe does not have."""
    order = {name: index for index, name in enumerate(run.variants["variant"])}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, -1))


def metric_title(metric: object) -> str:
    """Return the name of a metric as people write it."""
    return {"f1": "F1", "macro_f1": "macro F1"}.get(str(metric), str(metric).replace("_", " "))


def tables_of_task(run: Tables, task: str) -> Tables:
    """Return the tables of a task; all tables if the run has one task."""
    return run.for_task(task) if run.tasks else run


def metrics_by_epoch(run: Tables) -> dict[str, list[str]]:
    """Return the metrics of each task that are drawn by epoch: the selection metric, and a second one."""
    rows = run.epochs[run.epochs["value"].notna()]
    metrics_of_task = {}
    for task in _distinct(rows["task"]):
        selection_metric = tables_of_task(run, task).metric
        metrics = sorted(dict.fromkeys(rows.loc[rows["task"] == task, "metric"]), key=second_metric_rank)
        metrics_of_task[task] = sorted(metrics, key=lambda metric: metric != selection_metric)[:2]
    return metrics_of_task


def second_metric_rank(metric: str) -> int:
    """Return the rank of a metric among those that are shown beside the selection metric; lower is preferred."""
    return SECOND_METRICS.index(metric) if metric in SECOND_METRICS else len(SECOND_METRICS)


def _metric_curves(run: Tables, index: int) -> Figure | None:
    """Curves of the metric number ``index`` of each task."""
    shown = {task: metrics[index] for task, metrics in metrics_by_epoch(run).items() if len(metrics) > index}
    panels = {
        (task, metric_title(metric)): run.epochs[(run.epochs["task"] == task) & (run.epochs["metric"] == metric)]
        for task, metric in shown.items()
    }
    splits = dict.fromkeys(tables_of_task(run, task).selection for task in shown)
    return _curves(run, f"on {' or '.join(splits)} by epoch, 0 before training", panels, "value")


def _curves(
    run: Tables, title: str, panels: dict[Any, pd.DataFrame], column: str, series: str = "variant"
) -> Figure | None:
    """A line per value of the column ``series``: the mean over seeds by epoch, in a band from lowest to highest seed.

    Args:
        panels: the parts of a panel's title -> its rows.
        column: the column that is drawn.
    """
    panels = dict(list(panels.items())[:MOST_PANELS])
    present = _distinct(name for rows in panels.values() for name in rows[series])
    if not present:
        return None
    all_names = in_recipe_order(run, [*run.variants["variant"], *present]) if series == "variant" else present
    indices = [index for index, name in enumerate(all_names) if name in present][:MOST_LINES]
    names = [all_names[index] for index in indices]
    size, down = panels_layout(len(panels), 3.9, 2.25, 0.0)
    figure, axes = new_figure(title, "epoch", "", _panel_titles(list(panels)), size, down)
    looks = [series_style(index) | {"markersize": 3, "linewidth": 1.3} for index in indices]  # alike in all figures
    labels = distinct_names(names, 45)
    for name, look in zip(labels, looks, strict=True):  # so that the legend lists them in order
        axes[0].plot([], [], label=name, **look)
    for panel, rows in zip(axes, panels.values(), strict=True):
        for name, look in zip(names, looks, strict=True):
            _plot_seeds(panel, rows[(rows[series] == name) & rows[column].notna()].groupby("epoch")[column], look)
        integer_ticks(panel, rows["epoch"])
        panel.tick_params(labelsize=9)
        panel.set_xlabel("epoch", fontsize=9)
    shared_legend(figure, axes, max(1, int(size[0] / (0.75 + 0.068 * max(map(len, labels))))))
    return figure


def _plot_seeds(panel: Axes, by_epoch: Any, look: dict[str, Any]) -> None:
    """Plot the mean over seeds of values grouped by epoch, and the range of the seeds as a band."""
    if not len(by_epoch):
        return
    means = by_epoch.mean()
    panel.plot(means.index, means, **look)
    if by_epoch.size().max() > 1:
        panel.fill_between(means.index, by_epoch.min(), by_epoch.max(), color=look["color"], alpha=0.12, lw=0)


def _point(panel: Axes, row: pd.Series, height: int, chosen: bool) -> None:
    colour = GREY if row["variant"].startswith(UNTRAINED) else COLOURS[0]
    if pd.notna(row["low"]) and pd.notna(row["high"]):
        panel.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=1.6)
    face = colour if chosen else "none"
    panel.plot([row["value"]], [height], "o", color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.6)


def panels_layout(panels: int, width: float, height: float, left: float) -> tuple[tuple[float, float], int]:
    """Return the size in inches of a figure of panels, and the number of their rows.

    Args:
        panels: number of panels.
        width: inches of a panel, and its ``height``.
        left: inches for the names beside each row of panels.
    """
    for across in range(min(2, panels), panels + 1):
        down = -(-panels // across)
        columns = -(-panels // down)  # as many as stand in a row
        size = (left + width * columns + (1.0 if panels == 1 else 0.0), 0.9 + height * down)
        if size[0] >= LEAST_ASPECT * size[1]:
            break
    return size, down


def distinct_names(names: Sequence[str], longest: int) -> list[str]:
    """Return names as a figure can print them; names that are equal once shortened are numbered from the second on."""
    short = [short_name(name, longest) for name in names]
    earlier = [short[:index].count(name) for index, name in enumerate(short)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(short, earlier, strict=True)]


def _panel_titles(titles: Sequence[Sequence[str]]) -> list[str]:
    """Titles from their parts, a task or variant and a quantity; on two lines if one line is too long for any."""
    shown = [[short_name(part, 28) for part in parts] for parts in titles]
    long = any(len(", ".join(parts)) > 26 for parts in shown)
    return [("\n" if long else ", ").join(parts) for parts in shown]


def _metric_and_split(rows: pd.DataFrame) -> str:
    return f"{metric_title(rows['metric'].iloc[0])} on {rows['split'].iloc[0]}"


def _distinct(names: Iterable[Any]) -> list[str]:
    """Distinct names that are not empty, in order of appearance."""
    return [str(name) for name in dict.fromkeys(names) if name]


def _task_training(run: Tables, column: str) -> pd.DataFrame:
    """The rows of training that belong to a task and have a value; none in a run of one task."""
    rows = run.training if run.tasks else run.training.iloc[:0]
    return rows[(rows["phase"] == "training") & (rows["task"] != "") & rows[column].notna()]
