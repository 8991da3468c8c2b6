"""Every task by every layer of one backbone: a map of all tasks, a panel a task with its controls, and tables."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import COLOURS, canvas, caption, legend, line, style, whole_ticks
from permafrost.probes.results.run_tables import Tables, scored

MOST_TASKS = 24

MOST_LAYERS = 64

TOGETHER = "all layers"


def layer_map(run: Tables) -> Figure | None:
    """Tasks down, layers across: the value in each cell, darker the higher it stands among its task's."""
    rows = rows_of(run)
    rows = rows[(rows["control"] == "") & rows["scored"]]
    layers = sorted(rows["layer"].dropna().unique())[:MOST_LAYERS]
    if not layers:
        return None
    together = bool(rows["layer"].isna().any())
    heads = [f"{layer:g}" for layer in layers] + ["all"] * together
    tasks = list(dict.fromkeys(rows["name"]))
    size = (max(6.4, 0.5 * len(heads) + 2.2), max(2.0, 0.5 * len(tasks) + 1.2))
    figure, (axes,) = canvas("every task by layer", "layer", "", size=size)
    for down, task in enumerate(tasks):
        part = rows[rows["name"] == task].drop_duplicates("layer")
        by_layer = part.dropna(subset="layer").set_index("layer")["value"].reindex(layers).tolist()
        whole = part.loc[part["layer"].isna(), "value"].tolist() or [np.nan]
        values = np.array(by_layer + whole * together)
        low, high = np.nanmin(values), np.nanmax(values)
        for across in np.flatnonzero(np.isfinite(values)).tolist():
            share = (values[across] - low) / (high - low) if high > low else 0.5
            axes.bar(across, 0.94, 0.96, down - 0.47, color=COLOURS[0], alpha=0.04 + 0.56 * share)
            axes.text(across, down, f"{values[across]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7.5)
    axes.set_xticks(range(len(heads)), heads)
    axes.set_yticks(range(len(tasks)), [caption(task, 40) for task in tasks])
    axes.set(xlim=(-0.5, len(heads) - 0.5), ylim=(len(tasks) - 0.5, -0.5))
    axes.grid(visible=False)
    return figure


def layer_curves(run: Tables) -> Figure | None:
    """A panel a task: its metric by layer with the interval, controls dashed, all layers together as a line across."""
    rows = rows_of(run)
    tasks = list(dict.fromkeys(rows.loc[rows["layer"].notna(), "name"]))
    if not tasks:
        return None
    across = min(3, len(tasks))
    down = -(-len(tasks) // across)
    figure, axes = canvas(
        "by layer, with controls", "layer", "", [caption(task, 34) for task in tasks],
        (max(5.2, 3.3 * across + 0.4), 2.9 * down + 0.8), down,
    )  # fmt: skip
    curves = list(dict.fromkeys(zip(~rows["scored"], rows["control"], strict=True)))
    for panel, task in zip(axes, tasks, strict=True):
        mine = rows[rows["name"] == task]
        for index, (on_train, control) in enumerate(sorted(curves)[:6]):
            part = mine[(mine["control"] == control) & (mine["scored"] != on_train) & mine["layer"].notna()]
            look = style(index) | {"linestyle": (0, (4, 2)) if control else "-"}
            if len(part):
                name = (caption(control) if control else "trained backbone") + (", on train" if on_train else "")
                line(panel, part.sort_values("layer")["layer"], part.sort_values("layer"), name, look)
        together = mine[mine["layer"].isna() & (mine["control"] == "") & mine["scored"]]
        for value in together["value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (1.5, 1.2)), linewidth=1, label=f"{TOGETHER} together")
        whole_ticks(panel, mine["layer"])
    legend(figure, axes)
    return figure


def rows_of(run: Tables) -> pd.DataFrame:
    """What is drawn of each task: the metric that comes first, on the split that is scored and on train.

    Returns:
        these lines, with a ``name`` of the task to show, and whether each is ``scored`` or on train.
    """
    rows = run.layers[run.layers["value"].notna()]
    kept = [rows.iloc[:0].assign(name="", scored=False)]
    for (task, corpus), part in list(rows.groupby(["task", "corpus"], sort=False))[:MOST_TASKS]:
        metric = part["metric"].iloc[0]
        part = part[part["metric"] == metric]
        several = rows.loc[rows["task"] == task, "corpus"].nunique() > 1
        name = f"{task}, {corpus}, {metric}" if several else f"{task}, {metric}"
        part = part.assign(name=name, scored=part["split"] == scored(part))
        kept.append(part[part["scored"] | (part["split"] == "train")])
    return pd.concat(kept[1:] or kept)
