"""Figures of a study: how the search went, what mattered, and whether reconstruction tells anything of the score."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import COLOURS, GREY, MARKERS, canvas, caption, legend, whole_ticks
from permafrost.probes.results.files import as_numbers
from permafrost.probes.results.run_tables import Tables


def history(run: Tables) -> Figure | None:
    """Trials in their order and the best so far; a pruned one is a cross at the last value it reported."""
    trials = run.trials.sort_values("number")
    done = trials[(trials["state"] == "COMPLETE") & trials["value"].notna()]
    pruned = _reached(trials[trials["state"] == "PRUNED"], run.intermediate)
    if done.empty and pruned.empty:
        return None
    figure, (axes,) = canvas("history of the study", "trial", caption(run.metric))
    best = done["value"].cummax()
    axes.scatter(done["number"], done["value"], s=22, color=COLOURS[0], label="finished")
    axes.scatter(pruned["number"], pruned["value"], s=26, color=COLOURS[1], marker="x", label="pruned")
    axes.step(done["number"], best, where="post", color="black", linewidth=1.4, label="best so far")
    whole_ticks(axes, trials["number"])
    legend(figure, [axes])
    return figure


def intermediate(run: Tables) -> Figure | None:
    """What every trial reported at every step; the best one in front."""
    if run.intermediate["value"].notna().sum() == 0:
        return None
    figure, (axes,) = canvas("reported while training", "step", caption(run.metric))
    done = run.trials[(run.trials["state"] == "COMPLETE") & run.trials["value"].notna()].set_index("number")["value"]
    best = None if done.empty else done.idxmax()
    states = run.trials.drop_duplicates("number").set_index("number")["state"]
    for number, rows in run.intermediate.groupby("trial"):
        first = number == best
        other = "pruned" if states.get(number) == "PRUNED" else "other trials"
        axes.plot(
            rows["step"], rows["value"], color=COLOURS[0] if first else GREY, alpha=1 if first else 0.6,
            linewidth=2 if first else 0.9, marker="o" if first else None, markersize=3, zorder=3 if first else 1,
            linestyle="--" if other == "pruned" else "-", label=f"best, trial {number:.0f}" if first else other,
        )  # fmt: skip
    whole_ticks(axes, run.intermediate["step"])
    legend(figure, [axes])
    return figure


def importances(run: Tables) -> Figure | None:
    """How much of the spread of the trials' values each searched setting accounts for."""
    rows = run.importances.dropna(subset=["importance"]).sort_values("importance")
    if rows.empty:
        return None
    figure, (axes,) = canvas(
        "importance of the searched settings", "importance", "", size=(6.4, max(1.8, 0.36 * len(rows) + 1.1))
    )
    axes.barh(np.arange(len(rows)), rows["importance"], 0.62, color=COLOURS[0])
    axes.set_yticks(range(len(rows)), [caption(name) for name in rows["parameter"]])
    axes.grid(visible=False, axis="y")
    return figure


def unexplained(run: Tables) -> Figure | None:
    """The autoencoder's fraction unexplained against the score of the probe on its codes, one point a trial."""
    column = next((str(name) for name in run.trials if str(name).endswith("unexplained")), None)
    if column is None:
        return None
    points = pd.DataFrame({"x": as_numbers(run.trials[column]), "y": run.trials["value"]}).dropna()
    if points.empty:
        return None
    figure, (axes,) = canvas(
        "reconstruction against the score", "fraction of variance unexplained (left is better)", caption(run.metric)
    )
    axes.scatter(points["x"], points["y"], s=26, color=COLOURS[2], marker=MARKERS[2], alpha=0.8)
    return figure


def _reached(pruned: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    last = steps.dropna(subset=["value"]).sort_values("step").groupby("trial")["value"].last()
    return pruned.assign(value=pruned["value"].fillna(pruned["number"].map(last))).dropna(subset=["value"])
