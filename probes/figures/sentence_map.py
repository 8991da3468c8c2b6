"""Maps of compared sentences in three dimensions, as plotly figures: a colour per backbone, a marker per sentence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from permafrost.probes.figures.scatter_3d import coordinates, escape_html, hover_text, scatter_layout, traces_in_json
from permafrost.probes.figures.style import COLOURS
from permafrost.probes.metrics.projection import MIN_TEXTS_FOR_TSNE

SHAPES = {
    "circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "circle-open": "○", "square-open": "□",
    "diamond-open": "◇",
}  # fmt: skip
"""Symbol of plotly -> the character that a table shows for it."""

SYMBOLS = tuple(SHAPES)

ALL_BACKBONES = "all backbones"


def marker_character(number: int) -> str:
    """Return the marker of a sentence, numbered from 1, as a character; with many sentences markers repeat."""
    return SHAPES[SYMBOLS[(number - 1) % len(SYMBOLS)]]


def sentence_maps(maps: pd.DataFrame, texts: Sequence[str], titles: dict[str, str]) -> dict[str, Any]:
    """Return ``maps.csv`` as plotly figures: the map of all backbones first, then one per backbone.

    Args:
        titles: backbone -> its title on the page, in the order of the colours.

    Returns:
        as :func:`permafrost.probes.figures.scatter_3d.latent_scatter`.
    """
    hover_texts: list[list[str]] = []
    inputs = []
    named_maps: list[tuple[str, pd.DataFrame]] = [(ALL_BACKBONES, maps[maps["map"] == "cosines"])]
    latents = maps[maps["map"] == "latents"]
    named_maps += [(title, latents[latents["backbone"] == backbone]) for backbone, title in titles.items()]
    for name, rows in named_maps:
        entry: dict[str, Any] = {"name": name}
        for method, points in rows.groupby("method", sort=False):
            if np.isfinite(points[["x", "y", "z"]].to_numpy(dtype=float)).all():
                entry[str(method)] = _traces(points, texts, titles, hover_texts)
        if len(entry) > 1:
            inputs.append(entry)
    return {"layout": scatter_layout(), "texts": hover_texts, "inputs": inputs}


def missing_tsne_note(data: dict[str, Any], sentences: int) -> str:
    """Return a note that explains why maps have no t-SNE; empty if all have one."""
    lacking = [entry["name"] for entry in data["inputs"] if "tsne" not in entry]
    if not lacking:
        return ""
    which = "" if len(lacking) == len(data["inputs"]) else f" for {', '.join(lacking)}"
    return (
        f"There is no t-SNE{which}: it needs {MIN_TEXTS_FOR_TSNE} points, more than its perplexity, to say anything, "
        f"and a backbone has {sentences}, one for each distinct sentence."
    )


def _traces(
    points: pd.DataFrame, texts: Sequence[str], titles: dict[str, str], hover_texts: list[list[str]]
) -> list[dict[str, Any]]:
    """A trace per backbone; its hover texts are appended to ``hover_texts``."""
    traces = []
    several = points["backbone"].nunique() > 1
    for index, (backbone, title) in enumerate(titles.items()):
        backbone_points = points[points["backbone"] == backbone]
        if backbone_points.empty:
            continue
        numbers = backbone_points["sentence"].to_numpy(dtype=int)
        hover_texts.append([hover_text(f"{number}. {texts[number - 1]}", title) for number in numbers])
        marker = {
            "size": 5,
            "color": COLOURS[index % (len(COLOURS) - 1)],
            "symbol": [SYMBOLS[(number - 1) % len(SYMBOLS)] for number in numbers],
        }
        traces.append(
            go.Scatter3d(
                **coordinates(backbone_points), marker=marker, mode="markers", hoverinfo="text",
                meta=len(hover_texts) - 1, showlegend=several, name=escape_html(title),
            )
        )  # fmt: skip
    return traces_in_json(traces)
