"""Tables of probes on subsets of layers, in an ablation or for every task: a line per task, by layer, and all lines."""

from typing import Any

import pandas as pd

from permafrost.probes.config.names import RANDOM_TARGETS
from permafrost.probes.figures.subsets import ALL_LAYERS, subset_rows
from permafrost.probes.results.files import number
from permafrost.probes.results.formatting import decimals, format_p, metric_title, unbroken_duration
from permafrost.probes.results.grid import Cell, Grid, Line, cell_text, pivot_lines, value_cell
from permafrost.probes.results.metric_row import TRAINED_PARAMETERS
from permafrost.probes.results.run_tables import Tables, reported_split, selection_split

MOST_LINES = 1000

KEYS = ["task", "corpus", "backbone", "subset", "control"]
"""Columns that tell the probes of an experiment apart."""


def tasks_grid(run: Tables) -> Grid | None:
    """Return a line per task: its best layer, its last, all layers together, the best untrained one, selectivity."""
    rows = subset_rows(run)
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


def layers_grid(run: Tables) -> Grid | None:
    """Return a line per task and control, a column per layer: the first metric of the task."""
    rows = subset_rows(run)
    rows = rows[rows["kind"].isin(["single", "all"])].drop_duplicates(["name", "control", "split", "subset"])
    layers = sorted(rows["position"].dropna().unique())
    if not layers:
        return None
    rows = rows.assign(column=rows["position"].fillna(-1), control=rows["control"].replace("", "trained backbone"))
    lines = pivot_lines(rows, ["name", "control", "split"], [*layers, -1], lambda row: decimals(row["value"], 3))
    return Grid(
        caption="The metric of a probe on each layer alone, and on all layers together.",
        heads=["task", "control", "measured on", *(f"{layer:g}" for layer in layers), "all"],
        rows=lines[:MOST_LINES],
        text_columns=3,
        fold=f"By layer, {len(lines):,} lines",
    )


def subset_grids(run: Tables) -> list[Grid]:
    """Return tables with a line per probe: its metrics with intervals, and their differences to the reference.

    The scored split comes first. With several tasks each metric has a line of its own.
    """
    rows = run.means
    rows = rows[rows["subset"] != ""]
    first = reported_split(rows)
    splits = sorted(dict.fromkeys(rows["split"]), key=lambda split: split != first)[:4]
    return [_split_grid(run, rows[rows["split"] == split], split) for split in splits]


def _split_grid(run: Tables, rows: pd.DataFrame, split: str) -> Grid:
    differences = run.differences[(run.differences["split"] == split) & (run.differences["subset"] != "")]
    several = rows["task"].nunique() > 1
    keys = [name for name in [*KEYS, *["metric"] * several] if rows[name].nunique() > 1 or name == "subset"]
    counts = run.counts[run.counts["metric"] == TRAINED_PARAMETERS].drop_duplicates(KEYS)
    rows = rows.merge(counts[[*KEYS, "value"]].rename(columns={"value": "parameters"}), how="left", on=KEYS)
    parts = {"": rows, "difference": differences, "p": differences}
    titles = ["value"] if several else [cell_text(metric_title(name), 40) for name in dict.fromkeys(rows["metric"])]
    long = pd.concat(
        [
            part.assign(kind=kind, column="value" if several else part["metric"].map(metric_title))
            for kind, part in parts.items()
        ]
    )
    places: Any = list(zip(long["column"], long["kind"], strict=True))
    long = long.assign(column=places)
    columns = [(title, kind) for title in titles for kind, part in parts.items() if len(part)]
    lines = pivot_lines(long, keys, columns, _subset_cell, closing=["n", "parameters"])
    against = ", ".join(dict.fromkeys(differences["against"]))
    caption = (
        f"On {cell_text(split, 40)}; in brackets the bootstrap 95 % interval over rows. A dash: undefined or untested."
    )
    caption += f" Differences, with p of a paired test, are to “{cell_text(against, 80)}”." if against else ""
    return Grid(
        caption=caption,
        heads=[*keys, *(kind or title for title, kind in columns), "rows", "parameters"],
        rows=lines[:MOST_LINES],
        text_columns=len(keys),
        fold=f"On {cell_text(split, 40)}, {len(lines):,} lines",
    )


def _subset_cell(row: pd.Series) -> Cell:
    if row["kind"] == "p":
        return format_p(row["p"])
    return value_cell(row, 3, "+") if row["kind"] else value_cell(row, 4)


def _task_line(run: Tables, rows: pd.DataFrame) -> Line:
    first, scored_rows = rows.iloc[0], rows[rows["scored"]]
    trained = scored_rows[scored_rows["control"] == ""]
    last = trained[trained["kind"] == "single"].sort_values("position").tail(1)
    every_split = run.metrics[
        (run.metrics[["task", "corpus", "metric"]] == first[["task", "corpus", "metric"]]).all(axis=1)
    ]
    best, untrained = (_best(every_split, scored_rows, control) for control in ("", "untrained"))
    seconds = number(run.record_table("costs", str(first["task"])).get("seconds"))
    return [
        cell_text(first["task"], 40),
        cell_text(first["corpus"], 40),
        f"{cell_text(first['metric'], 30)} on {cell_text(reported_split(scored_rows), 30)}",
        *(_value_and_layer(layer) for layer in (best, last, trained[trained["kind"] == "all"], untrained)),
        _selectivity(rows, best),
        "–" if seconds is None else unbroken_duration(seconds),
    ]


def _best(rows: pd.DataFrame, scored_rows: pd.DataFrame, control: str) -> pd.DataFrame:
    """The scored row of the layer whose value is highest on the split that selects; empty if there is none."""
    layers = rows[(rows["control"] == control) & rows["subset"].str.startswith("single ")]
    best = layers[layers["split"] == selection_split(layers)].nlargest(1, "value")["subset"]
    return scored_rows[(scored_rows["control"] == control) & scored_rows["subset"].isin(best)].head(1)


def _selectivity(rows: pd.DataFrame, best: pd.DataFrame) -> str:
    """Selectivity of the layer of ``best``; a dash without a control on random targets."""
    on_train = rows[~rows["scored"] & rows["subset"].isin(best["subset"])]
    values = [on_train.loc[on_train["control"] == control, "value"] for control in ("", RANDOM_TARGETS)]
    return f"{values[0].iloc[0] - values[1].iloc[0]:+.3f}" if all(map(len, values)) else "–"


def _value_and_layer(rows: pd.DataFrame) -> Cell:
    if rows.empty:
        return "–"
    value, layer = f"{rows['value'].iloc[0]:.3f}", rows["position"].iloc[0]
    return value if pd.isna(layer) else (value, f"layer {layer:g}")
