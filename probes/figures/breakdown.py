"""The breakdown of a run by class, type of entity, pattern and question word: a figure of bars and tables for each."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import COLOURS, canvas, caption
from permafrost.probes.results.run_tables import Tables, scored

MOST_GROUPS = 25
"""Groups that are drawn and tabled, those of most rows."""


def by_class(run: Tables) -> Figure | None:
    """Precision, recall and F1 of each class."""
    return _bars(run, "class")


def by_entity_type(run: Tables) -> Figure | None:
    """Precision, recall and F1 of each type of entity."""
    return _bars(run, "entity type")


def by_pattern(run: Tables) -> Figure | None:
    """Accuracy of rows with and without a pattern, and their share of the mistakes."""
    return _bars(run, "pattern")


def by_question_word(run: Tables) -> Figure | None:
    """Exact match and F1 by question word."""
    return _bars(run, "question word")


def _bars(run: Tables, kind: str) -> Figure | None:
    rows = run.breakdown[(run.breakdown["kind"] == kind) & run.breakdown["value"].notna()]
    rows = rows[rows["split"] == scored(rows)]
    if rows.empty:
        return None
    groups, metrics = largest_groups(rows), metrics_of(rows)
    size = (max(6.4, 2.3 * len(metrics) + 1.8), max(1.9, 0.4 * len(groups) + 1.2))
    names = [caption(metric.replace("_", " ")) for metric in metrics]
    title = f"by {kind}, on {caption(scored(rows))}, 95 % interval"
    figure, axes = canvas(title, "", "", names, size)
    for index, (panel, metric) in enumerate(zip(axes, metrics, strict=True)):
        part = rows[rows["metric"] == metric].drop_duplicates("group").set_index("group").reindex(groups)
        places = np.arange(len(groups))
        panel.barh(places, part["value"], 0.62, color=COLOURS[0], alpha=0.45)
        for place, low, high in zip(places, part["low"], part["high"], strict=True):
            if pd.notna(low) and pd.notna(high):
                panel.plot([low, high], [place, place], color="black", linewidth=1.2, marker="|")
        panel.set(xlim=(0, max(1.0, float(part[["value", "high"]].max().max()))), ylim=(len(groups) - 0.5, -0.5))
        panel.set_yticks(places, [caption(group, 24) for group in groups] if index == 0 else [""] * len(groups))
        panel.grid(visible=False, axis="y")
    return figure


def largest_groups(rows: pd.DataFrame) -> list[str]:
    """In the order of the table; of too many, those of most rows."""
    counts = rows.groupby("group", sort=False)["n"].max()
    kept = set(counts.fillna(0).nlargest(MOST_GROUPS).index)
    return [group for group in counts.index if group in kept]


def metrics_of(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["metric"]))[:5]
