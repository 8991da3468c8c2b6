"""Results as HTML in a notebook: the tables of their report, and the figures that the run folder has.

Every text is escaped, figures are images, and a folder that cannot be read is no error: what is known is shown.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permafrost.data.errors import InputError, MachineError, first_line
from permafrost.probes.results.grid import Grid, cell_text, value_cell
from permafrost.probes.results.outcomes import RunResult, SimilarityResult, StudyResult

if TYPE_CHECKING:
    from permafrost.probes.reports.page import StoredPicture

MOST_GRIDS, MOST_ROWS, MOST_FIGURES = 3, 20, 3

MOST_TEXTS = 2000
"""Rows of a table of predictions that are read; no table of results shows any."""

MOST_BYTES = 2**20
"""Size in bytes up to which an image is shown."""

PNG = b"\x89PNG\r\n\x1a\n"

MAIN_FIGURES = (
    "transfer", "layer_map", "layer_curves", "history", "importances", "loss", "variants", "by_layer",
    "predicted_against_gold", "confusion", "reliability",
)  # fmt: skip
"""Figures of a run folder that a notebook shows, the most important first."""


def result_html(result: RunResult | StudyResult | SimilarityResult) -> str:
    """Return a result as HTML; it raises nothing."""
    folder = result.folder if isinstance(result, StudyResult) else result.path
    metrics = result.metrics if isinstance(result, RunResult) else ()
    return folder_html(folder, repr(result), metrics)


def folder_html(folder: Path, name: str, metrics: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return a run folder as HTML; it raises nothing.

    Args:
        name: of the result, shown if the folder cannot be read.
        metrics: rows of ``metrics.csv``, shown in the same case.
    """
    try:
        return _render_folder(folder)
    except Exception as error:
        expected = isinstance(error, InputError | MachineError)
        reason = str(error) if expected else f"{folder} cannot be read ({type(error).__name__}: {first_line(error)})."
    from permafrost.probes.reports.page import render_inline

    return render_inline(cell_text(name), "result", cell_text(reason), [], _known_grids(metrics), [], [])


def _render_folder(folder: Path) -> str:
    from permafrost.probes.reports.page import render_inline  # loads pandas and matplotlib
    from permafrost.probes.reports.report import PAGES, grids_of
    from permafrost.probes.results.run_tables import read_tables

    run = read_tables(folder, MOST_TEXTS)
    page = PAGES[run.experiment]
    grids = [
        replace(grid, rows=grid.rows[:MOST_ROWS], caption=f"{grid.caption} {_cut_note(grid.rows)}".strip())
        for grid in grids_of(run)[:MOST_GRIDS]
    ]
    has_page = (folder / "report.html").is_file()
    places = [f"run folder: {folder}", *([f"report: {folder / 'report.html'}"] if has_page else [])]
    pictures = _stored_pictures(folder)
    return render_inline(run.name, run.experiment, page.lead(run), page.tiles(run), grids, pictures, places)


def _stored_pictures(folder: Path) -> "list[StoredPicture]":
    """Return the main figures of a run folder, of those that are there."""
    from permafrost.probes.reports.figures import FIGURES
    from permafrost.probes.reports.page import StoredPicture

    figures, pictures = folder / "figures", list[StoredPicture]()
    if figures.is_symlink():
        return []
    heatmaps = sorted(path.stem for path in figures.glob("heatmap-*.png"))
    for name in [*MAIN_FIGURES, *heatmaps]:
        path, spec = figures / f"{name}.png", FIGURES.get(name)
        if len(pictures) == MOST_FIGURES or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size <= MOST_BYTES and (content := path.read_bytes()).startswith(PNG):
            title, caption = (spec.title, spec.caption) if spec else (name, "Darker is nearer; one scale for all.")
            pictures.append(StoredPicture(title, caption, content))
    return pictures


def _known_grids(metrics: Sequence[Mapping[str, Any]]) -> list[Grid]:
    """Return the metrics over all seeds as a table; none if there are none."""
    lines = []
    for row in metrics:
        value, low, high = (_number(row.get(name)) for name in ("value", "low", "high"))
        if row.get("split") and row.get("seed") is None and not row.get("against") and not math.isnan(value):
            words = [cell_text(row.get(name, ""), 60) for name in ("variant", "task", "split", "metric")]
            lines.append([*words, value_cell({"value": value, "low": low, "high": high}, 4)])
    caption = f"Metrics as they were measured; in brackets 95 % intervals. {_cut_note(lines)}".strip()
    heads = ["variant", "task", "split", "metric", "value"]
    return [Grid(caption=caption, heads=heads, rows=lines[:MOST_ROWS], text_columns=4)] if lines else []


def _cut_note(lines: Sequence[Any]) -> str:
    return f"The first {MOST_ROWS} of {len(lines):,} lines." if len(lines) > MOST_ROWS else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
