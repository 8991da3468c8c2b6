"""Summary of a batch: ``summary.csv``, a row for each run and task, and one page over all runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from permafrost.batches.outcome import Outcome
from permafrost.batches.plan import BatchItem
from permafrost.data.atomic import write_atomically
from permafrost.data.text import quote_formula
from permafrost.probes.results.read_result import read_metrics
from permafrost.probes.results.run_folder import ReportError, RunFolder

MEASURED = ["task", "variant", "split", "metric", "value", "low", "high", "n"]

SUMMARY, PAGE = "summary.csv", "report.html"
"""Files of the folder of a batch."""


def summary_rows(folder: Path, items: Sequence[BatchItem], outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return a row for each run and task, with what varies, whether it is done, and the metric of its chosen variant.

    No row depends on when a run was made, or on how often the batch was stopped.
    """
    rows = []
    for item in items:
        about = {"run": item.name} | item.varied
        if error := outcomes[item.name].error:
            rows.append(about | {"status": "failed"} | dict.fromkeys(MEASURED, "") | {"error": error})
            continue
        for measured in _measured(RunFolder(folder / item.name, ReportError)):
            rows.append(about | {"status": "done"} | measured | {"error": ""})
    return rows


def _measured(run: RunFolder) -> list[dict[str, Any]]:
    """Return the metric of the chosen variant, or of all layers, for each task; a comparison of sentences has none."""
    none: dict[str, Any] = dict.fromkeys(MEASURED, "")
    if not run.has("metrics.csv"):
        return [none]
    rows = read_metrics(run)
    split = "test" if any(row["split"] == "test" for row in rows) else "validation"
    selected = run.record.get("selected")
    wanted = {"split": split, "against": "", "control": "", "seed": None}
    wanted |= {"variant": selected} if selected else {"subset": "all"}
    found = []
    for task, metric in (run.record.get("metrics") or {"": run.record.get("metric")}).items():
        same = wanted | {"metric": metric} | ({"task": task} if task else {})
        row = next((row for row in rows if all(row[key] == value for key, value in same.items())), None)
        about = none | {"task": task, "variant": selected or "all layers", "metric": metric}
        found.append({key: "" if value is None else value for key, value in ((about | (row or {})).items())})
    return [{key: row[key] for key in MEASURED} | {"task": row["task"]} for row in found]


def write_summary(
    folder: Path, name: str, varied: Sequence[str], rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome]
) -> None:
    """Write ``summary.csv`` and ``report.html`` into the folder of a batch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", *varied, "status", *MEASURED, "error"], restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: quote_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SUMMARY, text.getvalue().encode())
    write_atomically(folder / PAGE, _page(folder, name, varied, rows, outcomes))


def _page(
    folder: Path, name: str, varied: Sequence[str], rows: Sequence[Mapping[str, Any]], outcomes: Mapping[str, Outcome]
) -> bytes:
    """Return the page: the summary, what differs between the runs, a figure, paired tests, and failures."""
    from permafrost.probes.reports.compare import comparison_section  # these load matplotlib and pandas
    from permafrost.probes.reports.page import Section, Tile, render_page
    from permafrost.probes.results.grid import Grid, cell_text

    heads, lines = table_of(varied, rows)
    grid = Grid(
        caption="The chosen variant of each run, with bootstrap 95 % intervals.",
        heads=heads,
        rows=[[cell_text(cell, 120) for cell in line] for line in lines],
        text_columns=len(heads),
    )
    sections = [Section("summary", "Summary", "", [grid])]
    done = [run for run, outcome in outcomes.items() if not outcome.error]
    if done:
        sections.append(comparison_section([folder / run for run in done]))
    if failed := {run: outcome.error for run, outcome in outcomes.items() if outcome.error}:
        cells = [[cell_text(run, 120), cell_text(error, 400)] for run, error in failed.items()]
        failures = Grid(caption="Runs that failed.", heads=["run", "error"], rows=cells, text_columns=2)
        sections.append(Section("failed", "Failed", "", [failures]))
    tiles = [Tile("runs", f"{len(outcomes):,}"), Tile("done", f"{len(done):,}"), Tile("failed", f"{len(failed):,}")]
    return render_page(name, "batch", f"{len(outcomes):,} runs side by side.", tiles, sections)


def table_of(varied: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and cells of the summary as a terminal and the page show it; columns without content are left out.

    A recipe, backbone or setting that is the same in all runs is left out too.
    """
    shown = [key for key in varied if len({str(row.get(key, "")) for row in rows}) > 1]
    heads = ["run", *shown, "task", "variant", "measured", "value"]
    lines = [[str(row["run"]), *(str(row.get(key, "")) for key in shown), *_result_cells(row)] for row in rows]
    used = [index for index, head in enumerate(heads) if head != "task" or any(line[index] for line in lines)]
    return [heads[index] for index in used], [[line[index] for index in used] for line in lines]


def _result_cells(row: Mapping[str, Any]) -> list[str]:
    if row["status"] != "done":
        return ["", "", "failed", ""]
    measured = f"{row['metric']} on {row['split']}, n = {row['n']}" if row["metric"] else ""
    value = f"{row['value']:.4f}" if isinstance(row["value"], float) else ""
    value += f" [{row['low']:.3f}, {row['high']:.3f}]" if isinstance(row["low"], float) else ""
    return [str(row["task"]), str(row["variant"]), measured, value]
