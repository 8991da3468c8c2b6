"""Figures of a breakdown: metrics by class, by label, by entity type, by pattern and by question word, as bars."""

import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import bars_with_intervals, new_figure, short_name
from permafrost.probes.results.run_tables import Tables, reported_split

MOST_GROUPS = 25
"""Groups that figures and tables show; if there are more, those with the most rows."""


def group_bars(run: Tables, kind: str) -> Figure | None:
    """Draw the metrics of each group of one kind as bars, a panel per metric."""
    rows = run["breakdown"]
    rows = rows[(rows["kind"] == kind) & rows["value"].notna()]
    rows = rows[rows["split"] == reported_split(rows)]
    if rows.empty:
        return None
    groups, metrics = largest_groups(rows), shown_metrics(rows)
    size = (max(6.4, 2.3 * len(metrics) + 1.8), max(1.9, 0.4 * len(groups) + 1.2))
    names = [short_name(metric.replace("_", " ")) for metric in metrics]
    title = f"by {kind}, on {short_name(reported_split(rows))}, 95 % interval"
    figure, axes = new_figure(title, "", "", names, size)
    for index, (panel, metric) in enumerate(zip(axes, metrics, strict=True)):
        bars = rows[rows["metric"] == metric].drop_duplicates("group").set_index("group").reindex(groups)
        labels = [short_name(group, 24) for group in groups] if index == 0 else [""] * len(groups)
        bars_with_intervals(panel, bars, labels)
        panel.set(xlim=(0, max(1.0, float(bars[["value", "high"]].max().max()))))
    return figure


def largest_groups(rows: pd.DataFrame) -> list[str]:
    """Return the groups of a breakdown in the order of the table; at most ``MOST_GROUPS``, those with the most rows."""
    counts = rows.groupby("group", sort=False)["n"].max()
    kept = set(counts.fillna(0).nlargest(MOST_GROUPS).index)
    return [group for group in counts.index if group in kept]


def shown_metrics(rows: pd.DataFrame) -> list[str]:
    """Return the first five metrics of a breakdown."""
    return list(dict.fromkeys(rows["metric"]))[:5]
