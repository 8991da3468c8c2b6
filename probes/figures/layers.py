"""Figures of a run that probes every layer on several tasks: a map of tasks by layers, and a panel per task."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import (
    COLOURS,
    integer_ticks,
    new_figure,
    plot_with_band,
    series_style,
    shared_legend,
    short_name,
)
from permafrost.probes.results.run_tables import Tables, reported_split

MOST_TASKS = 24

MOST_LAYERS = 64

ALL_LAYERS = "all layers"
"""Name of a probe that reads all layers at once."""


def layer_map(run: Tables) -> Figure | None:
    """Draw tasks against layers with the value in each cell; a cell is darker the higher its value for the task."""
    rows = metric_rows(run)
    rows = rows[(rows["control"] == "") & rows["scored"]]
    layers = sorted(rows["layer"].dropna().unique())[:MOST_LAYERS]
    if not layers:
        return None
    has_all = bool(rows["layer"].isna().any())
    heads = [f"{layer:g}" for layer in layers] + ["all"] * has_all
    tasks = list(dict.fromkeys(rows["name"]))
    size = (max(6.4, 0.5 * len(heads) + 2.2), max(2.0, 0.5 * len(tasks) + 1.2))
    figure, (axes,) = new_figure("every task by layer", "layer", "", size=size)
    for down, task in enumerate(tasks):
        task_rows = rows[rows["name"] == task].drop_duplicates("layer")
        by_layer = task_rows.dropna(subset="layer").set_index("layer")["value"].reindex(layers).tolist()
        all_layers = task_rows.loc[task_rows["layer"].isna(), "value"].tolist() or [np.nan]
        values = np.array(by_layer + all_layers * has_all)
        low, high = np.nanmin(values), np.nanmax(values)
        for across in np.flatnonzero(np.isfinite(values)).tolist():
            share = (values[across] - low) / (high - low) if high > low else 0.5
            axes.bar(across, 0.94, 0.96, down - 0.47, color=COLOURS[0], alpha=0.04 + 0.56 * share)
            axes.text(across, down, f"{values[across]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7.5)
    axes.set_xticks(range(len(heads)), heads)
    axes.set_yticks(range(len(tasks)), [short_name(task, 40) for task in tasks])
    axes.set(xlim=(-0.5, len(heads) - 0.5), ylim=(len(tasks) - 0.5, -0.5))
    axes.grid(visible=False)
    return figure


def layer_curves(run: Tables) -> Figure | None:
    """Draw the metric of each task by layer with its interval, controls dashed, and all layers together as a line."""
    rows = metric_rows(run)
    tasks = list(dict.fromkeys(rows.loc[rows["layer"].notna(), "name"]))
    if not tasks:
        return None
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    figure, axes = new_figure(
        "by layer, with controls", "layer", "", [short_name(task, 34) for task in tasks],
        (max(5.2, 3.3 * across + 0.4), 2.9 * down + 0.8), down,
    )  # fmt: skip
    curves = list(dict.fromkeys(zip(~rows["scored"], rows["control"], strict=True)))
    for panel, task in zip(axes, tasks, strict=True):
        task_rows = rows[rows["name"] == task]
        for index, (on_train, control) in enumerate(sorted(curves)[:6]):
            is_curve = (
                (task_rows["control"] == control) & (task_rows["scored"] != on_train) & task_rows["layer"].notna()
            )
            curve = task_rows[is_curve].sort_values("layer")
            look = series_style(index) | {"linestyle": (0, (4, 2)) if control else "-"}
            if len(curve):
                name = (short_name(control) if control else "trained backbone") + (", on train" if on_train else "")
                plot_with_band(panel, curve["layer"], curve, name, look)
        all_layers = task_rows[task_rows["layer"].isna() & (task_rows["control"] == "") & task_rows["scored"]]
        for value in all_layers["value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (1.5, 1.2)), linewidth=1, label=f"{ALL_LAYERS} together")
        integer_ticks(panel, task_rows["layer"])
    shared_legend(figure, axes)
    return figure


def metric_rows(run: Tables) -> pd.DataFrame:
    """Return the rows of each task's first metric, on the scored split and on train.

    Returns:
        rows of ``layers.csv`` with two more columns: ``name``, the task with its metric, and ``scored``, True on the
        scored split and False on train.
    """
    rows = run.layers[run.layers["value"].notna()]
    kept = [rows.iloc[:0].assign(name="", scored=False)]
    for (task, corpus), task_rows in list(rows.groupby(["task", "corpus"], sort=False))[:MOST_TASKS]:
        metric = task_rows["metric"].iloc[0]
        first = task_rows[task_rows["metric"] == metric]
        several = rows.loc[rows["task"] == task, "corpus"].nunique() > 1
        name = f"{task}, {corpus}, {metric}" if several else f"{task}, {metric}"
        first = first.assign(name=name, scored=first["split"] == reported_split(first))
        kept.append(first[first["scored"] | (first["split"] == "train")])
    return pd.concat(kept[1:] or kept)
