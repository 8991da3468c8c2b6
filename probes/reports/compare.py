"""Several runs side by side, and whether they differ: a paired bootstrap over the rows that both predicted."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from permafrost.probes.figures.style import COLOURS, SETTINGS, canvas, caption
from permafrost.probes.metrics.bootstrap import paired
from permafrost.probes.reports.page import Grid, Picture, Section, render, replace_file, svg_of, tidy
from permafrost.probes.reports.paired import resampled
from permafrost.probes.reports.summary import UNDEFINED, size_of, value_and_interval
from permafrost.probes.results.files import ReportError
from permafrost.probes.results.run_folder import RunFolder
from permafrost.probes.results.run_tables import Tables, read_tables

COLUMNS = [
    "run", "corpus", "variant", "split", "metric", "value", "low", "high", "n", "parameters",
    "difference", "difference_low", "difference_high", "p", "note",
]  # fmt: skip


def comparison(folders: Sequence[Path]) -> pd.DataFrame:
    """A line per run, its chosen variant, and its difference from the first run.

    Raises:
        ReportError: no folder, or one that is no finished run.
    """
    if not folders:
        raise ReportError("there is nothing to compare: name the folders of two runs or more.")
    runs = [read_tables(folder) for folder in folders]
    for folder, run in zip(folders, runs, strict=True):
        pretraining = RunFolder(folder, ReportError).has("losses.csv")
        if run.metrics.empty or len(run.layers) or len(run.variants) or pretraining:
            raise ReportError(
                f"{folder} has no variants to compare: several tasks, layers, an ablation, a study or pretraining have "
                "reports of their own."
            )
    names = [run.name for run in runs]
    shown = [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
    lines = [
        _line(name, run) | (_against(runs[0], run) if index else {})
        for index, (name, run) in enumerate(zip(shown, runs, strict=True))
    ]
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.assign(note=frame["note"].astype(object).fillna(""))


def on_screen(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """A comparison as heads and lines of words."""
    heads = ["run", "chosen", "measured", "value", "difference", "p"]
    lines = []
    for _, row in frame.iterrows():
        value, difference = (
            " ".join([told] if isinstance(told, str) else told) for told in (value_and_interval(row), _difference(row))
        )
        lines.append([row["run"], row["variant"], f"{row['metric']} on {row['split']}", value, difference, _p(row)])
    return heads, lines


def compare(folders: Sequence[Path], out: Path) -> Path:
    """Write the comparison of several runs as one HTML page to ``out``."""
    if out.is_dir() or not out.parent.is_dir():
        raise ReportError(f"{out}: a file in a folder that is there is needed; set --out to another.")
    frame = comparison(folders)
    lines = [
        [
            *(tidy(row[name], 80) for name in ("run", "corpus", "variant")),
            f"{tidy(row['metric'], 40)} on {row['split']}, {_whole(row['n'])} rows",
            value_and_interval(row), _whole(row["parameters"]), _difference(row), _p(row),
        ]
        for _, row in frame.iterrows()
    ]  # fmt: skip
    heads = ["run", "corpus", "chosen", "measured", "value", "parameters", "difference", "p"]
    said = "Brackets are bootstrap 95 % intervals over rows. Differences are from the first run, on the same rows."
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = ladder(frame)
        drawn = (
            [Picture("runs", svg_of(figure), "Runs", "The chosen variant of each run, with 95 % intervals.")]
            if figure
            else []
        )
        section = Section("results", "Results", said, [Grid("Chosen variants.", heads, lines, 4), *drawn])
        page = render("Comparison", "comparison", f"{len(frame)} runs side by side.", [], [section])
    replace_file(out, page.encode("utf-8", "replace"))
    return out


def ladder(frame: pd.DataFrame) -> Figure | None:
    """Runs as bars with intervals, in the order given; only those of the first run's metric."""
    rows = frame[(frame["metric"] == frame["metric"].iloc[0]) & frame["value"].notna()][::-1]
    if rows.empty:
        return None
    metric = caption(rows["metric"].iloc[0])
    figure, (axes,) = canvas(metric, metric, "", size=(6.4, max(1.8, 0.42 * len(rows) + 1.1)))
    for place, (_, row) in enumerate(rows.iterrows()):
        axes.barh(place, row["value"], 0.62, color=COLOURS[0], alpha=0.45)
        axes.plot([row["low"], row["high"]], [place, place], color="black", linewidth=1.2, marker="|")
    axes.set_yticks(range(len(rows)), [caption(name) for name in rows["run"]])
    axes.grid(visible=False, axis="y")
    return figure


def _line(name: str, run: Tables) -> dict[str, Any]:
    rows = run.metrics[(run.metrics["variant"] == run.selected) & (run.metrics["metric"] == run.metric)]
    rows = rows[(rows["split"] == run.split) & rows["seed"].isna()]
    measured = {key: rows[key].iloc[0] if len(rows) else float("nan") for key in ("value", "low", "high", "n")}
    parameters = size_of(run, run.selected)[0]
    about = {"run": name, "corpus": str(run.record_table("corpus").get("name", "")), "variant": run.selected}
    return about | {"split": run.split, "metric": run.metric} | measured | {"parameters": parameters}


def _against(base: Tables, run: Tables) -> dict[str, Any]:
    measured = resampled(base, run)
    if isinstance(measured, str):
        return {"note": f"{measured}: no paired test"}
    found = paired(measured[0], measured[1]) if measured[0] and measured[1] else None
    if found is None:
        return {"note": f"{UNDEFINED}: no paired test"}
    return {"difference": found.difference, "difference_low": found.low, "difference_high": found.high, "p": found.p}


def _whole(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def _difference(row: pd.Series) -> str | tuple[str, str]:
    if pd.isna(row["difference"]):
        return str(row["note"]) or "–"
    return f"{row['difference']:+.3f}", f"[{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"


def _p(row: pd.Series) -> str:
    return "–" if pd.isna(row["p"]) else "<\u202f0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
