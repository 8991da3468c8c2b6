"""Figures of evaluations: the transfer matrix, runs down and data across; and the reliability of probabilities."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import COLOURS, GREY, new_figure, series_style, shared_legend, short_name
from permafrost.probes.results.formatting import metric_title
from permafrost.probes.results.run_tables import Tables

MOST_CELLS = 30
"""Runs, or data sets, that a heatmap shows."""


def transfer_rows(run: Tables) -> pd.DataFrame:
    """Return the selection metric of every run on every data set, with the columns ``run`` and ``data``."""
    frames = []
    for about in run.record_table("evaluations").values():
        rows = run.means
        own = (rows["variant"] == about["run"]) & (rows["corpus"] == about["data"]) & (rows["task"] == about["task"])
        named = about["run"] + (f", {about['task']}" if about["task"] else "")
        frames.append(rows[own & (rows["metric"] == about["metric"])].assign(run=named, data=about["data"]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["run", "data", "metric", "value"])


def transfer(run: Tables) -> Figure | None:
    """Draw the transfer matrix, a panel per metric: darker is better, on a scale of the metric's own values."""
    rows = transfer_rows(run)
    rows = rows[rows["value"].notna()]
    metrics = list(dict.fromkeys(rows["metric"]))[:4]
    names, data = (list(dict.fromkeys(rows[key]))[:MOST_CELLS] for key in ("run", "data"))
    if not metrics or len(names) * len(data) < 2:
        return None
    size = ((1.1 * len(data) + 1.2) * len(metrics) + 2.2, 0.55 * len(names) + 1.6)
    titles = [metric_title(metric) for metric in metrics]
    figure, axes = new_figure("trained on (down), tested on (across)", "", "", titles, (max(4.4, size[0]), size[1]))
    for panel, metric in zip(axes, metrics, strict=True):
        values = rows[rows["metric"] == metric].pivot_table("value", "run", "data", "first")
        table = values.reindex(index=names, columns=data).to_numpy(float)
        low, high = np.nanmin(table), np.nanmax(table)
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                share = (value - low) / (high - low) if high > low else 1.0
                panel.bar(column, 0.96, 0.96, row - 0.48, color=COLOURS[0], alpha=0.04 + 0.56 * share)
                panel.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8)
        panel.set_xticks(range(len(data)), [short_name(name, 16) for name in data], rotation=45, ha="right")
        panel.set_yticks(range(len(names)), [short_name(name, 24) for name in names])
        panel.set(xlim=(-0.5, len(data) - 0.5), ylim=(len(names) - 0.5, -0.5))
        panel.grid(visible=False)
    return figure


def reliability(run: Tables) -> Figure | None:
    """Draw the accuracy of predicted classes against their probability, a line before and after calibration."""
    rows = run["reliability"].dropna(subset=["confidence", "accuracy"])
    if rows.empty:
        return None
    title = f"reliability on {short_name(rows['split'].iloc[0])}"
    figure, (axes,) = new_figure(title, "probability of the predicted class", "accuracy", size=(4.8, 4.6))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    for index, (stage, bins) in enumerate(rows.groupby("stage", sort=False)):
        style = series_style(index)
        axes.plot(bins["confidence"], bins["accuracy"], label=short_name(stage), **style)
        sizes = 140 * np.sqrt(bins["n"] / max(bins["n"].max(), 1))
        axes.scatter(bins["confidence"], bins["accuracy"], s=sizes, color=style["color"], alpha=0.25, linewidths=0)
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))
    shared_legend(figure, [axes])
    return figure
