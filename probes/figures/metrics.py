"""Figures of a run, each drawn from its tables alone; a figure whose table is not there is None."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import UNTRAINED
from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    canvas,
    caption,
    legend,
    line,
    one_scale,
    seedless,
    style,
    whole_ticks,
)
from permafrost.probes.results.run_tables import Tables, first_seed

SPLITS = ("train", "validation", "test")

MOST_POINTS = 5000
"""Rows that are drawn; of more, this many by chance, the same ones each time."""

MOST_CLASSES = 20
"""A confusion matrix of more than this shows the most frequent."""


def by_layer(run: Tables) -> Figure | None:
    """The untrained reference over layers with its interval, a panel a split; the chosen variant as a line across."""
    rows = seedless(run.metrics)
    rows = rows[rows["metric"] == run.metric]
    raw = rows[rows["variant"].str.startswith(UNTRAINED) & rows["layer"].notna()]
    splits = [split for split in SPLITS if (raw["split"] == split).any()]
    if not splits or run.tasks:
        return None
    size = (6.4, 4.2) if len(splits) == 1 else (3.3 * len(splits) + 0.6, 4.0)
    figure, axes = canvas(f"{caption(run.metric)} by layer", "layer", caption(run.metric), splits, size)
    keys = list(dict.fromkeys(zip(raw["variant"], raw["view"], strict=True)))
    for index, key in enumerate(keys):
        mine = raw[(raw["variant"] == key[0]) & (raw["view"] == key[1])].sort_values("layer")
        for panel, split in zip(axes, splits, strict=True):
            part = mine[mine["split"] == split]
            line(panel, part["layer"], part, caption(f"{key[0]} cosine, {key[1]}"), style(index))
    chosen = rows[rows["variant"] == run.selected]
    for panel, split in zip(axes, splits, strict=True):
        for value in chosen.loc[chosen["split"] == split, "value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (4, 2)), label=f"{caption(run.selected)} (chosen)")
        whole_ticks(panel, raw["layer"])
    one_scale(axes)
    legend(figure, axes, len(splits) + 1)
    return figure


def ladder(run: Tables) -> Figure | None:
    """The last layer of the untrained reference and every variant as bars with intervals, in the recipe's order."""
    rows = seedless(run.metrics)
    rows = rows[(rows["split"] == run.split) & (rows["metric"] == run.metric)]
    if rows.empty or len(run.layers) or run.tasks:
        return None
    last = rows.groupby(["variant", "view"])["layer"].transform("max")
    rows = rows[rows["layer"].isna() | ~rows["variant"].str.startswith(UNTRAINED) | (rows["layer"] == last)]
    rows = rows[::-1]
    several = rows["task"].nunique() > 1
    figure, (axes,) = canvas(
        f"{caption(run.metric)} on {run.split}, 95 % interval", caption(run.metric), "",
        size=(6.4, max(1.8, 0.42 * len(rows) + 1.1)),
    )  # fmt: skip
    names = [_bar_name(row, run.selected, several) for _, row in rows.iterrows()]
    for place, (_, row) in enumerate(rows.iterrows()):
        raw, chosen = row["variant"].startswith(UNTRAINED), row["variant"] == run.selected
        axes.barh(place, row["value"], 0.62, color=GREY if raw else COLOURS[0], alpha=1 if chosen else 0.45)
        if pd.notna(row["low"]) and pd.notna(row["high"]):
            axes.plot([row["low"], row["high"]], [place, place], color="black", linewidth=1.2, marker="|")
        end = row["high"] if pd.notna(row["high"]) else row["value"]
        axes.annotate(
            f"{row['value']:.3f}", (max(end, 0), place), xytext=(6, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    return figure


def predicted_against_gold(run: Tables) -> Figure | None:
    """Scores against targets, one point a row of the first seed; None where there are no scores."""
    if run.kind != "score":
        return None
    rows = first_seed(run.predictions).dropna(subset=["target", "score"])
    if rows.empty:
        return None
    rows = rows.sample(min(len(rows), MOST_POINTS), random_state=0)
    figure, (axes,) = canvas("predicted against gold", "gold", "predicted", size=(5.2, 4.6))
    ends = [rows["target"].min(), rows["target"].max()]
    axes.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="predicted = gold")
    axes.scatter(rows["target"], rows["score"], s=10, alpha=0.4, color=COLOURS[0], linewidths=0, label="one row")
    legend(figure, [axes])
    return figure


def confusion(run: Tables) -> Figure | None:
    """Gold classes or tags against predicted ones, counts of the first seed; shades are shares of the gold one."""
    if run.kind not in ("class", "tags"):
        return None
    rows = first_seed(run.predictions)
    names = pd.concat([rows["target"], rows["label"]]).value_counts().index[:MOST_CLASSES].sort_values()
    what = "class"
    if run.kind == "tags":  # "O", then by type
        names, what = pd.Index(sorted(names, key=lambda name: (name[2:], name))), "tag"
    counts = pd.crosstab(rows["target"], rows["label"]).reindex(index=names, columns=names, fill_value=0)
    side = min(8.0, 2.2 + 0.55 * len(names))
    figure, (axes,) = canvas(f"gold {what} against predicted", "predicted", "gold", size=(max(side, 3.8), side))
    matrix(axes, counts)
    return figure


def matrix(axes: Axes, counts: pd.DataFrame) -> None:
    """Counts as a square of gold classes, by line, against predicted ones; shades are shares of the gold one."""
    table, names = counts.to_numpy(dtype=float), counts.index
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    for (row, column), count in np.ndenumerate(table):
        axes.bar(column, 0.96, 0.96, row - 0.48, color=COLOURS[0], alpha=0.04 + 0.56 * shares[row, column])
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center", fontsize=8 if len(names) < 12 else 6)
    shown = [caption(name, 14) for name in names]
    flat = len("".join(shown)) < 8 * len(names) < 48
    axes.set_xticks(range(len(names)), shown, rotation=0 if flat else 45, ha="center" if flat else "right")
    axes.set_yticks(range(len(names)), shown)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False)


