"""Tables of a run that probes every layer on several tasks: a line per task, and all lines, folded."""

import pandas as pd

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.layers import ALL_LAYERS, metric_rows
from permafrost.probes.reports.page import Grid, Line, cell_text
from permafrost.probes.reports.summary import decimals, value_cell
from permafrost.probes.results.formatting import format_duration
from permafrost.probes.results.run_tables import Tables, reported_split, selection_split

MOST_LINES = 1000


def summary_grid(run: Tables) -> Grid | None:
    """Return a line per task: its best layer, its last, all layers together, the best untrained one, selectivity."""
    rows = metric_rows(run)
    if rows.empty:
        return None
    return Grid(
        caption="The value and its layer; the best layer is picked on the split that picks the epochs. Selectivity, of "
        "the best layer: how much better it fits its training rows than the same rows with shuffled targets.",
        heads=[
            "task", "corpus", "measured", "best layer", "last layer", ALL_LAYERS, "untrained, best", "selectivity",
            "took",
        ],
        rows=[_task_line(run, task_rows) for _, task_rows in rows.groupby("name", sort=False)],
        text_columns=3,
    )  # fmt: skip


def _task_line(run: Tables, rows: pd.DataFrame) -> Line:
    first, scored_rows = rows.iloc[0], rows[rows["scored"]]
    trained = scored_rows[scored_rows["control"] == ""]
    last, all_layers = trained[trained["layer"].notna()].sort_values("layer").tail(1), trained[trained["layer"].isna()]
    keys = ["task", "corpus", "metric"]
    every_split = run.layers[(run.layers[keys] == first[keys]).all(axis=1)]
    best, untrained = (_best(every_split, scored_rows, control) for control in ("", "untrained"))
    return [
        cell_text(first["task"], 40),
        cell_text(first["corpus"], 40),
        f"{cell_text(first['metric'], 30)} on {cell_text(reported_split(scored_rows), 30)}",
        *(_value_and_layer(layer) for layer in (best, last, all_layers, untrained)),
        _selectivity(rows, best),
        "–" if pd.isna(first["seconds"]) else format_duration(first["seconds"]).replace(" ", "\u00a0"),
    ]


def all_lines_grid(run: Tables) -> Grid | None:
    """Return the lines of ``layers.csv`` as a folded table."""
    rows = run.layers.head(MOST_LINES)
    if rows.empty:
        return None
    names = ["task", "corpus", "layer", "control", "split", "metric"]
    lines = [
        [
            *(cell_text(row[name], 40) for name in ("task", "corpus")),
            ALL_LAYERS if pd.isna(row["layer"]) else f"{row['layer']:g}",
            *(cell_text(row[name], 40) for name in ("control", "split", "metric")),
            value_cell(row),
            *(decimals(row[name], 0) for name in ("n", "parameters")),
        ]
        for _, row in rows.iterrows()
    ]
    count = f"All {len(rows):,} lines" if len(rows) == len(run.layers) else f"The first {len(rows):,} lines"
    return Grid(
        caption="Every probe; in brackets the bootstrap 95 % interval over rows.",
        heads=[*names, "value", "rows", "parameters"],
        rows=lines,
        text_columns=len(names),
        fold=f"{count} by layer",
    )


def _best(rows: pd.DataFrame, scored_rows: pd.DataFrame, control: str) -> pd.DataFrame:
    """The scored row of the layer whose value is highest on the split that selects; empty if there is none."""
    layers = rows[(rows["control"] == control) & rows["layer"].notna()]
    layer = layers[layers["split"] == selection_split(layers)].nlargest(1, "value")["layer"]
    return scored_rows[(scored_rows["control"] == control) & scored_rows["layer"].isin(layer)].head(1)


def _selectivity(rows: pd.DataFrame, best: pd.DataFrame) -> str:
    """Selectivity of the layer of ``best``; a dash without a control on random targets."""
    on_train = rows[~rows["scored"] & (rows["layer"].isin(best["layer"]))]
    values = [on_train.loc[on_train["control"] == control, "value"] for control in ("", RANDOM_TARGETS)]
    return f"{values[0].iloc[0] - values[1].iloc[0]:+.3f}" if all(map(len, values)) else "–"


def _value_and_layer(rows: pd.DataFrame) -> str | tuple[str, str]:
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    value = f"{row['value']:.3f}"
    return value if pd.isna(row["layer"]) else (value, f"layer {row['layer']:g}")
