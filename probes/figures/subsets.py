"""Figures of probes on subsets of layers, in an ablation or for every task: metric by layer, with controls."""

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.style import (
    COLOURS,
    integer_ticks,
    new_figure,
    plot_with_band,
    series_style,
    share_y_limits,
    shared_legend,
    short_name,
)
from permafrost.probes.results.run_tables import Tables, reported_split

CURVES = {
    "single": "one layer alone",
    "without": "all layers but one",
    "prefix": "layers up to",
    "suffix": "layers from",
    "greedy": "layers added greedily",
}
"""Kind of subset that is drawn by layer -> title of its panel."""

MOST_TASKS = 24

MOST_LAYERS = 64

LEFT_OUT = "without layer "
"""Beginning of the name of a subset without one layer."""

ALL_LAYERS = "all layers"
"""Name of a probe that reads all layers at once."""


def layer_map(run: Tables) -> Figure | None:
    """Draw tasks against layers with the value in each cell; a cell is darker the higher its value for the task."""
    rows = subset_rows(run)
    rows = rows[(rows["control"] == "") & rows["scored"] & rows["kind"].isin(["single", "all"])]
    layers = sorted(rows["position"].dropna().unique())[:MOST_LAYERS]
    if not layers:
        return None
    has_all = bool(rows["position"].isna().any())
    heads = [f"{layer:g}" for layer in layers] + ["all"] * has_all
    tasks = list(dict.fromkeys(rows["name"]))
    size = (max(6.4, 0.5 * len(heads) + 2.2), max(2.0, 0.5 * len(tasks) + 1.2))
    figure, (axes,) = new_figure("every task by layer", "layer", "", size=size)
    first = rows.assign(column=rows["position"].fillna(-1)).drop_duplicates(["name", "column"])
    table = first.pivot(index="name", columns="column", values="value")
    table = table.reindex(tasks, columns=[*layers, *[-1] * has_all])
    for down, values in enumerate(table.to_numpy()):
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
    """Draw the metric by layer with its interval, a panel per task and kind of subset.

    Controls are dashed; all layers together are a line across.
    """
    rows = subset_rows(run)
    drawn = rows[rows["kind"].isin(list(CURVES)) & rows["position"].notna()]
    panels = list(dict.fromkeys(zip(drawn["name"], drawn["kind"], strict=True)))
    panels.sort(key=lambda panel: list(CURVES).index(panel[1]))
    if not panels:
        return None
    tasks = list(dict.fromkeys(name for name, _ in panels))
    titles = [CURVES[kind] if len(tasks) == 1 < len(panels) else short_name(name, 34) for name, kind in panels]
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    size = (max(5.2, 3.3 * across + 0.4), 2.9 * down + 0.8)
    title = f"{short_name(run.metric)} by layers kept" if len(tasks) == 1 else "by layer, with controls"
    figure, axes = new_figure(title, "layer", "", titles, size, down)
    curves = sorted(set(zip(~rows["scored"], rows["control"], strict=True)))[:6]
    for panel, (task, kind) in zip(axes, panels, strict=True):
        task_rows = rows[rows["name"] == task]
        _panel_curves(panel, task_rows[task_rows["kind"] == kind], curves)
        all_layers = task_rows[(task_rows["kind"] == "all") & (task_rows["control"] == "") & task_rows["scored"]]
        for value in all_layers["value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (1.5, 1.2)), linewidth=1, label=f"{ALL_LAYERS} together")
        panel.set_xlabel("layers kept" if kind == "greedy" else "layer")
    if len(tasks) == 1:
        share_y_limits(axes)
    shared_legend(figure, axes)
    return figure


def _panel_curves(panel: Axes, rows: pd.DataFrame, curves: list[tuple[bool, str]]) -> None:
    """Draw a line per control, on the scored split and on train."""
    for index, (on_train, control) in enumerate(curves):
        curve = rows[(rows["control"] == control) & (rows["scored"] != on_train)].sort_values("position")
        look = series_style(index) | {"linestyle": (0, (4, 2)) if control else "-"}
        if len(curve):
            name = short_name(control or "trained backbone") + (", on train" if on_train else "")
            plot_with_band(panel, curve["position"], curve, name, look)
    integer_ticks(panel, rows["position"])


def choices(run: Tables) -> Figure | None:
    """Draw views and backbones side by side, as points with intervals; controls are hollow."""
    rows = subset_rows(run, every_backbone=True)
    views = rows[rows["kind"] == "view"]
    panels = {"view": views.assign(choice=views["subset"].str.removeprefix("view "))}
    if rows["backbone"].nunique() > 1:
        others = rows[rows["kind"].isin(["all", "single"])]
        last = others.groupby("backbone")["position"].transform("max")
        others = others[others["position"].isna() | (others["position"] == last)]
        whole = others["backbone"].where(others["kind"] == "all", others["backbone"] + ", last layer")
        panels["backbone"] = others.assign(choice=whole)
    panels = {kind: points[points["scored"]] for kind, points in panels.items() if points["scored"].any()}
    if not panels:
        return None
    most = max(points["choice"].nunique() for points in panels.values())
    size = (4.2 * len(panels) + 1, max(2.4, 0.4 * most + 1.6))
    figure, axes = new_figure("views and backbones", short_name(run.metric), "", list(panels), size)
    controls = sorted({control for points in panels.values() for control in points["control"]})
    for panel, points in zip(axes, panels.values(), strict=True):
        names = list(dict.fromkeys(points["choice"]))
        for index, control in enumerate(controls):
            shown = points[points["control"] == control]
            y = np.array([names.index(name) for name in shown["choice"]]) + 0.14 * index
            look = {"linestyle": "none", "markersize": 6, "markerfacecolor": "none" if control else None}
            name = short_name(control or "trained backbone")
            panel.plot(shown["value"], y, label=name, **series_style(index) | look)
            linestyle = "--" if control else "-"
            panel.hlines(y, shown["low"], shown["high"], color=COLOURS[index % 7], linestyles=linestyle)
        panel.set_yticks(range(len(names)), [short_name(name, 24) for name in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
    shared_legend(figure, axes)
    return figure


def selectivity(run: Tables) -> Figure | None:
    """Draw selectivity by layer: the training metric with true targets minus that with shuffled targets.

    Shuffled targets can only be memorised: if selectivity is low, so may the true ones have been.

    Source: Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks" (2019), section 2.3.
    """
    table = selectivities(run)
    kinds = [kind for kind in CURVES if kind != "greedy" and (table["kind"] == kind).any()]
    if not kinds:
        return None
    figure, (axes,) = new_figure("selectivity on training rows: true less shuffled targets", "layer", "selectivity")
    for index, kind in enumerate(kinds):
        curve = table[table["kind"] == kind].sort_values("position")
        axes.plot(curve["position"], curve["selectivity"], label=CURVES[kind], **series_style(index))
    axes.axhline(0, color="black", linewidth=0.8)
    integer_ticks(axes, table.loc[table["kind"].isin(kinds), "position"])
    shared_legend(figure, [axes])
    return figure


def selectivities(run: Tables) -> pd.DataFrame:
    """Return the selectivity of every subset that has a control on random targets.

    Returns:
        columns ``name, backbone, kind, subset, position, value, random, selectivity``.
    """
    rows = subset_rows(run, every_backbone=True)
    rows = rows[~rows["scored"]]
    keys = ["name", "backbone", "kind", "subset", "position"]
    true_targets = rows.loc[rows["control"] == "", [*keys, "value"]]
    random_targets = rows.loc[rows["control"] == RANDOM_TARGETS, [*keys, "value"]].rename(columns={"value": "random"})
    both = true_targets.merge(random_targets, on=keys)
    return both.assign(selectivity=both["value"] - both["random"])


def subset_rows(run: Tables, every_backbone: bool = False) -> pd.DataFrame:
    """Return the first metric of each task on the scored split and on train, means over seeds.

    Args:
        every_backbone: False leaves the further backbones of an ablation out.

    Returns:
        rows of ``metrics.csv`` with four more columns: ``name``, the task with its metric; ``scored``, True on the
        scored split and False on train; ``kind`` of the subset; and its ``position`` on the layer axis, or NaN.
    """
    rows = run.means
    rows = rows[rows["subset"] != ""]
    if len(rows) and not every_backbone:
        rows = rows[rows["backbone"] == rows["backbone"].iloc[0]]
    kept = [rows.iloc[:0].assign(name="", scored=False)]
    for (task, corpus), task_rows in list(rows.groupby(["task", "corpus"], sort=False))[:MOST_TASKS]:
        metric = task_rows["metric"].iloc[0]
        first = task_rows[task_rows["metric"] == metric]
        several = rows.loc[rows["task"] == task, "corpus"].nunique() > 1
        name = f"{task}, {corpus}, {metric}" if several else f"{task}, {metric}"
        first = first.assign(name=name, scored=first["split"] == reported_split(first))
        kept.append(first[first["scored"] | (first["split"] == "train")])
    found = pd.concat(kept[1:] or kept)
    found = found.assign(kind=found["subset"].str.split(" ", n=1).str[0].astype(object))
    return found.assign(position=_positions(found))


def _positions(rows: pd.DataFrame) -> list[float]:
    """Return the layer that names each subset: the one left out, the last of a prefix, the first of any other.

    Of layers that were added greedily it is their number; NaN if no layer names the subset.
    """
    steps = rows.groupby(["name", "backbone", "kind", "control", "split"]).cumcount() + 1
    every_layer = {layer for subset in set(rows["subset"]) for layer in subset_layers(subset)}
    positions = []
    for step, kind, subset in zip(steps, rows["kind"], rows["subset"], strict=True):
        layers = subset_layers(subset)
        if kind == "without" and not subset.startswith(LEFT_OUT):  # older runs name the layers that are read
            left_out = sorted(every_layer - set(layers))
            layers = left_out if len(left_out) == 1 else []
        elif kind == "greedy":
            layers = [step]
        positions.append(float(layers[-1 if kind == "prefix" else 0]) if layers and kind in CURVES else np.nan)
    return positions


def subset_layers(subset: str) -> list[int]:
    """Return the layers that a subset names, ``[0, 1, 2, 5]`` for ``prefix 0-2,5``; anything else is skipped."""
    layers: set[int] = set()  # a file from elsewhere may name a layer a million times
    kind, _, text = subset.partition(" ")
    for match in re.finditer(r"(\d{1,4})(?:-(\d{1,4}))?", text) if kind in CURVES else ():
        layers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(layers)
