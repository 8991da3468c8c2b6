"""Figures of the predictions of a run: scores against targets, confusion matrices, and metrics by group as bars."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype

from permafrost.probes.figures.metrics import MOST_PANELS, distinct_names, in_recipe_order, panels_layout
from permafrost.probes.figures.style import COLOURS, GREY, bars_with_intervals, new_figure, shared_legend, short_name
from permafrost.probes.results.run_tables import Tables, first_seed, reported_split

CLASS_METRICS = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Metrics of a class -> what tables call them."""

MOST_POINTS = 5000
"""Points that are drawn; of more rows a random sample of this size, the same at each call."""

MOST_CLASSES = 20
"""Classes of a confusion matrix; if there are more, the most frequent ones."""

MOST_SMALL_CLASSES = 6
"""Number of classes up to which a matrix is drawn for each variant; with more their cells would be unreadable."""

MOST_GROUPS = 25
"""Groups that figures and tables show; if there are more, those with the most rows."""


def predicted_against_gold(run: Tables) -> Figure | None:
    """Draw scores against targets, a point per row of the first seed; None if the predictions are not scores."""
    rows = run["predictions"]
    if (
        rows.empty
        or "rank" in rows
        or any(name not in rows or not is_numeric_dtype(rows[name]) for name in ("target", "score"))
    ):
        return None
    rows = first_seed(rows).dropna(subset=["target", "score"])
    if rows.empty:
        return None
    rows = rows.sample(min(len(rows), MOST_POINTS), random_state=0)
    figure, (axes,) = new_figure("predicted against gold", "gold", "predicted", size=(5.2, 4.6))
    ends = [rows["target"].min(), rows["target"].max()]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="predicted = gold")
    axes.scatter(rows["target"], rows["score"], s=10, alpha=0.4, color=COLOURS[0], linewidths=0, label="one row")
    shared_legend(figure, [axes])
    return figure


def confusion(run: Tables) -> Figure | None:
    """Draw counts of gold classes or tags against predicted ones, of the first seed; shades are shares of a row."""
    if "label" not in run["predictions"] or run["predictions"].empty:
        return None
    rows = first_seed(run["predictions"]).astype({"target": str, "label": str})
    names = pd.concat([rows["target"], rows["label"]]).value_counts().index[:MOST_CLASSES].sort_values()
    noun = "class"
    if "word" in rows:  # tags: "O", then by type
        names, noun = pd.Index(sorted(names, key=lambda name: (name[2:], name))), "tag"
    counts = pd.crosstab(rows["target"], rows["label"]).reindex(index=names, columns=names, fill_value=0)
    side = min(8.0, 2.2 + 0.55 * len(names))
    figure, (axes,) = new_figure(f"gold {noun} against predicted", "predicted", "gold", size=(max(side, 3.8), side))
    matrix(axes, counts)
    return figure


def confusions(run: Tables) -> Figure | None:
    """Draw gold classes against predicted ones, a panel per variant; None for one variant or for many classes."""
    rows = run["confusion"][run["confusion"]["n"].notna()]
    names = in_recipe_order(run, rows["variant"])[:MOST_PANELS]
    classes = sorted({*rows["target"], *rows["label"]})
    if len(names) < 2 or len(classes) > MOST_SMALL_CLASSES:
        return None
    side = 0.7 + 0.4 * len(classes)
    size, down = panels_layout(len(names), side, side + 0.6, 0.9)
    titles = distinct_names(names, 6 * len(classes))
    figure, axes = new_figure("gold class (down) against predicted (across)", "", "", titles, size, down)
    across = -(-len(names) // down)
    for index, (panel, name) in enumerate(zip(axes, names, strict=True)):
        counts = rows[rows["variant"] == name].pivot_table("n", "target", "label", "sum", 0)
        matrix(panel, counts.reindex(index=classes, columns=classes, fill_value=0))
        panel.set_xticks(range(len(classes)), distinct_names(classes, 14), rotation=45, ha="right")
        if index % across:
            panel.set_yticks(range(len(classes)), [""] * len(classes))
        panel.tick_params(labelsize=8)
    return figure


def matrix(axes: Axes, counts: pd.DataFrame) -> None:
    """Draw counts ``[gold class, predicted class]`` as a matrix; shades are shares of a row."""
    table, names = counts.to_numpy(dtype=float), counts.index
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(table):
        axes.bar(column, 0.96, 0.96, row - 0.48, color=COLOURS[0], alpha=0.04 + 0.56 * shares[row, column])
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center", fontsize=8 if len(names) < 12 else 6)
    labels = [short_name(name, 14) for name in names]
    flat = len("".join(labels)) < 8 * len(names) < 48
    axes.set_xticks(range(len(names)), labels, rotation=0 if flat else 45, ha="center" if flat else "right")
    axes.set_yticks(range(len(names)), labels)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False)


def group_bars(run: Tables, kind: str) -> Figure | None:
    """Draw the metrics of each group of one kind as bars, a panel per metric."""
    rows = run["breakdown"]
    rows = rows[(rows["kind"] == kind) & rows["value"].notna()]
    rows = rows[rows["split"] == reported_split(rows)]
    if rows.empty:
        return None
    groups, metrics = largest_groups(rows), shown_metrics(rows)
    size = (max(6.4, 2.3 * len(metrics) + 1.8), max(1.9, 0.4 * len(groups) + 1.2))
    names = [short_name(metric.replace("_", " ")) for metric in metrics]
    title = f"by {kind}, on {short_name(reported_split(rows))}, 95 % interval"
    figure, axes = new_figure(title, "", "", names, size)
    for index, (panel, metric) in enumerate(zip(axes, metrics, strict=True)):
        bars = rows[rows["metric"] == metric].drop_duplicates("group").set_index("group").reindex(groups)
        labels = [short_name(group, 24) for group in groups] if index == 0 else [""] * len(groups)
        bars_with_intervals(panel, bars, labels)
        panel.set(xlim=(0, max(1.0, float(bars[["value", "high"]].max().max()))))
    return figure


def largest_groups(rows: pd.DataFrame) -> list[str]:
    """Return the groups of a breakdown in the order of the table; at most ``MOST_GROUPS``, those with the most rows."""
    counts = rows.groupby("group", sort=False)["n"].max()
    kept = set(counts.fillna(0).nlargest(MOST_GROUPS).index)
    return [group for group in counts.index if group in kept]


def shown_metrics(rows: pd.DataFrame) -> list[str]:
    """Return the first five metrics of a breakdown."""
    return list(dict.fromkeys(rows["metric"]))[:5]
