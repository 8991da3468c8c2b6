"""Figures of a run that trains several tasks: its variants, and how they learnt, a panel for each task."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import UNTRAINED
from permafrost.probes.figures.style import COLOURS, GREY, canvas, caption, legend, seedless, style, whole_ticks
from permafrost.probes.results.run_tables import Tables

MOST_PANELS = 12

MOST_LINES = 14
"""Variants, or pairs of tasks, that are drawn: no two of so many look alike."""

WIDE = 1.42
"""How much wider than high a figure of several panels is at least; a narrow screen then lets it be scrolled."""

SECOND = ("f1", "macro_f1", "accuracy", "exact_match")
"""What is followed beside the metric that chooses: the first of these that was measured, or else any other."""

MOVED = 1e-6
"""A weight that changes by less has not moved."""


def variants(run: Tables) -> Figure | None:
    """A panel a task: the metric that chooses, a row a variant, with its interval; what was chosen is filled."""
    of = {task: measured(run, task) for task in run.task_names}
    tasks = [task for task, rows in of.items() if len(rows)][:MOST_PANELS]
    if not tasks:
        return None
    names = in_order(run, pd.concat([of[task] for task in tasks])["variant"])
    titles = _titles([(task, _told(of[task])) for task in tasks])
    left = 0.4 + 0.075 * min(30, max(map(len, names)))
    size, down = panels_size(len(tasks), 2.6, 0.25 * len(names) + 0.75, left)
    figure, axes = canvas("variants, with 95 % intervals", "", "", titles, size, down)
    across = -(-len(tasks) // down)
    for place, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        for _, row in of[task].iterrows():
            _point(panel, row, names.index(row["variant"]), row["variant"] == run.for_task(task).selected)
        shown = told_apart(names, 30) if place % across == 0 else [""] * len(names)
        panel.set_yticks(range(len(names)), shown, fontsize=9)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.1)
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(axis="x", labelsize=9)
    return figure


def losses(run: Tables) -> Figure | None:
    """A panel a task: mean training loss by epoch, before any weight."""
    rows = _training(run, "loss")
    tasks = {(task,): rows[rows["task"] == task] for task in _named(rows["task"])}
    return _curves(run, "loss by epoch, on train", tasks, "loss")


def by_epoch(run: Tables) -> Figure | None:
    """A panel a task: the metric that chooses by epoch, 0 before training."""
    return _metric(run, 0)


def by_epoch_second(run: Tables) -> Figure | None:
    """The same of a second metric."""
    return _metric(run, 1)


def weights(run: Tables) -> Figure | None:
    """A panel a variant whose balancer moves them: the mean weight of each task's loss by epoch."""
    rows = _training(run, "weight")
    panels: dict[tuple[str, ...], pd.DataFrame] = {}
    for variant, part in rows.groupby("variant", sort=False):
        means = part.groupby(["task", "epoch"])["weight"].mean().groupby("task")
        if (means.max() - means.min() > MOVED).any():
            panels[(str(variant),)] = part
    figure = _curves(run, "weight of each task's loss by epoch", panels, "weight", "task")
    for panel, part in zip(figure.axes if figure else [], panels.values(), strict=False):
        if part["weight"].min() > 0 and part["weight"].max() > 20 * part["weight"].min():
            panel.set_yscale("log")
    return figure


