"""What every variant makes of the classes of a task: precision, recall and F1 in tables, and a confusion matrix."""

from matplotlib.figure import Figure

from permafrost.probes.figures.metrics import matrix
from permafrost.probes.figures.multitask import MOST_PANELS, in_order, panels_size, told_apart
from permafrost.probes.figures.style import canvas
from permafrost.probes.results.run_tables import Tables

FIGURES = {"precision": "precision", "recall": "recall", "f1": "F1"}

MOST_CLASSES = 6
"""Of which confusion matrices stand side by side; larger ones would be too small to be read."""


def confusions(run: Tables) -> Figure | None:
    """A panel a variant: gold classes against predicted ones; None of one variant, or of many classes."""
    rows = run.confusion[run.confusion["n"].notna()]
    names = in_order(run, rows["variant"])[:MOST_PANELS]
    classes = sorted({*rows["target"], *rows["label"]})
    if len(names) < 2 or len(classes) > MOST_CLASSES:
        return None
    side = 0.7 + 0.4 * len(classes)
    size, down = panels_size(len(names), side, side + 0.6, 0.9)
    titles = told_apart(names, 6 * len(classes))
    figure, axes = canvas("gold class (down) against predicted (across)", "", "", titles, size, down)
    across = -(-len(names) // down)
    for place, (panel, name) in enumerate(zip(axes, names, strict=True)):
        table = rows[rows["variant"] == name].pivot_table("n", "target", "label", "sum", 0)
        matrix(panel, table.reindex(index=classes, columns=classes, fill_value=0))
        panel.set_xticks(range(len(classes)), told_apart(classes, 14), rotation=45, ha="right")
        if place % across:
            panel.set_yticks(range(len(classes)), [""] * len(classes))
        panel.tick_params(labelsize=8)
    return figure
