"""TODO: probes/reports/layers.py."""

import pandas as pd

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.layers import TOGETHER, rows_of
from permafrost.probes.reports.page import Grid, tidy
from permafrost.probes.reports.summary import decimals, value_and_interval
from permafrost.probes.results.formatting import duration
from permafrost.probes.results.run_tables import Tables, chooses, scored

MOST_LINES = 1000


def summary_grid(run: Tables) -> Grid | None:
    """A line a task: its best layer, its last, all together, the best of an untrained backbone, selectivity."""
    rows = rows_of(run)
    if rows.empty:
        return None
    lines = []
    for _, part in rows.groupby("name", sort=False):
        one, there = part.iloc[0], part[part["scored"]]
        own = there[there["control"] == ""]
        last, together = own[own["layer"].notna()].sort_values("layer").tail(1), own[own["layer"].isna()]
        mine = run.layers[(run.layers[["task", "corpus", "metric"]] == one[["task", "corpus", "metric"]]).all(axis=1)]
        best, untrained = (_best(mine, there, control) for control in ("", "untrained"))
        cells = [_cell(found) for found in (best, last, together, untrained)]
        measured = f"{tidy(one['metric'], 30)} on {tidy(scored(there), 30)}"
        took = "–" if pd.isna(one["seconds"]) else duration(one["seconds"]).replace(" ", "\u00a0")
        lines.append([tidy(one["task"], 40), tidy(one["corpus"], 40), measured, *cells, _selectivity(part, best), took])
    heads = ["task", "corpus", "measured", "best layer", "last layer", TOGETHER, "untrained, best"]
    said = (
        "The value and its layer; the best one by the split that picks the epochs. Selectivity, of the best "
        "layer: how much better it fits its training rows than the same rows with shuffled targets."
    )
    return Grid(said, [*heads, "selectivity", "took"], lines, 3)


def every_grid(run: Tables) -> Grid | None:
    """The lines of the table, folded away."""
    rows = run.layers.head(MOST_LINES)
    if rows.empty:
        return None
    names = ["task", "corpus", "layer", "control", "split", "metric"]
    lines = [
        [
            *(tidy(row[name], 40) for name in ("task", "corpus")),
            TOGETHER if pd.isna(row["layer"]) else f"{row['layer']:g}",
            *(tidy(row[name], 40) for name in ("control", "split", "metric")),
            value_and_interval(row),
            *(decimals(row[name], 0) for name in ("n", "parameters")),
        ]
        for _, row in rows.iterrows()
    ]
    said = "Every probe; in brackets the bootstrap 95 % interval over rows."
    fold = f"All {len(rows):,} lines" if len(rows) == len(run.layers) else f"The first {len(rows):,} lines"
    return Grid(said, [*names, "value", "rows", "parameters"], lines, len(names), fold=f"{fold} by layer")


def _best(rows: pd.DataFrame, measured: pd.DataFrame, control: str) -> pd.DataFrame:
    """The line of ``measured`` of the single layer that is highest on the split that chooses."""
    of = rows[(rows["control"] == control) & rows["layer"].notna()]
    layer = of[of["split"] == chooses(of)].nlargest(1, "value")["layer"]
    return measured[(measured["control"] == control) & measured["layer"].isin(layer)].head(1)


def _selectivity(rows: pd.DataFrame, best: pd.DataFrame) -> str:
    """Of the layer of ``best``, where its control was trained."""
    mine = rows[~rows["scored"] & (rows["layer"].isin(best["layer"]))]
    values = [mine.loc[mine["control"] == control, "value"] for control in ("", RANDOM_TARGETS)]
    return f"{values[0].iloc[0] - values[1].iloc[0]:+.3f}" if all(map(len, values)) else "–"


def _cell(rows: pd.DataFrame) -> str | tuple[str, str]:
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    value = f"{row['value']:.3f}"
    return value if pd.isna(row["layer"]) else (value, f"layer {row['layer']:g}")