def conflicts(run: Tables) -> Figure | None:
    """Two panels a variant: the cosine of the gradients of two tasks by epoch, and how often it was below 0."""
    table = run.conflicts
    tasks = _named(pd.concat([table["first"], table["second"]]))
    cut = dict(zip(tasks, told_apart(tasks, 18), strict=True))
    rows = table.assign(pair=[f"{cut.get(a, a)} and {cut.get(b, b)}" for a, b in table[["first", "second"]].to_numpy()])
    panels = {
        (str(variant), what): part.rename(columns={column: "shown"})
        for variant, part in list(rows.groupby("variant", sort=False))[: MOST_PANELS // 2]
        for column, what in (("cosine", "mean cosine"), ("conflict", "share of steps below 0"))
        if part[column].notna().any()
    }
    figure = _curves(run, "gradients of two tasks by epoch", panels, "shown", "pair")
    for panel, (_, what) in zip(figure.axes if figure else [], panels, strict=True):
        low, high = panel.get_ylim()
        if what == "mean cosine":
            panel.set_ylim(min(low, -0.05), max(high, 0.05))
            panel.axhline(0, color=GREY, linewidth=1, linestyle="--")
        else:
            panel.set_ylim(-0.03, max(1.03, high))
    return figure


def measured(run: Tables, task: str) -> pd.DataFrame:
    """The metric that chooses on the scored split, a row a variant; of what is untrained the last layer."""
    one = run.for_task(task)
    rows = seedless(one.metrics)
    rows = rows[(rows["split"] == one.split) & (rows["metric"] == one.metric)]
    return rows.sort_values("layer", kind="stable").drop_duplicates("variant", keep="last").sort_index()


def in_order(run: Tables, names: Iterable[str]) -> list[str]:
    """Different variants in the order of the recipe, behind those that are none of its own."""
    places = {name: place for place, name in enumerate(run.variants["variant"])}
    return sorted(dict.fromkeys(names), key=lambda name: places.get(name, -1))


def plain_metric(metric: object) -> str:
    """A metric as people write it."""
    return {"f1": "F1", "macro_f1": "macro F1"}.get(str(metric), str(metric).replace("_", " "))


def alone(run: Tables, task: str) -> Tables:
    """What belongs to a task; of a run of one task, all."""
    return run.for_task(task) if run.tasks else run


def followed(run: Tables) -> dict[str, list[str]]:
    """Task -> the metrics that are followed by epoch: the one that chooses, and a second."""
    rows = run.epochs[run.epochs["value"].notna()]
    found = {}
    for task in _named(rows["task"]):
        known = list(dict.fromkeys(rows.loc[rows["task"] == task, "metric"]))
        first = alone(run, task).metric
        known.sort(key=lambda metric: SECOND.index(metric) if metric in SECOND else len(SECOND))
        found[task] = [*(name for name in known if name == first), *(name for name in known if name != first)][:2]
    return found


def _metric(run: Tables, place: int) -> Figure | None:
    chosen = {task: names[place] for task, names in followed(run).items() if len(names) > place}
    panels = {
        (task, plain_metric(metric)): run.epochs[(run.epochs["task"] == task) & (run.epochs["metric"] == metric)]
        for task, metric in chosen.items()
    }
    splits = dict.fromkeys(alone(run, task).selection for task in chosen)
    return _curves(run, f"on {' or '.join(splits)} by epoch, 0 before training", panels, "value")


def _curves(
    run: Tables, title: str, panels: dict[Any, pd.DataFrame], column: str, of: str = "variant"
) -> Figure | None:
    """A line for every ``of``: the mean over seeds by epoch, in a band from the lowest to the highest of them."""
    panels = dict(list(panels.items())[:MOST_PANELS])
    named = _named(name for part in panels.values() for name in part[of])
    if not named:
        return None
    every = in_order(run, [*run.variants["variant"], *named]) if of == "variant" else named
    places = [place for place, name in enumerate(every) if name in named][:MOST_LINES]
    names = [every[place] for place in places]
    size, down = panels_size(len(panels), 3.9, 2.25, 0.0)
    figure, axes = canvas(title, "epoch", "", _titles(list(panels)), size, down)
    looks = [style(index) | {"markersize": 3, "linewidth": 1.3} for index in places]  # a variant's in every figure
    shown = told_apart(names, 45)
    for name, look in zip(shown, looks, strict=True):  # the legend has them in order, whatever panel they are in
        axes[0].plot([], [], label=name, **look)
    for panel, part in zip(axes, panels.values(), strict=True):
        for name, look in zip(names, looks, strict=True):
            mine = part[(part[of] == name) & part[column].notna()].groupby("epoch")[column]
            if not len(mine):
                continue
            panel.plot(mine.mean().index, mine.mean(), **look)
            if mine.size().max() > 1:
                panel.fill_between(mine.mean().index, mine.min(), mine.max(), color=look["color"], alpha=0.12, lw=0)
        whole_ticks(panel, part["epoch"])
        panel.tick_params(labelsize=9)
        panel.set_xlabel("epoch", fontsize=9)
    legend(figure, axes, max(1, int(size[0] / (0.75 + 0.068 * max(map(len, shown))))))
    return figure


def _point(panel: Axes, row: pd.Series, place: int, chosen: bool) -> None:
    colour = GREY if row["variant"].startswith(UNTRAINED) else COLOURS[0]
    if pd.notna(row["low"]) and pd.notna(row["high"]):
        panel.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.6)
    face = colour if chosen else "none"
    panel.plot([row["value"]], [place], "o", color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.6)


def panels_size(panels: int, width: float, height: float, left: float) -> tuple[tuple[float, float], int]:
    """Inches of a figure of panels, ``left`` for names beside each row of them, and how many rows there are."""
    for across in range(min(2, panels), panels + 1):
        down = -(-panels // across)
        columns = -(-panels // down)  # as many as stand in a row
        size = (left + width * columns + (1.0 if panels == 1 else 0.0), 0.9 + height * down)
        if size[0] >= WIDE * size[1]:
            break
    return size, down


def told_apart(names: Sequence[str], longest: int) -> list[str]:
    """Names as a figure can print them; of those that are alike once cut, all but the first are numbered."""
    cut = [caption(name, longest) for name in names]
    alike = [cut[:place].count(name) for place, name in enumerate(cut)]
    return [f"{name} ({before + 1})" if before else name for name, before in zip(cut, alike, strict=True)]


def _titles(names: Sequence[Sequence[str]]) -> list[str]:
    """A task, or a variant, and what is shown of it; in two lines where one is too long for any of them."""
    shown = [[caption(part, 28) for part in parts] for parts in names]
    long = any(len(", ".join(parts)) > 26 for parts in shown)
    return [("\n" if long else ", ").join(parts) for parts in shown]


def _told(rows: pd.DataFrame) -> str:
    return f"{plain_metric(rows['metric'].iloc[0])} on {rows['split'].iloc[0]}"


def _named(names: Iterable[Any]) -> list[str]:
    """Different names in the order in which they come."""
    return [str(name) for name in dict.fromkeys(names) if name]


def _training(run: Tables, column: str) -> pd.DataFrame:
    """What says of which task it is; nothing in a run of one task."""
    rows = run.training if run.tasks else run.training.iloc[:0]
    return rows[(rows["phase"] == "training") & (rows["task"] != "") & rows[column].notna()]
