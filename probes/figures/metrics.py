"""Figures of a run of one task: metrics by layer and variant, predictions, training curves, autoencoder.

Each is drawn from the tables of the run alone; a figure whose table is empty is None.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import UNTRAINED
from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    integer_ticks,
    mean_rows,
    new_figure,
    plot_with_band,
    series_style,
    share_y_limits,
    shared_legend,
    short_name,
)
from permafrost.probes.results.run_tables import Tables, first_seed

SPLITS = ("train", "validation", "test")

MOST_POINTS = 5000
"""Points that are drawn; of more rows a random sample of this size, the same at each call."""

MOST_CLASSES = 20
"""Classes of a confusion matrix; if there are more, the most frequent ones."""

THIN = {"markersize": 3, "linewidth": 1.2}
"""Style of a line of one seed."""


def by_layer(run: Tables) -> Figure | None:
    """Draw the untrained reference by layer with its interval, a panel per split, and the chosen variant as a line."""
    rows = mean_rows(run.metrics)
    rows = rows[rows["metric"] == run.metric]
    untrained = rows[rows["variant"].str.startswith(UNTRAINED) & rows["layer"].notna()]
    splits = [split for split in SPLITS if (untrained["split"] == split).any()]
    if not splits or run.tasks:
        return None
    size = (6.4, 4.2) if len(splits) == 1 else (3.3 * len(splits) + 0.6, 4.0)
    figure, axes = new_figure(f"{short_name(run.metric)} by layer", "layer", short_name(run.metric), splits, size)
    curves = list(dict.fromkeys(zip(untrained["variant"], untrained["view"], strict=True)))
    for index, (variant, view) in enumerate(curves):
        by_split = untrained[(untrained["variant"] == variant) & (untrained["view"] == view)].sort_values("layer")
        for panel, split in zip(axes, splits, strict=True):
            curve = by_split[by_split["split"] == split]
            name = short_name(f"{variant} cosine, {view}")
            plot_with_band(panel, curve["layer"], curve, name, series_style(index))
    chosen = rows[rows["variant"] == run.selected]
    for panel, split in zip(axes, splits, strict=True):
        for value in chosen.loc[chosen["split"] == split, "value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (4, 2)), label=f"{short_name(run.selected)} (chosen)")
        integer_ticks(panel, untrained["layer"])
    share_y_limits(axes)
    shared_legend(figure, axes, len(splits) + 1)
    return figure


def ladder(run: Tables) -> Figure | None:
    """Draw the last layer of the untrained reference and every variant as bars with intervals, in recipe order."""
    rows = mean_rows(run.metrics)
    rows = rows[(rows["split"] == run.split) & (rows["metric"] == run.metric)]
    if rows.empty or len(run.layers) or run.tasks:
        return None
    last = rows.groupby(["variant", "view"])["layer"].transform("max")
    rows = rows[rows["layer"].isna() | ~rows["variant"].str.startswith(UNTRAINED) | (rows["layer"] == last)]
    rows = rows[::-1]
    several = rows["task"].nunique() > 1
    figure, (axes,) = new_figure(
        f"{short_name(run.metric)} on {run.split}, 95 % interval", short_name(run.metric), "",
        size=(6.4, max(1.8, 0.42 * len(rows) + 1.1)),
    )  # fmt: skip
    names = [_bar_name(row, run.selected, several) for _, row in rows.iterrows()]
    for height, (_, row) in enumerate(rows.iterrows()):
        untrained, chosen = row["variant"].startswith(UNTRAINED), row["variant"] == run.selected
        axes.barh(height, row["value"], 0.62, color=GREY if untrained else COLOURS[0], alpha=1 if chosen else 0.45)
        if pd.notna(row["low"]) and pd.notna(row["high"]):
            axes.plot([row["low"], row["high"]], [height, height], color="black", linewidth=1.2, marker="|")
        end = max(row["high"] if pd.notna(row["high"]) else row["value"], 0)
        axes.annotate(
            f"{row['value']:.3f}", (end, height), xytext=(6, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    return figure


def predicted_against_gold(run: Tables) -> Figure | None:
    """Draw scores against targets, a point per row of the first seed; None if the predictions are not scores."""
    if run.kind != "score":
        return None
    rows = first_seed(run.predictions).dropna(subset=["target", "score"])
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
    if run.kind not in ("class", "tags"):
        return None
    rows = first_seed(run.predictions)
    names = pd.concat([rows["target"], rows["label"]]).value_counts().index[:MOST_CLASSES].sort_values()
    noun = "class"
    if run.kind == "tags":  # "O", then by type
        names, noun = pd.Index(sorted(names, key=lambda name: (name[2:], name))), "tag"
    counts = pd.crosstab(rows["target"], rows["label"]).reindex(index=names, columns=names, fill_value=0)
    side = min(8.0, 2.2 + 0.55 * len(names))
    figure, (axes,) = new_figure(f"gold {noun} against predicted", "predicted", "gold", size=(max(side, 3.8), side))
    matrix(axes, counts)
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


def training(run: Tables) -> Figure | None:
    """Draw loss and selection metric by epoch, of pretraining and training; a line per seed, a style per variant."""
    table = run.training
    possible = [("pretraining", "loss"), ("pretraining", "value"), ("training", "loss"), ("training", "value")]
    curves = [(phase, column) for phase, column in possible if table.loc[table["phase"] == phase, column].notna().any()]
    if not curves or run.tasks:
        return None
    names = {
        "pretraining": "larger is better, on held-out texts",
        "training": f"{short_name(run.metric)} on {run.selection}",
    }
    panels = [f"{phase}: {'loss' if column == 'loss' else names[phase]}" for phase, column in curves]
    rows = 1 if len(curves) < 4 else 2
    figure, axes = new_figure("training", "epoch", "", panels, (max(6.4, 3.4 * len(curves) / rows), 3.6 * rows), rows)
    variants = list(dict.fromkeys(table["variant"]))
    for panel, (phase, column) in zip(axes, curves, strict=True):
        epochs = table[(table["phase"] == phase) & table[column].notna()]
        for (variant, _), curve in epochs.groupby(["variant", "seed"], sort=False, dropna=False):
            look = series_style(variants.index(variant)) | THIN
            panel.plot(curve["epoch"], curve[column], label=short_name(variant), **look)
        integer_ticks(panel, epochs["epoch"])
    shared_legend(figure, axes)
    return figure


def autoencoder(run: Tables) -> Figure | None:
    """Draw by layer the norm of latents and the autoencoder's fraction of variance unexplained and squared error."""
    titles = {"norm": "mean norm of the latents", "unexplained": "fraction unexplained", "loss": "squared error"}
    quantities = [column for column in titles if run.autoencoder[column].notna().any()]
    if not quantities:
        return None
    panels = [titles[column] for column in quantities]
    figure, axes = new_figure("autoencoder by layer", "layer", "", panels, (3.3 * len(panels) + 0.6, 3.8))
    means = run.autoencoder.groupby(["variant", "plan", "view", "layer"], sort=False)[quantities].mean().reset_index()
    for index, ((variant, plan, view), rows) in enumerate(means.groupby(["variant", "plan", "view"], sort=False)):
        name = ", ".join(str(part) for part in (variant, plan, view) if part)
        for panel, column in zip(axes, quantities, strict=True):
            panel.plot(rows["layer"], rows[column], label=short_name(name), **series_style(index))
    for panel in axes:
        integer_ticks(panel, means["layer"])
        panel.set_ylim(bottom=0)
    shared_legend(figure, axes)
    return figure


def _bar_name(row: pd.Series, selected: str, several: bool) -> str:
    latents = f", {row['view']}" if row["view"] and row["variant"].startswith(UNTRAINED) else ""
    latents += f", layer {row['layer']:.0f}" if pd.notna(row["layer"]) else ""
    task = f", {row['task']}" if several else ""
    return short_name(f"{row['variant']}{latents}{task}") + (" (chosen)" if row["variant"] == selected else "")
