"""Figures of the metrics of variants: by layer of the untrained reference, and side by side, a panel per task.

Also the order and the short names in which figures and tables show variants. Each figure is drawn from the tables of
the run alone; a figure whose table is empty is None.
"""

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permafrost.probes.config.names import UNTRAINED
from permafrost.probes.figures.style import (
    COLOURS,
    GREY,
    integer_ticks,
    new_figure,
    plot_with_band,
    series_style,
    share_y_limits,
    shared_legend,
    short_name,
)
from permafrost.probes.results.formatting import metric_title
from permafrost.probes.results.run_tables import Tables

SPLITS = ("train", "validation", "test")

MOST_PANELS = 12

LEAST_ASPECT = 1.42
"""Least width over height of a figure of several panels; on a narrow screen the page then scrolls it."""


def by_layer(run: Tables) -> Figure | None:
    """Draw the untrained reference by layer with its interval, a panel per split, and the chosen variant as a line."""
    rows = run.means
    rows = rows[rows["metric"] == run.metric]
    untrained = rows[
        rows["variant"].str.startswith(UNTRAINED) & rows["layer"].notna() & (rows["variant"] != run.selected)
    ]
    splits = [split for split in SPLITS if (untrained["split"] == split).any()]
    if not splits or run.tasks:
        return None
    size = (6.4, 4.2) if len(splits) == 1 else (3.3 * len(splits) + 0.6, 4.0)
    figure, axes = new_figure(f"{short_name(run.metric)} by layer", "layer", short_name(run.metric), splits, size)
    for index, ((variant, view), curves) in enumerate(untrained.groupby(["variant", "view"], sort=False)):
        name = short_name(f"{variant} cosine, {view}")
        for panel, split in zip(axes, splits, strict=True):
            curve = curves[curves["split"] == split].sort_values("layer")
            plot_with_band(panel, curve["layer"], curve, name, series_style(index))
    chosen = rows[rows["variant"] == run.selected]
    for panel, split in zip(axes, splits, strict=True):
        for value in chosen.loc[chosen["split"] == split, "value"].head(1):
            panel.axhline(value, color="black", linestyle=(0, (4, 2)), label=f"{short_name(run.selected)} (chosen)")
        integer_ticks(panel, untrained["layer"])
    share_y_limits(axes)
    shared_legend(figure, axes, len(splits) + 1)
    return figure


def variants(run: Tables) -> Figure | None:
    """Draw the selection metric with its interval, a panel per task, a point per variant; the chosen one is filled.

    Of the untrained reference the last layer of each view is drawn. A single panel shows the values as numbers too.
    """
    rows_of_task = {task: selection_rows(run, task) for task in run.task_names or [""]}
    tasks = [task for task, rows in rows_of_task.items() if len(rows)][:MOST_PANELS]
    if not tasks:
        return None
    names = in_recipe_order(run, pd.concat([rows_of_task[task] for task in tasks])["name"])
    firsts = {task: rows_of_task[task].iloc[0] for task in tasks}
    measured = {task: f"{metric_title(row['metric'])} on {row['split']}" for task, row in firsts.items()}
    titles = panel_titles([[task, title] if task else [title] for task, title in measured.items()])
    left = 0.4 + 0.075 * min(30, max(map(len, names)))
    width = 2.6 if len(tasks) > 1 else 3.6
    size, down = panels_layout(len(tasks), width, 0.25 * len(names) + 0.75, left)
    figure, axes = new_figure("variants, with 95 % intervals", "", "", titles, size, down)
    across = -(-len(tasks) // down)
    for index, (panel, task) in enumerate(zip(axes, tasks, strict=True)):
        for _, row in rows_of_task[task].iterrows():
            _point(panel, row, names.index(row["name"]), row["variant"] == run.selected, len(tasks) == 1)
        labels = distinct_names(names, 30) if index % across == 0 else [""] * len(names)
        panel.set_yticks(range(len(names)), labels, fontsize=9)
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.1)
        panel.locator_params(axis="x", nbins=4)
        panel.tick_params(axis="x", labelsize=9)
    return figure


def selection_rows(run: Tables, task: str) -> pd.DataFrame:
    """Return the selection metric of a task on its scored split, a row per variant; the last layer if untrained.

    Args:
        task: empty for a run of one task, in which the untrained reference has a row per view.

    Returns:
        rows of ``metrics.csv`` with one more column: ``name``, the variant, with its view if there are several.
    """
    tables = run.for_task(task)
    rows = tables.means
    rows = rows[(rows["split"] == tables.split) & (rows["metric"] == tables.metric)]
    by_view = ["variant"] if task else ["variant", "view"]
    rows = rows.sort_values("layer", kind="stable").drop_duplicates(by_view, keep="last").sort_index()
    several = rows["variant"].duplicated(keep=False)
    return rows.assign(name=rows["variant"].where(~several, rows["variant"] + ", " + rows["view"]))


def in_recipe_order(run: Tables, names: Iterable[str]) -> list[str]:
    """Return distinct variants in the order of the recipe, after those that the recipe does not have."""
    order = {name: index for index, name in enumerate(run.counts["variant"].unique())}
    return sorted(dict.fromkeys(names), key=lambda name: order.get(name, -1))


def sorted_by_variant(run: Tables, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the variants in the order of the recipe, else as they were."""
    names = in_recipe_order(run, rows["variant"])
    return rows.sort_values("variant", key=lambda column: column.map(names.index), kind="stable")


def _point(panel: Axes, row: pd.Series, height: int, chosen: bool, with_value: bool) -> None:
    colour = GREY if row["variant"].startswith(UNTRAINED) else COLOURS[0]
    end = row["value"]
    if pd.notna(row["low"]) and pd.notna(row["high"]):
        panel.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=1.6)
        end = row["high"]
    face = colour if chosen else "none"
    panel.plot([row["value"]], [height], "o", color=colour, markerfacecolor=face, markersize=6, markeredgewidth=1.6)
    if with_value:
        panel.annotate(
            f"{row['value']:.3f}", (end, height), xytext=(6, 0), textcoords="offset points", va="center", size=8
        )


def panels_layout(panels: int, width: float, height: float, left: float) -> tuple[tuple[float, float], int]:
    """Return the size in inches of a figure of panels, and the number of their rows.

    Args:
        panels: number of panels.
        width: inches of a panel, and its ``height``.
        left: inches for the names beside each row of panels.
    """
    for across in range(min(2, panels), panels + 1):
        down = -(-panels // across)
        columns = -(-panels // down)  # as many as stand in a row
        size = (left + width * columns + (1.0 if panels == 1 else 0.0), 0.9 + height * down)
        if size[0] >= LEAST_ASPECT * size[1]:
            break
    return size, down


def distinct_names(names: Sequence[str], longest: int) -> list[str]:
    """Return names as a figure can print them; names that are equal once shortened are numbered from the second on."""
    short = [short_name(name, longest) for name in names]
    earlier = [short[:index].count(name) for index, name in enumerate(short)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(short, earlier, strict=True)]


def panel_titles(titles: Sequence[Sequence[str]]) -> list[str]:
    """Return titles from their parts, a task or variant and a quantity; on two lines if one is too long for any."""
    shown = [[short_name(part, 28) for part in parts] for parts in titles]
    long = any(len(", ".join(parts)) > 26 for parts in shown)
    return [("\n" if long else ", ").join(parts) for parts in shown]
