"""Figures of compared sentences: heatmaps of their cosines, and maps in three dimensions, as plotly figures.

On the maps a backbone has a colour, a sentence a marker.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from permafrost.probes.figures.scatter_3d import hover_text, marker_trace, scatter_layout, traces_in_json
from permafrost.probes.figures.style import COLOURS, new_figure, short_name
from permafrost.probes.metrics.cosines import matrix_from_pairs
from permafrost.probes.metrics.projection import FEW_TEXTS, MIN_TEXTS_FOR_TSNE
from permafrost.probes.results.run_tables import Tables

SHAPES = {
    "circle": "●", "square": "■", "diamond": "◆", "cross": "✚", "circle-open": "○", "square-open": "□",
    "diamond-open": "◇",
}  # fmt: skip
"""Symbol of plotly -> the character that a table shows for it."""

SYMBOLS = tuple(SHAPES)

ALL_BACKBONES = "all backbones"

MOST_WRITTEN = 16
"""Sentences up to which a heatmap shows its values."""

DARKEST = "#0b4f8a"
"""Colour of a cosine of 1; none of the page's colours, which change in dark mode."""


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
    latents = maps[maps["map"] == "latents"]
    of_backbones = [(title, latents[latents["backbone"] == backbone]) for backbone, title in titles.items()]
    for name, rows in [(ALL_BACKBONES, maps[maps["map"] == "cosines"]), *of_backbones]:
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
        f"There is no t-SNE{which}: it needs {MIN_TEXTS_FOR_TSNE} points, and a backbone has {sentences}, one for each "
        "distinct sentence."
    )


def few_points_note(counts: Iterable[int]) -> str:
    """Return a caution if t-SNE is drawn of few points; empty if it is drawn of many, or not at all."""
    few = sorted({count for count in counts if MIN_TEXTS_FOR_TSNE <= count < FEW_TEXTS})
    if not few:
        return ""
    points = f"{few[0]}" if len(few) == 1 else f"{few[0]} to {few[-1]}"
    return (
        f"t-SNE of {points} points is to be read with caution: its perplexity, the number of neighbours that it keeps "
        "near, is at most a third of them, and distances and groups of so few points mean little."
    )


def backbone_titles(run: Tables) -> dict[str, str]:
    """Return backbone -> its title: the last part of its name if no other backbone has the same, else all of it."""
    names = list(dict.fromkeys(run["cosines"]["backbone"]))
    last_parts = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
    return {
        name: short_name(last_part if last_parts.count(last_part) == 1 else name, 40)
        for name, last_part in zip(names, last_parts, strict=True)
    }


def heatmaps(run: Tables) -> dict[str, Figure]:
    """Draw a heatmap of cosines per backbone, all with one scale; keys are titles of backbones."""
    cosines, texts = run["cosines"], run["sentences"]["text"].tolist()
    floor = min(float(cosines["cosine"].min()), 0.99)
    return {
        title: heatmap(matrix_from_pairs(cosines, backbone, len(texts)), texts, title, floor)
        for backbone, title in backbone_titles(run).items()
    }


def heatmap(table: NDArray[np.float64], texts: Sequence[str], title: str, floor: float) -> Figure:
    """Draw cosines ``[sentence, sentence]`` as a heatmap; white is ``floor``, the least cosine of all backbones."""
    count = len(table)
    side = float(np.clip(2.0 + 0.55 * count, 2.8, 9.0))
    figure, (axes,) = new_figure(title, "sentence", "", size=(side + 2.0, side))
    shades = LinearSegmentedColormap.from_list("cosine", ["#ffffff", DARKEST])
    edges = np.arange(count + 1) + 0.5
    mesh = axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(table), cmap=shades, vmin=floor, vmax=1, rasterized=count > MOST_WRITTEN
    )
    figure.colorbar(mesh, ax=axes, shrink=0.8)
    if count <= MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                dark = value - floor > 0.55 * (1 - floor)
                axes.annotate(
                    f"{value:.3f}" if count < 10 else f"{value:.2f}", (column + 1, row + 1), ha="center", va="center",
                    fontsize=7, color="#ffffff" if dark else "#1b1d1f",
                )  # fmt: skip
        axes.set_yticks(range(1, count + 1), [f"{short_name(text, 24)}  {n}" for n, text in enumerate(texts, 1)])
        axes.set_xticks(range(1, count + 1))
    axes.set(xlim=(0.5, count + 0.5), ylim=(count + 0.5, 0.5))
    axes.grid(visible=False)
    return figure


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
        look = {"marker": marker, "showlegend": several, "name": escape(title, quote=False)}
        traces.append(marker_trace(backbone_points, **look, meta=len(hover_texts) - 1))
    return traces_in_json(traces)
