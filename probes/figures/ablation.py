"""Figures of an ablation: the metric by layers kept, by view and by backbone, and the selectivity of the probe."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.style import (
    COLOURS,
    integer_ticks,
    mean_rows,
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

CHOICES = ("view", "backbone")
"""Kinds of subset that are drawn as points side by side."""


def ablation(run: Tables) -> Figure | None:
    """Draw the metric by layer with its interval, a panel per kind of subset; controls are dashed."""
    rows = metric_rows(run)
    kinds = [kind for kind in CURVES if (rows["kind"] == kind).any()]
    if not kinds:
        return None
    across = min(len(kinds), 3)
    down = -(-len(kinds) // across)
    size = (max(5.2, 3.3 * across + 0.4), 3.2 * down + 0.8)
    title = f"{short_name(run.metric)} by layers kept"
    figure, axes = new_figure(title, "layer", short_name(run.metric), [CURVES[kind] for kind in kinds], size, down)
    controls = _controls(rows)
    for panel, kind in zip(axes, kinds, strict=True):
        for index, control in enumerate(controls):
            curve = rows[(rows["kind"] == kind) & (rows["control"] == control)].sort_values("position")
            look = series_style(index) | {"linestyle": (0, (4, 2)) if control else "-"}
            if len(curve):
                plot_with_band(panel, curve["position"], curve, _control_name(control), look)
        integer_ticks(panel, rows.loc[rows["kind"] == kind, "position"])
        panel.set_xlabel("layers kept" if kind == "greedy" else "layer")
    share_y_limits(axes)
    shared_legend(figure, axes)
    return figure


def choices(run: Tables) -> Figure | None:
    """Draw views and backbones side by side, as points with intervals; controls are hollow."""
    rows = metric_rows(run)
    kinds = [kind for kind in CHOICES if (rows["kind"] == kind).any()]
    if not kinds:
        return None
    rows = rows[rows["kind"].isin(kinds)]
    most = max(rows.loc[rows["kind"] == kind, "name"].nunique() for kind in kinds)
    figure, axes = new_figure(
        "views and backbones", short_name(run.metric), "", kinds, (4.2 * len(kinds) + 1, max(2.4, 0.4 * most + 1.6))
    )
    controls = _controls(rows)
    for panel, kind in zip(axes, kinds, strict=True):
        names = list(dict.fromkeys(rows.loc[rows["kind"] == kind, "name"]))
        for index, control in enumerate(controls):
            points = rows[(rows["kind"] == kind) & (rows["control"] == control)]
            _points(panel, points, [names.index(name) for name in points["name"]], index, control)
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
        columns ``kind, name, layers, position, value, random, selectivity``.
    """
    rows = metric_rows(run, "train")
    keys = ["kind", "name", "layers", "position"]
    true_targets = rows.loc[rows["control"] == "", [*keys, "value"]]
    random_targets = rows.loc[rows["control"] == RANDOM_TARGETS, [*keys, "value"]].rename(columns={"value": "random"})
    both = true_targets.merge(random_targets, on=keys)
    return both.assign(selectivity=both["value"] - both["random"])


def metric_rows(run: Tables, split: str = "") -> pd.DataFrame:
    """Return the means over seeds of the run's metric, each with its ``position`` on the layer axis.

    Args:
        split: empty for the scored split.
    """
    rows = mean_rows(run.ablation)
    rows = rows[(rows["metric"] == run.metric) & (rows["split"] == (split or reported_split(rows)))]
    all_layers = {layer for text in set(rows["layers"]) for layer in parse_layers(text)}
    steps = rows.groupby(["kind", "control"]).cumcount() + 1
    positions = [
        float(step) if row["kind"] == "greedy" else _layer_position(row, all_layers)
        for step, (_, row) in zip(steps, rows.iterrows(), strict=True)
    ]
    return rows.assign(position=np.array(positions, dtype=float))


def parse_layers(text: str) -> list[int]:
    """Return layers written as ``"0-2,5"``: ``[0, 1, 2, 5]``; anything else in the text is skipped."""
    layers: set[int] = set()  # a file from elsewhere may name a layer a million times
    for match in re.finditer(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        layers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(layers)


def _layer_position(row: pd.Series, all_layers: Iterable[int]) -> float:
    """The layer that names a subset: the one left out, the last of a prefix, the first of any other; nan if none."""
    layers = parse_layers(row["layers"])
    if row["kind"] == "without" and len(layers) != 1:
        left_out = sorted(set(all_layers) - set(layers))
        return float(left_out[0]) if len(left_out) == 1 else float("nan")
    if not layers:
        return float("nan")
    return float(layers[-1] if row["kind"] == "prefix" else layers[0])


def _controls(rows: pd.DataFrame) -> list[str]:
    return sorted(dict.fromkeys(rows["control"]), key=lambda control: (control != "", control))


def _control_name(control: str) -> str:
    return short_name(control) if control else "trained backbone"


def _points(axes: Axes, rows: pd.DataFrame, heights: list[int], index: int, control: str) -> None:
    look = series_style(index) | {"linestyle": "none", "markersize": 6, "markerfacecolor": "none" if control else None}
    y = np.array(heights) + 0.14 * index
    axes.plot(rows["value"], y, label=_control_name(control), **look)
    axes.hlines(y, rows["low"], rows["high"], color=COLOURS[index % 7], linestyles="--" if control else "-")