def training(run: Tables) -> Figure | None:
    """Loss and validation metric by epoch, pretraining beside them; a variant has one look, its seeds a line each."""
    table = run.training
    wanted = [("pretraining", "loss"), ("pretraining", "value"), ("training", "loss"), ("training", "value")]
    drawn = [(phase, what) for phase, what in wanted if table.loc[table["phase"] == phase, what].notna().any()]
    if not drawn or run.tasks:
        return None
    names = {
        "pretraining": "larger is better, on held-out texts",
        "training": f"{caption(run.metric)} on {run.selection}",
    }
    panels = [f"{phase}: {'loss' if what == 'loss' else names[phase]}" for phase, what in drawn]
    rows = 1 if len(drawn) < 4 else 2
    figure, axes = canvas("training", "epoch", "", panels, (max(6.4, 3.4 * len(drawn) / rows), 3.6 * rows), rows)
    variants = list(dict.fromkeys(table["variant"]))
    for panel, (phase, what) in zip(axes, drawn, strict=True):
        part = table[(table["phase"] == phase) & table[what].notna()]
        for (variant, _), one in part.groupby(["variant", "seed"], sort=False, dropna=False):
            panel.plot(one["epoch"], one[what], label=caption(variant), **style(variants.index(variant)) | THIN)
        whole_ticks(panel, part["epoch"])
    legend(figure, axes)
    return figure


THIN = {"markersize": 3, "linewidth": 1.2}


def autoencoder(run: Tables) -> Figure | None:
    """By layer: the latents' norm, the fraction of variance the autoencoder leaves unexplained, its squared error."""
    wanted = {"norm": "mean norm of the latents", "unexplained": "fraction unexplained", "loss": "squared error"}
    drawn = [what for what in wanted if run.autoencoder[what].notna().any()]
    if not drawn:
        return None
    figure, axes = canvas(
        "autoencoder by layer", "layer", "", [wanted[what] for what in drawn], (3.3 * len(drawn) + 0.6, 3.8)
    )
    means = run.autoencoder.groupby(["variant", "plan", "view", "layer"], sort=False)[drawn].mean().reset_index()
    for index, ((variant, plan, view), rows) in enumerate(means.groupby(["variant", "plan", "view"], sort=False)):
        name = ", ".join(str(part) for part in (variant, plan, view) if part)
        for panel, what in zip(axes, drawn, strict=True):
            panel.plot(rows["layer"], rows[what], label=caption(name), **style(index))
    for panel in axes:
        whole_ticks(panel, means["layer"])
        panel.set_ylim(bottom=0)
    legend(figure, axes)
    return figure


def _bar_name(row: pd.Series, selected: str, several: bool) -> str:
    place = f", {row['view']}" if row["view"] and row["variant"].startswith(UNTRAINED) else ""
    place += f", layer {row['layer']:.0f}" if pd.notna(row["layer"]) else ""
    task = f", {row['task']}" if several else ""
    return caption(f"{row['variant']}{place}{task}") + (" (chosen)" if row["variant"] == selected else "")
