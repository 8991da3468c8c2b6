"""Scatter plots of latents in three dimensions, as plotly figures that the page turns with the mouse."""

import json
import textwrap
from functools import lru_cache
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from permafrost.probes.figures.style import COLOURS, short_name
from permafrost.probes.results.files import as_numbers

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open", "diamond-open")

MOST_CLASSES = 12

LONGEST = 200
"""Characters of a text that are shown when the mouse points at it."""


def latent_scatter(latents: pd.DataFrame) -> dict[str, Any]:
    """Return ``latents.csv`` as plotly figures: one layout, the distinct texts once, and the traces of each input.

    Returns:
        plain JSON values. ``layout``; ``texts``, lists to which the ``meta`` of a trace is an index; ``inputs``, a list
        of ``{"name", "pca": traces, "tsne": traces}``.
    """
    texts: dict[tuple[str, ...], int] = {}
    inputs: dict[str, dict[str, Any]] = {}
    rows = latents.dropna(subset=["x", "y", "z"])
    styles = _MarkerStyles(rows["label"])
    for (plan, view, _), input_rows in rows.groupby(["plan", "view", "layer"], sort=False, dropna=False):
        layer = input_rows["layer"].iloc[0]
        names = [*(str(name) for name in (plan, view) if name), *([] if pd.isna(layer) else [f"layer {layer:.0f}"])]
        entry = inputs.setdefault(", ".join(names), {"name": ", ".join(names)})
        for method, points in input_rows.groupby("method", sort=False):
            entry[str(method)] = _traces(points, styles, texts)
    return {"layout": scatter_layout(), "texts": [list(key) for key in texts], "inputs": list(inputs.values())}


def traces_in_json(traces: list[go.Scatter3d]) -> list[dict[str, Any]]:
    """Return plotly traces as plain JSON values."""
    data: list[dict[str, Any]] = json.loads(go.Figure(traces).to_json())["data"]
    return data


def marker_trace(points: pd.DataFrame, **style: Any) -> go.Scatter3d:
    """Return a plotly trace of the points at ``x, y, z`` in float32; ``style`` are further arguments of the trace."""
    places = {axis: points[axis].astype(np.float32).to_numpy() for axis in "xyz"}
    return go.Scatter3d(**places, **style, mode="markers", hoverinfo="text")


def _traces(points: pd.DataFrame, styles: "_MarkerStyles", texts: dict[tuple[str, ...], int]) -> list[dict[str, Any]]:
    """A trace per group of points; lists of hover texts that are not in ``texts`` yet are added to it."""
    traces = []
    for group, group_points in styles.groups(points):
        labelled = zip(group_points["text"], group_points["label"], strict=True)
        hover_texts = tuple(hover_text(text, label) for text, label in labelled)
        index = texts.setdefault(hover_texts, len(texts))
        traces.append(marker_trace(group_points, **styles.style(group, group_points), meta=index))
    return traces_in_json(traces)


class _MarkerStyles:
    """Markers of points by their labels: many numbers make a colour scale, classes have a colour and a symbol each."""

    def __init__(self, labels: pd.Series) -> None:
        numbers = as_numbers(labels)
        given = labels[labels != ""]
        self.numeric = bool(len(given)) and bool(numbers[labels != ""].notna().all()) and given.nunique() > MOST_CLASSES
        self.range = (float(numbers.min()), float(numbers.max())) if self.numeric else (0.0, 1.0)
        self.classes = [str(name) for name in labels.value_counts().index[:MOST_CLASSES].sort_values()]

    def groups(self, points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        """Return the points by class, rare classes as ``other``; all in one group if labels are numbers."""
        if self.numeric:
            return [("", points)]
        names = points["label"].where(points["label"].isin(self.classes), "other")
        return [(str(name), group) for name, group in points.groupby(names)]

    def style(self, group: str, points: pd.DataFrame) -> dict[str, Any]:
        """Return marker, name and place in the legend of a group, as arguments of a plotly trace."""
        if self.numeric:
            values = as_numbers(points["label"]).to_numpy()
            bar = {"thickness": 10, "len": 0.6, "outlinewidth": 0}
            scale = {"color": values, "colorscale": "Cividis", "cmin": self.range[0], "cmax": self.range[1]}
            return {"marker": {"size": 3.5, "showscale": True, "colorbar": bar, **scale}, "showlegend": False}
        index = self.classes.index(group) if group in self.classes else len(self.classes)
        marker = {"size": 3.5, "color": COLOURS[index % 6], "symbol": SYMBOLS[index % len(SYMBOLS)]}
        return {"marker": marker, "name": escape(short_name(group or "no label", 24), quote=False), "showlegend": True}


def scatter_layout() -> dict[str, Any]:
    """Return the plotly layout of every scatter plot: a cube that can be turned, axes without ticks."""
    axis = {"title": {"text": ""}, "showticklabels": False, "showspikes": False, "showbackground": False}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "legend": {"orientation": "h", "itemsizing": "constant", "y": 0},
        "scene": {"xaxis": axis, "yaxis": axis, "zaxis": axis, "dragmode": "orbit", "aspectmode": "cube"},
        "hoverlabel": {"align": "left"},
    }


@lru_cache(maxsize=4096)  # every layer shows the same texts
def hover_text(text: str, label: str) -> str:
    """Return the lines that are shown when the mouse points at a text: its beginning, wrapped, and its label."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    lines = [*textwrap.wrap(short, 40), *([f"({short_name(label)})"] if label else [])]
    return "<br>".join(escape(line, quote=False) for line in lines)  # plotly would interpret markup
