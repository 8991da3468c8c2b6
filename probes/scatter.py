"""Latents in three dimensions: projected here, turned with the mouse in the page."""

import json
import textwrap
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from probes.drawing import COLOURS, caption
from probes.tables import as_numbers

MOST = 1000
"""Texts that are projected; of more, this many are drawn by seed."""

FEWEST_FOR_TSNE = 20
EXAGGERATION = 4.0
"""That of the paper; scikit-learn's 12 pulls points without clusters into one, for good. Source: van der Maaten and
Hinton, "Visualizing Data using t-SNE" (2008), section 3.4."""

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "circle-open", "square-open", "diamond-open")
MOST_CLASSES = 12
LONGEST = 200
"""Characters of a text that the mouse shows."""


def project(latents: NDArray[np.float32], seed: int = 0) -> pd.DataFrame:
    """PCA and, of twenty texts or more, t-SNE to three dimensions; the same for the same input and seed.

    Args:
        latents: ``[text, width]``; texts with a value that is not finite are left out.

    Returns:
        ``method`` (``pca``, ``tsne``), ``x, y, z``; the index ``row`` says which row of ``latents`` a point is.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.flatnonzero(np.isfinite(latents).all(1))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    values = latents[rows].astype(np.float64)
    index = pd.Index(rows, name="row")
    if len(rows) < 2 or not np.ptp(values, axis=0).any():
        points = np.zeros((len(rows), 3))
        return _frame("pca", points, index)
    with threadpool_limits(limits=1):  # sums in one order, whatever the machine
        points = PCA(min(3, *values.shape), svd_solver="full").fit_transform(values)
        points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
        frames = [_frame("pca", points, index)]
        if len(rows) >= FEWEST_FOR_TSNE:
            start = (points / points[:, 0].std() * 1e-4).astype(np.float32)
            rate = max(len(rows) / 100, 3.0)  # scikit-learn's own is 50 or more, which throws few points apart
            perplexity = min(30.0, (len(rows) - 1) / 3)
            tsne = TSNE(
                3, perplexity=perplexity, learning_rate=rate, init=start, max_iter=500, random_state=seed,
                early_exaggeration=EXAGGERATION,
            )  # fmt: skip
            frames.append(_frame("tsne", tsne.fit_transform(values), index))
    return pd.concat(frames)


def _frame(method: str, points: NDArray[Any], index: pd.Index) -> pd.DataFrame:
    return pd.DataFrame({"method": method, **dict(zip("xyz", points.T, strict=True))}, index=index)


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
