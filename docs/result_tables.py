"""Markdown of one measured result: what was run where and when, and its table.

A result's ``layout`` says how its rows become a table: ``metrics`` (a column a metric), ``layers`` (a column a layer),
``differences``, ``cosines`` or ``commands`` (a line a command). A result with ``output`` is shown as it was printed.
"""

from collections.abc import Mapping
from typing import Any

from permafrost.probes.results.grid import markdown_table

Row = Mapping[str, Any]

KEYS = ("variant", "kind", "name", "layers", "view", "subset", "layer", "control", "parameters")
"""Columns that tell the rows of a table of metrics apart; those that are empty throughout are left out."""

COSTS = {"parameters": "trained", "share": "of backbone", "saved": "saved", "duration": "training", "memory": "memory"}
"""Key of a variant's costs -> the head of its column."""


def with_interval(row: Row, style: str = ".4f") -> str:
    """``0.8418 [0.821, 0.861]``, and the p value if there is one."""
    signed = "+" if style.startswith("+") else ""
    low, high = row.get("low"), row.get("high")
    text = format(row["value"], style)
    if low is not None and high is not None:
        text += f" [{low:{signed}.3f}, {high:{signed}.3f}]"
    return text + (f" p {row['p']:.3f}" if row.get("p") is not None else "")


def described(result: Row) -> str:
    """The notes of a result, its command, and one line with date, commit, machine and versions."""
    text = "".join(f"{note}\n\n" for note in result["notes"])
    if "command" in result:
        text += f"```text\n{result['command']}\n```\n\n"
    facts = [result["date"], f"commit {result['commit']}"] if "date" in result else []
    names = {"python": "Python"}
    versions = ", ".join(f"{names.get(name, name)} {version}" for name, version in result["versions"].items())
    facts += [result["machine"], versions]
    if "texts" in result:
        counted = {"texts": "texts", "texts_distinct": "distinct", "texts_run": "run"}
        facts.append(", ".join(f"{name} {result[key]:,}" for key, name in counted.items() if key in result))
    if "seconds" in result:
        facts.append(f"{result['seconds']:,} s")
    text += "; ".join(facts) + ".\n\n"
    return text + (f"Chosen on validation: `{result['selected']}`.\n\n" if result.get("selected") else "")


def shown(result: Row) -> str:
    """The table of a result, or its output."""
    if "output" in result:
        return "```text\n" + "\n".join(result["output"]) + "\n```\n"
    return LAYOUTS[result.get("layout", "metrics")](result)


def metrics_table(result: Row) -> str:
    """A line a variant, subset or layer; a column a metric, then what a variant cost."""
    rows = result["metrics"]
    keys = [key for key in KEYS if any(row.get(key) not in (None, "") for row in rows)]
    columns = list(dict.fromkeys((row.get("task", ""), row["metric"], row["split"]) for row in rows))
    lines: dict[tuple[Any, ...], dict[tuple[str, str, str], str]] = {}
    for row in rows:
        column = (row.get("task", ""), row["metric"], row["split"])
        lines.setdefault(tuple(row.get(key) for key in keys), {})[column] = with_interval(row)
    one_task = len({task for task, _, _ in columns}) == 1
    heads = [f"{metric} on {split}" if one_task else f"{task}: {metric} on {split}" for task, metric, split in columns]
    costs = {row["variant"]: row for row in result.get("variants", ())}
    paid = [key for key in COSTS if any(key in row for row in costs.values())]
    return markdown_table(
        [*keys, *heads, *(COSTS[key] for key in paid)],
        [
            [
                *map(_cell, line),
                *(cells.get(column, "") for column in columns),
                *(_cell(costs.get(line[0], {}).get(key)) for key in paid),
            ]
            for line, cells in lines.items()
        ],
    )


def layers_table(result: Row) -> str:
    """A line a task and control, a column a layer, by the first metric of the task."""
    rows = result["metrics"]
    first = {row["task"]: row["metric"] for row in reversed(rows)}
    rows = [row for row in rows if row["metric"] == first[row["task"]]]
    layers = sorted({row.get("layer") for row in rows}, key=lambda layer: (layer is None, layer))
    lines: dict[tuple[str, ...], dict[int | None, str]] = {}
    for row in rows:
        line = (row["task"], row["metric"], f"{row.get('control') or row['variant']}, {row['split']}")
        lines.setdefault(line, {})[row.get("layer")] = f"{row['value']:.3f}"
    heads = ["task", "metric", "", *("all" if layer is None else str(layer) for layer in layers)]
    return markdown_table(
        heads, [[*line, *(cells.get(layer, "") for layer in layers)] for line, cells in lines.items()]
    )


def pairs_table(result: Row, style: str) -> str:
    """A line a variant, a column a task (or a backbone, if there is no task)."""
    rows = result["metrics"]
    columns = list(dict.fromkeys(row["task"] or row["metric"] for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        lines.setdefault(row["variant"], {})[row["task"] or row["metric"]] = with_interval(row, style)
    return markdown_table(
        ["", *columns], [[name, *(cells[column] for column in columns)] for name, cells in lines.items()]
    )


def commands_table(result: Row) -> str:
    """A line a command, each with its date and commit."""
    columns = [*result["columns"], "date", "commit"]
    rows = [row | {"command": f"`{row['command']}`"} for row in result["rows"]]
    return markdown_table(columns, [[row.get(column, "") for column in columns] for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


LAYOUTS = {
    "metrics": metrics_table,
    "layers": layers_table,
    "differences": lambda result: pairs_table(result, "+.3f"),
    "cosines": lambda result: pairs_table(result, ".6f"),
    "commands": commands_table,
}
