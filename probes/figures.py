"""Figures of a run, as matplotlib figures; nothing is drawn on a screen. Colours are told apart by the colour-blind."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.experiment import Trained
from probes.recipe import UNTRAINED

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito
MARKERS = "osD^vPX"


def by_layer(metrics: pd.DataFrame, metric: str) -> Figure | None:
    """The untrained reference over layers with its interval, variants as lines across; None without a reference."""
    rows = metrics[(metrics["metric"] == metric) & (metrics["split"] == _scored(metrics)) & metrics["seed"].isna()]
    raw = rows[(rows["variant"] == UNTRAINED) & rows["layer"].notna()]
    if raw.empty:
        return None
    figure, axes = _figure("layer", metric, f"{metric} on {_scored(metrics)}, by layer")
    for index, (view, line) in enumerate(raw.groupby("view", sort=False)):
        layers = line["layer"].astype(int)
        axes.plot(
            layers, line["value"], color=COLOURS[index % 7], marker=MARKERS[index % 7], label=f"raw cosine, {view}"
        )
        axes.fill_between(
            layers, line["low"].astype(float), line["high"].astype(float), color=COLOURS[index % 7], alpha=0.15
        )
    for index, (_, row) in enumerate(
        rows[~rows["variant"].str.startswith(UNTRAINED)].iterrows(), raw["view"].nunique()
    ):
        axes.axhline(row["value"], color=COLOURS[index % 7], linestyle=(0, (4, 1 + index)), label=str(row["variant"]))
    axes.set_xticks(sorted(raw["layer"].astype(int).unique()))
    axes.legend(frameon=False, fontsize=8)
    return figure


def predicted_against_gold(predictions: pd.DataFrame) -> Figure | None:
    """Scores against targets, one point a row of the first seed; None for classes."""
    if "score" not in predictions:
        return None
    first = predictions[predictions["seed"] == predictions["seed"].iloc[0]]
    figure, axes = _figure("gold", "predicted", "predicted against gold")
    axes.scatter(first["target"], first["score"], s=8, alpha=0.4, color=COLOURS[0], linewidths=0)
    ends = [first["target"].min(), first["target"].max()]
    axes.plot(ends, ends, color="grey", linewidth=1)
    return figure


def training_curves(trained: Sequence[Trained]) -> Figure:
    """Validation metric by epoch; a variant has one colour, its seeds a line each."""
    figure, axes = _figure("epoch", "validation metric", "training")
    names = list(dict.fromkeys(one.variant for one in trained))
    for one in trained:
        index = names.index(one.variant) % 7
        first = one.seed == next(other.seed for other in trained if other.variant == one.variant)
        epochs = np.arange(1, len(one.fitted.values) + 1)
        label = one.variant if first else None
        axes.plot(epochs, one.fitted.values, color=COLOURS[index], marker=MARKERS[index], markersize=3, label=label)
    axes.legend(frameon=False, fontsize=8)
    return figure


def draw_all(
    folder: Path, metrics: pd.DataFrame, predictions: pd.DataFrame, trained: Sequence[Trained], metric: str
) -> list[Path]:
    """Every figure of a run as PNG and SVG; returns the SVG files."""
    folder.mkdir()
    with rc_context({"text.parse_math": False}):  # a name is a name, not a formula
        figures = {
            "by_layer": by_layer(metrics, metric),
            "predicted_against_gold": predicted_against_gold(predictions),
            "training": training_curves(trained),
        }
        for name, figure in figures.items():
            if figure:
                figure.savefig(folder / f"{name}.png", dpi=150)
                figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return [folder / f"{name}.svg" for name, figure in figures.items() if figure]


def _scored(metrics: pd.DataFrame) -> str:
    return "test" if (metrics["split"] == "test").any() else "validation"


def _figure(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes
