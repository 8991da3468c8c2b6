"""Figures of a study: trials in order, values while training, importances, reconstruction against the score."""

import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    MARKERS,
    bars_with_intervals,
    integer_ticks,
    new_figure,
    shared_legend,
    short_name,
)
from permafrost.probes.results.files import as_numbers
from permafrost.probes.results.run_tables import Tables


def history(run: Tables) -> Figure | None:
    """Draw trials in order and the best value so far; a pruned trial is a cross at the last value that it reported."""
    trials = run["trials"].sort_values("number")
    done = trials[(trials["state"] == "COMPLETE") & trials["value"].notna()]
    steps = run["intermediate"].dropna(subset=["value"]).sort_values("step")
    pruned = trials[trials["state"] == "PRUNED"]
    last_values = pruned["number"].map(steps.groupby("trial")["value"].last())
    pruned = pruned.assign(value=pruned["value"].fillna(last_values)).dropna(subset=["value"])
    if done.empty and pruned.empty:
        return None
    figure, (axes,) = new_figure("history of the study", "trial", short_name(run.metric))
    best = done["value"].cummax()
    axes.scatter(done["number"], done["value"], s=22, color=COLOURS[0], label="finished")
    axes.scatter(pruned["number"], pruned["value"], s=26, color=COLOURS[1], marker="x", label="pruned")
    axes.step(done["number"], best, where="post", color="black", linewidth=1.4, label="best so far")
    integer_ticks(axes, trials["number"])
    shared_legend(figure, [axes])
    return figure


def intermediate(run: Tables) -> Figure | None:
    """Draw the values that every trial reported at each step, the best trial in front."""
    if run["intermediate"]["value"].notna().sum() == 0:
        return None
    figure, (axes,) = new_figure("reported while training", "step", short_name(run.metric))
    trials = run["trials"].set_index("number")
    done = trials.loc[trials["state"] == "COMPLETE", "value"].dropna()
    best = None if done.empty else done.idxmax()
    pruned = set(trials.index[trials["state"] == "PRUNED"])
    for number, rows in run["intermediate"].groupby("trial"):
        is_best = number == best
        other = "pruned" if number in pruned else "other trials"
        axes.plot(
            rows["step"], rows["value"], color=COLOURS[0] if is_best else GREY, alpha=1 if is_best else 0.6,
            linewidth=2 if is_best else 0.9, marker="o" if is_best else None, markersize=3,
            zorder=3 if is_best else 1, linestyle="--" if other == "pruned" else "-",
            label=f"best, trial {number:.0f}" if is_best else other,
        )  # fmt: skip
    integer_ticks(axes, run["intermediate"]["step"])
    shared_legend(figure, [axes])
    return figure


def importances(run: Tables) -> Figure | None:
    """Draw the importance of each searched setting: how much of the spread of the trials' values it accounts for."""
    rows = run["importances"].dropna(subset=["importance"]).sort_values("importance", ascending=False)
    if rows.empty:
        return None
    figure, (axes,) = new_figure(
        "importance of the searched settings", "importance", "", size=(6.4, max(1.8, 0.36 * len(rows) + 1.1))
    )
    bars = rows.assign(value=rows["importance"], low=float("nan"), high=float("nan"))
    bars_with_intervals(axes, bars, [short_name(name) for name in rows["parameter"]])
    return figure


def unexplained(run: Tables) -> Figure | None:
    """Draw the score of each trial against the fraction of variance that its autoencoder leaves unexplained."""
    column = next((str(name) for name in run["trials"] if str(name).endswith("unexplained")), None)
    if column is None:
        return None
    points = pd.DataFrame({"x": as_numbers(run["trials"][column]), "y": run["trials"]["value"]}).dropna()
    if points.empty:
        return None
    figure, (axes,) = new_figure(
        "reconstruction against the score", "fraction of variance unexplained (left is better)", short_name(run.metric)
    )
    axes.scatter(points["x"], points["y"], s=26, color=COLOURS[2], marker=MARKERS[2], alpha=0.8)
    return figure
