"""Confusion matrices of all variants of a task, side by side."""

from matplotlib.figure import Figure

from permafrost.probes.figures.metrics import matrix
from permafrost.probes.figures.multitask import MOST_PANELS, distinct_names, in_recipe_order, panels_layout
from permafrost.probes.figures.style import new_figure
from permafrost.probes.results.run_tables import Tables

CLASS_METRICS = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Metrics of a class -> what tables call them."""

MOST_CLASSES = 6
"""Number of classes up to which confusion matrices are drawn; with more their cells would be unreadable."""


def confusions(run: Tables) -> Figure | None:
    """Draw gold classes against predicted ones, a panel per variant; None for one variant or for many classes."""
    rows = run.confusion[run.confusion["n"].notna()]
    names = in_recipe_order(run, rows["variant"])[:MOST_PANELS]
    classes = sorted({*rows["target"], *rows["label"]})
    if len(names) < 2 or len(classes) > MOST_CLASSES:
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
