"""Style of all figures: colour-blind-safe colours, markers and line styles that differ as well, plain axes.

Helpers that create axes, plot a line with its interval, and make ticks and legends alike in every figure.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito

MARKERS = "osD^vPX"

LINES: list[Any] = ["-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1))]

GREY = "#808080"

SETTINGS = {
    "text.parse_math": False,  # a name is a name, not a formula
    "svg.fonttype": "none",
    "svg.hashsalt": "permafrost",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
}
"""Settings of matplotlib under which every figure is drawn."""


def new_figure(
    title: str, x: str, y: str, panels: Sequence[str] = ("",), size: tuple[float, float] = (6.4, 4.0), rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, one per panel title, in ``rows`` rows; spare places of the grid stay empty.

    Args:
        title: of the figure.
        x: label of every horizontal axis, and ``y`` of every vertical one.
        panels: titles of the panels; one empty title is a figure of one panel.
        size: width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, -(-len(panels) // rows), squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for panel, panel_title in zip(axes, panels, strict=False):
        panel.set(xlabel=x, ylabel=y, title=panel_title)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=GREY, alpha=0.2, linewidth=0.7)
    for spare in axes[len(panels) :]:
        spare.remove()
    if panels == ("",):
        axes[0].set_title(title)
    else:
        figure.suptitle(title, x=0.01, ha="left")
    return figure, axes[: len(panels)]


def series_style(index: int) -> dict[str, Any]:
    """Return colour, marker and line style of the series number ``index`` in a figure, as arguments of ``plot``."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[(index + index // len(COLOURS)) % len(LINES)],
        "markersize": 4,
        "linewidth": 1.5,
    }


def plot_with_band(axes: Axes, x: Any, rows: pd.DataFrame, name: str | None, style: dict[str, Any]) -> None:
    """Plot a line through ``value`` with its interval from ``low`` to ``high`` as a band."""
    axes.plot(x, rows["value"], label=name, **style)
    if rows["low"].notna().any():
        axes.fill_between(x, rows["low"], rows["high"], color=style["color"], alpha=0.15, linewidth=0)


def bars_with_intervals(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw a bar per row, the first on top: ``value``, and its interval from ``low`` to ``high`` if there is one."""
    axes.barh(range(len(rows)), rows["value"], 0.62, color=COLOURS[0], alpha=0.45)
    for height, (low, high) in enumerate(rows[["low", "high"]].itertuples(index=False)):
        if pd.notna(low) and pd.notna(high):
            axes.plot([low, high], [height, height], color="black", linewidth=1.2, marker="|")
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(range(len(rows)), names)
    axes.grid(visible=False, axis="y")


def short_name(text: object, longest: int = 36) -> str:
    """Return a name as one short line that a figure can print, without control characters."""
    clean = "".join(char if char.isprintable() else " " for char in str(text)).strip().lstrip("_") or "(no name)"
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def shared_legend(figure: Figure, axes: Sequence[Axes], columns: int = 3) -> None:
    """Draw one legend below all panels, each name once."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower left", ncols=min(columns, len(handles)),
            frameon=False, fontsize=8, handlelength=3.5,
        )  # fmt: skip


def share_y_limits(axes: Sequence[Axes]) -> None:
    """Give all panels the same vertical limits, wide enough for each."""
    limits = [panel.get_ylim() for panel in axes]
    for panel in axes:
        panel.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))


def integer_ticks(axes: Axes, values: Any) -> None:
    """Set horizontal ticks at values that occur, 13 at most."""
    distinct = np.unique(np.asarray(values, dtype=float))
    distinct = distinct[np.isfinite(distinct)]
    step = -(-len(distinct) // 13)
    ticks = distinct[::step] if step else []
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
