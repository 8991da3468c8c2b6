"""Markdown of one measured result: what was run where and when, and its table.

A result's ``layout`` says how its rows become a table: ``metrics`` (a column a metric), ``layers`` (a column a layer),
``differences``, ``cosines`` or ``commands`` (a line a command). A result with ``output`` is shown as it was printed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from permafrost.probes.results.grid import markdown_table

Row = Mapping[str, Any]

Cells = dict[tuple[tuple[str, ...], Any], str]
"""(What names a line of a table, its column) -> the cell."""

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
    cells: Cells = {}
    for row in rows:
        line = tuple(_cell(row.get(key)) for key in keys)
        cells[line, (row.get("task", ""), row["metric"], row["split"])] = with_interval(row)
    columns = list(dict.fromkeys(column for _, column in cells))
    one_task = len({task for task, _, _ in columns}) == 1
    heads = [f"{metric} on {split}" if one_task else f"{task}: {metric} on {split}" for task, metric, split in columns]
    costs = {row["variant"]: row for row in result.get("variants", ())}
    paid = [key for key in COSTS if any(key in row for row in costs.values())]
    lines = [[*line, *(_cell(costs.get(line[0], {}).get(key)) for key in paid)] for line in _pivot(cells, columns)]
    return markdown_table([*keys, *heads, *(COSTS[key] for key in paid)], lines)


def layers_table(result: Row) -> str:
    """A line a task and control, a column a layer, by the first metric of the task."""
    first = {row["task"]: row["metric"] for row in reversed(result["metrics"])}
    cells: Cells = {}
    for row in result["metrics"]:
        if row["metric"] == first[row["task"]]:
            line = row["task"], row["metric"], f"{row.get('control') or row['variant']}, {row['split']}"
            cells[line, row.get("layer")] = f"{row['value']:.3f}"
    layers = sorted({layer for _, layer in cells}, key=lambda layer: (layer is None, layer))
    heads = ["task", "metric", "", *("all" if layer is None else str(layer) for layer in layers)]
    return markdown_table(heads, _pivot(cells, layers))


def pairs_table(result: Row, style: str) -> str:
    """A line a variant, a column a task (or a backbone, if there is no task)."""
    cells = {((row["variant"],), row["task"] or row["metric"]): with_interval(row, style) for row in result["metrics"]}
    columns = list(dict.fromkeys(column for _, column in cells))
    return markdown_table(["", *columns], _pivot(cells, columns))


def _pivot(cells: Cells, columns: Sequence[Any]) -> list[list[Any]]:
    """The lines of a table: what names a line, then its cell of every column, empty where it has none."""
    lines = dict.fromkeys(line for line, _ in cells)
    return [[*line, *(cells.get((line, column), "") for column in columns)] for line in lines]


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
