"""Headline tables: what the terminal shows of the metrics of a run, an ablation, or several tasks.

Each function takes rows of a result table and returns the heads and the lines of a table to print. Loads no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import CORRELATIONS, RANDOM_TARGETS, UNTRAINED
from permafrost.probes.results.formatting import format_duration, format_metric, format_size, reported_split

Row = Mapping[str, Any]

Headline = tuple[list[str], list[list[Any]]]
"""Heads of the columns, and the lines."""

MOST_METRICS = 4
"""Columns of metrics in a table of several tasks; if there are more, each task shows its first ones."""


def run_headline(rows: Sequence[Row], parameters: Mapping[str, int], backbones: Mapping[str, int]) -> Headline:
    """Return a line per variant: means over seeds with intervals, trained parameters, their share of the backbone.

    Of the untrained reference, each view shows only its best layer on the split that selects. If a held-out part of
    train selects, validation is shown beside test.

    Args:
        rows: rows of ``metrics.csv``.
        parameters: variant -> number of trained parameters.
        backbones: variant -> number of parameters of the frozen backbones below it.
    """
    selection = HELD_OUT if any(row["split"] == HELD_OUT for row in rows) else "validation"
    splits = list(dict.fromkeys([*(["validation"] if selection == HELD_OUT else []), reported_split(rows)]))
    shown = [row for row in _means(rows) if row["split"] in splits]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    best_layers = _best_untrained_layers(rows, selection, metrics[0]) if metrics else {}
    cells_by_line: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in shown:
        key = (row["variant"], row["view"])
        if key not in best_layers or row["layer"] == best_layers[key]:
            split = (row["split"],) if len(splits) > 1 else ()
            cells_by_line.setdefault((*key, row["layer"], *split), {})[row["metric"]] = format_metric(row)
    heads = [f"on {' and '.join(splits)}", "view", "layer", *(["split"] if len(splits) > 1 else []), *metrics]
    return [*heads, "trained", "of backbone"], [
        [*key, *(_metric_cell(cells, metric) for metric in metrics), *_size_cells(key[0], parameters, backbones)]
        for key, cells in cells_by_line.items()
    ]


def multitask_headline(metrics: Sequence[Row], variants: Sequence[Row]) -> Headline:
    """Return a line per variant: its metrics on the scored split of each task, and its costs.

    A cell is empty if the variant does not train the task. Of the untrained reference the last layer is shown.

    Args:
        metrics: rows of ``metrics.csv``; the first metric of a task is the one that selects.
        variants: rows of ``variants.csv``.
    """
    means = _means(metrics)
    columns = _task_columns(means)
    cells = {
        (row["variant"], (row["task"], row["metric"], row["split"])): format_metric(row)
        for row in sorted(means, key=lambda row: -1 if row["layer"] is None else row["layer"])
    }
    costs = {row["variant"]: _cost_cells(row) for row in variants}
    untrained = dict.fromkeys(row["variant"] for row in means if row["variant"].startswith(UNTRAINED))
    trained = dict.fromkeys([*costs, *(row["variant"] for row in means if row["variant"] not in untrained)])
    names = [*untrained, *trained]
    lines = [
        [name, *(cells.get((name, column), "") for column in columns), *costs.get(name, [""] * 4)] for name in names
    ]
    heads = [f"{task}: {metric} on {split}" for task, metric, split in columns]
    return ["variant", *heads, "trained", "saved", "training", "memory"], lines


def ablation_headline(rows: Sequence[Row]) -> Headline:
    """Return a line per subset of layers: its metrics on the scored split, with intervals and p values.

    Args:
        rows: rows of ``ablation.csv``.
    """
    split = reported_split(rows)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cells_by_line: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        if row["split"] == split:
            key = (row["kind"], row["name"], row["layers"], row["control"], row["parameters"])
            p = f" p {row['p']:.3f}" if row["p"] is not None else ""
            cells_by_line.setdefault(key, {})[row["metric"]] = format_metric(row) + p
    heads = [f"on {split}", "", "layers", "control", "parameters", *metrics]
    return heads, [
        [kind, name, layers, control, f"{count:,}", *(cells.get(metric, "undefined: constant") for metric in metrics)]
        for (kind, name, layers, control, count), cells in cells_by_line.items()
    ]


def layers_headline(rows: Sequence[Row]) -> Headline:
    """Return a line per task and control, a column per layer: the first metric of the task on its scored split.

    Args:
        rows: rows of ``metrics.csv``.
    """
    layers = sorted({row["layer"] for row in rows if row["layer"] is not None})
    metrics: dict[str, str] = {}
    for row in rows:
        metrics.setdefault(row["task"], row["metric"])
    lines: list[list[Any]] = []
    for task, metric in metrics.items():
        task_rows = [row for row in rows if row["task"] == task and row["metric"] == metric]
        split = reported_split(task_rows)
        for control in dict.fromkeys(row["variant"] for row in task_rows):
            shown_split = "train" if control == RANDOM_TARGETS else split
            values = {
                row["layer"]: row["value"]
                for row in task_rows
                if (row["variant"], row["split"]) == (control, shown_split)
            }
            if values:
                cells = [f"{values[layer]:.3f}" if layer in values else "" for layer in (*layers, None)]
                lines.append([task, metric, f"{control}, {shown_split}", *cells])
    return ["task", "metric", "", *map(str, layers), "all"], lines


def _means(rows: Sequence[Row]) -> list[Row]:
    """The rows that aggregate over seeds, without those of p values."""
    return [row for row in rows if row["seed"] is None and not row["metric"].endswith("_p")]


def _best_untrained_layers(rows: Sequence[Row], selection: str, metric: str) -> dict[tuple[str, str], int | None]:
    """Variant and view of the untrained reference -> its best layer on the split that selects."""
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row["variant"], row["view"])
        selects = row["split"] == selection and row["metric"] == metric
        if selects and row["variant"].startswith(UNTRAINED) and row["value"] > best.get(key, {"value": -2})["value"]:
            best[key] = row
    return {key: row["layer"] for key, row in best.items()}


def _task_columns(means: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Task, metric and split of each column."""
    columns: list[tuple[str, str, str]] = []
    tasks = list(dict.fromkeys(row["task"] for row in means))
    most = max(1, MOST_METRICS // max(1, len(tasks)))
    for task in tasks:
        split = reported_split([row for row in means if row["task"] == task])
        metrics = dict.fromkeys(row["metric"] for row in means if (row["task"], row["split"]) == (task, split))
        columns += [(task, metric, split) for metric in list(metrics)[:most]]
    return columns


def _cost_cells(row: Row) -> list[str]:
    """Trained parameters, saved ones, seconds and memory of a variant; empty if unknown."""
    formats = {
        "trained": "{:,.0f}".format,
        "saved": "{:,.0f}".format,
        "seconds": format_duration,
        "memory": format_size,
    }
    return [
        "" if row.get(name) is None else format_cost(row[name]).replace("\u00a0", " ")
        for name, format_cost in formats.items()
    ]


def _metric_cell(cells: Mapping[str, str], metric: str) -> str:
    return cells.get(metric, "undefined: constant" if metric in CORRELATIONS else "")


def _size_cells(variant: str, parameters: Mapping[str, int], backbones: Mapping[str, int]) -> tuple[str, str]:
    if variant not in parameters:
        return "", ""
    share = f"{parameters[variant] / backbones[variant]:.1%}" if backbones.get(variant) else ""
    return f"{parameters[variant]:,}", share
