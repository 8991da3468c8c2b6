"""Figures of training by epoch: losses, metrics, weights and gradient conflicts; of pretraining; of an autoencoder."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.figures.metrics import (
    MOST_PANELS,
    distinct_names,
    in_recipe_order,
    panel_titles,
    panels_layout,
)
from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    integer_ticks,
    new_figure,
    series_style,
    shared_legend,
    short_name,
)
from permafrost.probes.results.formatting import metric_title
from permafrost.probes.results.run_tables import Tables

MOST_LINES = 14
"""Variants, or pairs of tasks, that are drawn; so many styles of lines can be told apart."""

SECOND_METRICS = ("f1", "macro_f1", "accuracy", "exact_match")
"""Metrics that are drawn beside the selection metric: the first of these that was measured, else any other."""

LEAST_CHANGE = 1e-6
"""A weight that changes by less counts as constant."""

SMOOTHED, FEWEST = 0.02, 10
"""Window of the running mean of a loss: share of all steps, and least number of steps."""

MOST_STEPS = 2000
"""Steps that are drawn one by one; of more, every second, third, and so on."""


def training(run: Tables) -> Figure | None:
    """Draw loss and selection metric by epoch, of pretraining and training; of several tasks the loss of each."""
    table = run["training"]
    table = table[(table["phase"] == "training") & (table["task"] != "")] if run.tasks else table.assign(task="")
    titles = {"pretraining": "larger is better, on held-out texts"}
    titles["training"] = f"{metric_title(run.metric)} on {run.selection}"
    panels = {}
    for (task, phase), rows in table.sort_values("phase", kind="stable").groupby(["task", "phase"], sort=False):
        for column in ("loss", "value")[: 1 if run.tasks else 2]:
            title = "loss" if column == "loss" else titles.get(str(phase), column)
            if rows[column].notna().any():
                panels[(task or phase, title)] = rows.assign(shown=rows[column])
    return _curves(run, "training", panels, "shown")


def by_epoch(run: Tables, rank: int = 0) -> Figure | None:
    """Draw the selection metric by epoch, or the one of another rank, a panel per task; epoch 0 is before training."""
    shown = {task: metrics[rank] for task, metrics in metrics_by_epoch(run).items() if len(metrics) > rank}
    epochs = run["epochs"]
    panels = {
        (task, metric_title(metric)): epochs[(epochs["task"] == task) & (epochs["metric"] == metric)]
        for task, metric in shown.items()
    }
    splits = dict.fromkeys(run.for_task(task).selection for task in shown)
    return _curves(run, f"on {' or '.join(splits)} by epoch, 0 before training", panels, "value")


def weights(run: Tables) -> Figure | None:
    """Draw the mean weight of each task's loss by epoch, a panel per variant in which weights change."""
    rows = run["training"] if run.tasks else run["training"].iloc[:0]
    rows = rows[(rows["phase"] == "training") & (rows["task"] != "") & rows["weight"].notna()]
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
    table = run["conflicts"]
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


def metrics_by_epoch(run: Tables) -> dict[str, list[str]]:
    """Return the metrics of each task that are drawn by epoch: the selection metric, and a second one."""
    rows = run["epochs"][run["epochs"]["value"].notna()]
    metrics_of_task = {}
    for task in _distinct(rows["task"]):
        metrics = dict.fromkeys(rows.loc[rows["task"] == task, "metric"])
        metrics_of_task[task] = sorted(metrics, key=partial(metric_rank, first=run.for_task(task).metric))[:2]
    return metrics_of_task


def metric_rank(metric: str, first: str) -> tuple[bool, int]:
    """Return a key that sorts the selection metric ``first``, then those of ``SECOND_METRICS``, then others."""
    return metric != first, SECOND_METRICS.index(metric) if metric in SECOND_METRICS else len(SECOND_METRICS)


def autoencoder(run: Tables) -> Figure | None:
    """Draw by layer the norm of latents and the autoencoder's fraction of variance unexplained and squared error."""
    titles = {"norm": "mean norm of the latents", "unexplained": "fraction unexplained", "loss": "squared error"}
    quantities = [column for column in titles if run["autoencoder"][column].notna().any()]
    if not quantities:
        return None
    panels = [titles[column] for column in quantities]
    figure, axes = new_figure("autoencoder by layer", "layer", "", panels, (3.3 * len(panels) + 0.6, 3.8))
    means = (
        run["autoencoder"].groupby(["variant", "plan", "view", "layer"], sort=False)[quantities].mean().reset_index()
    )
    for index, ((variant, plan, view), rows) in enumerate(means.groupby(["variant", "plan", "view"], sort=False)):
        name = ", ".join(str(part) for part in (variant, plan, view) if part)
        for panel, column in zip(axes, quantities, strict=True):
            panel.plot(rows["layer"], rows[column], label=short_name(name), **series_style(index))
    for panel in axes:
        integer_ticks(panel, means["layer"])
        panel.set_ylim(bottom=0)
    shared_legend(figure, axes)
    return figure


def loss_curve(run: Tables) -> Figure | None:
    """Draw the loss of a language model by step with its running mean; across, that on held-out text. Unit: nats."""
    losses, metrics = run["losses"], run.metrics
    if losses.empty:
        return None
    figure, (axes,) = new_figure("loss by step", "step", "loss, in nats")
    points = losses.iloc[:: max(1, len(losses) // MOST_STEPS)]
    axes.plot(points["step"], points["loss"], color=COLOURS[0], alpha=0.25, linewidth=0.6, label="one step")
    steps = max(FEWEST, round(SMOOTHED * len(losses)))
    mean = losses["loss"].rolling(steps, min_periods=1, center=True).mean()
    axes.plot(losses["step"], mean, color=COLOURS[0], linewidth=1.6, label=f"mean of {steps:,} steps")
    held_out = metrics[(metrics["split"] == run.selection) & (metrics["metric"] == "loss")]["value"].dropna()
    for value in held_out.head(1):
        axes.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label=f"held-out text: {value:.3f}")
    values = losses["loss"].to_numpy()
    if np.isfinite(values).any():
        axes.set_ylim(top=float(np.nanmax(values)) * 1.03)
    shared_legend(figure, [axes])
    return figure


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
    all_names = in_recipe_order(run, [*run.counts["variant"], *present]) if series == "variant" else present
    indices = [index for index, name in enumerate(all_names) if name in present][:MOST_LINES]
    names = [all_names[index] for index in indices]
    size, down = panels_layout(len(panels), 3.9, 2.25, 0.0)
    figure, axes = new_figure(title, "epoch", "", panel_titles(list(panels)), size, down)
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


def _distinct(names: Iterable[Any]) -> list[str]:
    """Distinct names that are not empty, in order of appearance."""
    return [str(name) for name in dict.fromkeys(names) if name]
