"""Sentences in space: colour says which backbone, the marker which sentence; turned with the mouse in the page."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from permafrost.probes.figures.scatter import hover, layout, plain
from permafrost.probes.figures.style import COLOURS
from permafrost.probes.metrics.projection import FEWEST_FOR_TSNE

SHAPES = {
    "circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "circle-open": "○", "square-open": "□",
    "diamond-open": "◇",
}  # fmt: skip
"""Plotly's markers, and how a table shows them."""

SYMBOLS = tuple(SHAPES)

TOGETHER = "all backbones"


def shape(number: int) -> str:
    """The marker of a sentence, counted from 1, as a character; shapes begin again where there are no more."""
    return SHAPES[SYMBOLS[(number - 1) % len(SYMBOLS)]]


def spaces(maps: pd.DataFrame, texts: Sequence[str], titles: dict[str, str]) -> dict[str, Any]:
    """``maps.csv`` as plotly figures, the map of all backbones first, then one a backbone.

    Args:
        titles: backbone -> what the page calls it, in the order of their colours.

    Returns:
        as :func:`probes.scatter.panels`.
    """
    said: list[list[str]] = []
    inputs = []
    groups: list[tuple[str, pd.DataFrame]] = [(TOGETHER, maps[maps["map"] == "cosines"])]
    alone = maps[maps["map"] == "latents"]
    groups += [(title, alone[alone["backbone"] == backbone]) for backbone, title in titles.items()]
    for name, part in groups:
        one: dict[str, Any] = {"name": name}
        for method, points in part.groupby("method", sort=False):
            if np.isfinite(points[["x", "y", "z"]].to_numpy(dtype=float)).all():
                one[str(method)] = _traces(points, texts, titles, said)
        if len(one) > 1:
            inputs.append(one)
    return {"layout": layout(), "texts": said, "inputs": inputs}


def about_tsne(data: dict[str, Any], sentences: int) -> str:
    """Why t-SNE is missing from some of the maps; nothing where it is on all."""
    lacking = [one["name"] for one in data["inputs"] if "tsne" not in one]
    if not lacking:
        return ""
    which = "" if len(lacking) == len(data["inputs"]) else f" for {', '.join(lacking)}"
    return (
        f"There is no t-SNE{which}: it needs {FEWEST_FOR_TSNE} points, more than its perplexity, to say anything, and "
        f"a backbone has {sentences}, one for each distinct sentence."
    )


def _traces(
    points: pd.DataFrame, texts: Sequence[str], titles: dict[str, str], said: list[list[str]]
) -> list[dict[str, Any]]:
    """A trace a backbone; what the mouse shows is added to ``said``."""
    import plotly.graph_objects as go

    traces = []
    for place, (backbone, title) in enumerate(titles.items()):
        mine = points[points["backbone"] == backbone]
        if mine.empty:
            continue
        numbers = mine["sentence"].to_numpy(dtype=int)
        said.append([hover(f"{number}. {texts[number - 1]}", title) for number in numbers])
        marker = {
            "size": 5,
            "color": COLOURS[place % (len(COLOURS) - 1)],
            "symbol": [SYMBOLS[(number - 1) % len(SYMBOLS)] for number in numbers],
        }
        xyz = {axis: mine[axis].astype(np.float32).to_numpy() for axis in "xyz"}
        several = points["backbone"].nunique() > 1
        traces.append(
            go.Scatter3d(
                **xyz, marker=marker, mode="markers", hoverinfo="text", meta=len(said) - 1, showlegend=several,
                name=plain(title),
            )
        )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(go.Figure(traces).to_json())["data"]
    return found
