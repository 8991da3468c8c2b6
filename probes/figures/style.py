"""How every figure looks: colours that the colour-blind tell apart, markers and lines that differ too, quiet axes."""

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


def canvas(
    title: str, x: str, y: str, panels: Sequence[str] = ("",), size: tuple[float, float] = (6.4, 4.0), rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with one set of axes per panel title; spare places stay empty."""
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, -(-len(panels) // rows), squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for one, panel in zip(axes, panels, strict=False):
        one.set(xlabel=x, ylabel=y, title=panel)
        one.spines[["top", "right"]].set_visible(False)
        one.grid(color=GREY, alpha=0.2, linewidth=0.7)
    for spare in axes[len(panels) :]:
        spare.remove()
    if panels == ("",):
        axes[0].set_title(title)
    else:
        figure.suptitle(title, x=0.01, ha="left")
    return figure, axes[: len(panels)]


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line of the n-th thing in a figure."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[(index + index // len(COLOURS)) % len(LINES)],
        "markersize": 4,
        "linewidth": 1.5,
    }


def line(axes: Axes, x: Any, rows: pd.DataFrame, name: str | None, look: dict[str, Any]) -> None:
    """A line through ``value`` with its interval ``low`` to ``high`` as a band."""
    axes.plot(x, rows["value"], label=name, **look)
    if rows["low"].notna().any():
        axes.fill_between(x, rows["low"], rows["high"], color=look["color"], alpha=0.15, linewidth=0)


def caption(text: object, longest: int = 36) -> str:
    """A name as a figure can print it: one short line, no control characters."""
    clean = "".join(char if char.isprintable() else " " for char in str(text)).strip().lstrip("_") or "(no name)"
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def legend(figure: Figure, axes: Sequence[Axes], columns: int = 3) -> None:
    """One legend below all panels, each name once."""
    found: dict[str, Any] = {}
    for one in axes:
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside lower left", ncols=min(columns, len(found)), frameon=False,
            fontsize=8, handlelength=3.5,
        )  # fmt: skip


def one_scale(axes: Sequence[Axes]) -> None:
    """The same limits for all panels, wide enough for each."""
    ends = [panel.get_ylim() for panel in axes]
    for panel in axes:
        panel.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))


def whole_ticks(axes: Axes, values: Any) -> None:
    """Ticks on whole numbers only, at most about a dozen."""
    known = np.unique(np.asarray(values, dtype=float))
    known = known[np.isfinite(known)]
    step = -(-len(known) // 13)
    axes.set_xticks(known[::step] if step else [])
    axes.set_xticklabels([f"{value:g}" for value in (known[::step] if step else [])])


def seedless(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that sum the seeds up and have a value."""
    return frame[frame["seed"].isna() & frame["value"].notna()]
