"""Figures of an ablation: which layers carry the score, and how much of it is the probe's own doing."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.style import (
    COLOURS,
    canvas,
    caption,
    legend,
    line,
    one_scale,
    seedless,
    style,
    whole_ticks,
)
from permafrost.probes.results.run_tables import Tables, scored

CURVES = {
    "single": "one layer alone",
    "without": "all layers but one",
    "prefix": "layers up to",
    "suffix": "layers from",
    "greedy": "layers added greedily",
}

CHOICES = ("view", "backbone")


def ablation(run: Tables) -> Figure | None:
    """A panel a kind of ablation: the metric by layer with its interval, controls dashed."""
    rows = rows_of(run)
    kinds = [kind for kind in CURVES if (rows["kind"] == kind).any()]
    if not kinds:
        return None
    across = min(len(kinds), 3)
    down = -(-len(kinds) // across)
    size = (max(5.2, 3.3 * across + 0.4), 3.2 * down + 0.8)
    title = f"{caption(run.metric)} by layers kept"
    figure, axes = canvas(title, "layer", caption(run.metric), [CURVES[kind] for kind in kinds], size, down)
    controls = _controls(rows)
    for panel, kind in zip(axes, kinds, strict=True):
        for index, control in enumerate(controls):
            part = rows[(rows["kind"] == kind) & (rows["control"] == control)].sort_values("place")
            look = style(index) | {"linestyle": (0, (4, 2)) if control else "-"}
            if len(part):
                line(panel, part["place"], part, caption(control) if control else "trained backbone", look)
        whole_ticks(panel, rows.loc[rows["kind"] == kind, "place"])
        panel.set_xlabel("layers kept" if kind == "greedy" else "layer")
    one_scale(axes)
    legend(figure, axes)
    return figure


def choices(run: Tables) -> Figure | None:
    """Views and backbones side by side: points with intervals, controls with another marker."""
    rows = rows_of(run)
    kinds = [kind for kind in CHOICES if (rows["kind"] == kind).any()]
    if not kinds:
        return None
    rows = rows[rows["kind"].isin(kinds)]
    most = max(rows.loc[rows["kind"] == kind, "name"].nunique() for kind in kinds)
    figure, axes = canvas(
        "views and backbones", caption(run.metric), "", kinds, (4.2 * len(kinds) + 1, max(2.4, 0.4 * most + 1.6))
    )
    controls = _controls(rows)
    for panel, kind in zip(axes, kinds, strict=True):
        names = list(dict.fromkeys(rows.loc[rows["kind"] == kind, "name"]))
        for index, control in enumerate(controls):
            part = rows[(rows["kind"] == kind) & (rows["control"] == control)]
            _points(panel, part, [names.index(name) for name in part["name"]], index, control)
        panel.set_yticks(range(len(names)), [caption(name, 24) for name in names])
        panel.set_ylim(len(names) - 0.5, -0.5)
    legend(figure, axes)
    return figure


def selectivity(run: Tables) -> Figure | None:
    """How much better a probe fits its training rows by their targets than by shuffled ones, which only memory can fit.

    Source: Hewitt and Liang, "Designing and Interpreting Probes with Control Tasks" (2019), section 2.3.
    """
    table = selectivities(run)
    kinds = [kind for kind in CURVES if kind != "greedy" and (table["kind"] == kind).any()]
    if not kinds:
        return None
    figure, (axes,) = canvas("selectivity on training rows: true less shuffled targets", "layer", "selectivity")
    for index, kind in enumerate(kinds):
        part = table[table["kind"] == kind].sort_values("place")
        axes.plot(part["place"], part["selectivity"], label=CURVES[kind], **style(index))
    axes.axhline(0, color="black", linewidth=0.8)
    whole_ticks(axes, table.loc[table["kind"].isin(kinds), "place"])
    legend(figure, [axes])
    return figure


def selectivities(run: Tables) -> pd.DataFrame:
    """``kind, name, layers, place, value, random, selectivity`` of everything that has a control on random targets."""
    rows = rows_of(run, "train")
    keys = ["kind", "name", "layers", "place"]
    own = rows.loc[rows["control"] == "", [*keys, "value"]]
    control = rows.loc[rows["control"] == RANDOM_TARGETS, [*keys, "value"]].rename(columns={"value": "random"})
    both = own.merge(control, on=keys)
    return both.assign(selectivity=both["value"] - both["random"])


def rows_of(run: Tables, split: str = "") -> pd.DataFrame:
    """The summed-up rows of the metric that counts, each with its ``place`` on the layer axis; of the scored split."""
    rows = seedless(run.ablation)
    rows = rows[(rows["metric"] == run.metric) & (rows["split"] == (split or scored(rows)))]
    every = {layer for text in set(rows["layers"]) for layer in layers_of(text)}
    steps = rows.groupby(["kind", "control"]).cumcount() + 1
    places = [
        float(step) if row["kind"] == "greedy" else _place(row, every)
        for step, (_, row) in zip(steps, rows.iterrows(), strict=True)
    ]
    return rows.assign(place=np.array(places, dtype=float))


def layers_of(text: str) -> list[int]:
    """``"0-2,5"`` -> ``[0, 1, 2, 5]``; what is no layer is left out."""
    found: set[int] = set()  # a file from elsewhere may name a layer a million times
    for match in re.finditer(r"(\d{1,4})(?:-(\d{1,4}))?", text):
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return sorted(found)


def _place(row: pd.Series, every: Iterable[int]) -> float:
    layers = layers_of(row["layers"])
    if row["kind"] == "without" and len(layers) != 1:
        left_out = sorted(set(every) - set(layers))
        return float(left_out[0]) if len(left_out) == 1 else float("nan")
    if not layers:
        return float("nan")
    return float(layers[-1] if row["kind"] == "prefix" else layers[0])


def _controls(rows: pd.DataFrame) -> list[str]:
    return sorted(dict.fromkeys(rows["control"]), key=lambda control: (control != "", control))


def _points(axes: Axes, rows: pd.DataFrame, places: list[int], index: int, control: str) -> None:
    look = style(index) | {"linestyle": "none", "markersize": 6, "markerfacecolor": "none" if control else None}
    where = np.array(places) + 0.14 * index
    axes.plot(rows["value"], where, label=caption(control) if control else "trained backbone", **look)
    axes.hlines(where, rows["low"], rows["high"], color=COLOURS[index % 7], linestyles="--" if control else "-")
