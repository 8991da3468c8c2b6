"""Latents in three dimensions: projected here, turned with the mouse in the page."""

import json
import textwrap
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from permafrost.probes.figures.style import COLOURS, caption
from permafrost.probes.results.files import as_numbers

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open", "diamond-open")

MOST_CLASSES = 12

LONGEST = 200
"""Characters of a text that the mouse shows."""


def panels(latents: pd.DataFrame) -> dict[str, Any]:
    """``latents.csv`` as plotly figures: a layout, the distinct texts once, and the traces of each input and method.

    Returns:
        ``layout``; ``texts``, lists that traces point into by their ``meta``; ``inputs``, a list of
        ``{"name", "pca": traces, "tsne": traces}``. Plain JSON values.
    """
    import plotly.graph_objects as go

    texts: dict[tuple[str, ...], int] = {}
    inputs: dict[str, dict[str, Any]] = {}
    rows = latents.dropna(subset=["x", "y", "z"])
    looks = _Looks(rows["label"])
    for (plan, view, _), part in rows.groupby(["plan", "view", "layer"], sort=False, dropna=False):
        depth = part["layer"].iloc[0]
        name = ", ".join([str(one) for one in (plan, view) if one] + ([] if pd.isna(depth) else [f"layer {depth:.0f}"]))
        for method, points in part.groupby("method", sort=False):
            traces = []
            for group, mine in looks.groups(points):
                said = tuple(hover(text, label) for text, label in zip(mine["text"], mine["label"], strict=True))
                place = texts.setdefault(said, len(texts))
                xyz = {axis: mine[axis].astype(np.float32).to_numpy() for axis in "xyz"}
                traces.append(
                    go.Scatter3d(**xyz, **looks.of(group, mine), mode="markers", hoverinfo="text", meta=place)
                )
            inputs.setdefault(name, {"name": name})[str(method)] = json.loads(go.Figure(traces).to_json())["data"]
    return {"layout": layout(), "texts": [list(one) for one in texts], "inputs": list(inputs.values())}


class _Looks:
    """Numbers are a colour scale; a class has a colour and a marker."""

    def __init__(self, labels: pd.Series) -> None:
        numbers = as_numbers(labels)
        known = labels[labels != ""]
        self.numeric = bool(len(known)) and bool(numbers[labels != ""].notna().all()) and known.nunique() > MOST_CLASSES
        self.ends = (float(numbers.min()), float(numbers.max())) if self.numeric else (0.0, 1.0)
        self.classes = [str(name) for name in labels.value_counts().index[:MOST_CLASSES].sort_values()]

    def groups(self, points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        if self.numeric:
            return [("", points)]
        names = points["label"].where(points["label"].isin(self.classes), "other")
        return [(str(name), part) for name, part in points.groupby(names)]

    def of(self, group: str, points: pd.DataFrame) -> dict[str, Any]:
        if self.numeric:
            values = as_numbers(points["label"]).to_numpy()
            bar = {"thickness": 10, "len": 0.6, "outlinewidth": 0}
            scale = {"color": values, "colorscale": "Cividis", "cmin": self.ends[0], "cmax": self.ends[1]}
            return {"marker": {"size": 3.5, "showscale": True, "colorbar": bar, **scale}, "showlegend": False}
        place = self.classes.index(group) if group in self.classes else len(self.classes)
        marker = {"size": 3.5, "color": COLOURS[place % 6], "symbol": SYMBOLS[place % len(SYMBOLS)]}
        return {"marker": marker, "name": plain(caption(group or "no label", 24)), "showlegend": True}


def layout() -> dict[str, Any]:
    """Plotly's layout of all of them: quiet axes, a cube to turn."""
    axis = {"title": {"text": ""}, "showticklabels": False, "showspikes": False, "showbackground": False}
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "legend": {"orientation": "h", "itemsizing": "constant", "y": 0},
        "scene": {"xaxis": axis, "yaxis": axis, "zaxis": axis, "dragmode": "orbit", "aspectmode": "cube"},
        "hoverlabel": {"align": "left"},
    }


@lru_cache(maxsize=4096)  # every layer shows the same texts
def hover(text: str, label: str) -> str:
    """What the mouse shows of a text."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    lines = [*textwrap.wrap(short, 40), *([f"({caption(label)})"] if label else [])]
    return "<br>".join(map(plain, lines))


def plain(text: str) -> str:
    """Plotly reads a little HTML in what it draws; a text from a corpus is not HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
