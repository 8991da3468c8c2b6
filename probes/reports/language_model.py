"""The report of a pretraining: its loss by step and what came of it, drawn from the run folder's tables alone."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import RECIPE
from permafrost.probes.figures.style import COLOURS, GREY, SETTINGS, canvas, legend
from permafrost.probes.reports.page import (
    Facts,
    Fold,
    Grid,
    Section,
    Tile,
    figures_folder,
    render,
    replace_file,
    save_picture,
    tidy,
)
from permafrost.probes.results.files import ReportError, Schema, number, read_table, read_words, shown_name
from permafrost.probes.results.formatting import duration
from permafrost.probes.results.run_folder import RunFolder

LOSSES = Schema((), ("step", "loss"))

METRICS = Schema(("variant", "backbone", "split", "metric"), ("value", "low", "high", "n"))

SMOOTHED, FEWEST = 0.02, 10
"""Share of all steps in one value of the running mean, and the fewest in it."""

MOST_POINTS = 2000
"""Steps drawn one by one; of more, some are left out."""


def write_page(folder: Path) -> Path:
    """Draw ``figures/`` and ``report.html`` of a pretraining from its tables; returns the page.

    Raises:
        ReportError: a table is missing, or cannot be read.
        DamageError: one is not as the run wrote it.
    """
    run = RunFolder(folder, ReportError)
    for name in ("losses.csv", "metrics.csv", RECIPE):
        if not run.has(name):
            raise ReportError(f"{folder} is no finished pretraining: it has no {name}. Run 'pretrain' again.")
    record, name = run.record, shown_name(run, "pretraining")
    losses, metrics = read_table(run, "losses.csv", LOSSES), read_table(run, "metrics.csv", METRICS)
    held_out = metrics[(metrics["split"] == HELD_OUT) & (metrics["metric"] == "loss")]["value"].dropna().tolist()
    about = "Loss of every step (pale) and its running mean; across, the loss on held-out text."
    with matplotlib.rc_context(SETTINGS):
        drawn = curve(losses, held_out[0] if held_out else None)
        picture = save_picture(figures_folder(folder), "loss", drawn, "Loss", about)
        told = record.get("pretraining")
        facts = told if isinstance(told, dict) else {}
        recipe = Fold(RECIPE, read_words(run))
        sections = [
            Section("results", "Results", "", [_grid(metrics), picture]),
            Section("provenance", "What ran", "", [_provenance(facts, record), recipe]),
        ]
        lead = f"A language model from scratch, on {tidy(facts.get('text', 'plain text'), 80)}."
        page = render(name, "pretraining", lead, _tiles(facts), sections)
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def curve(losses: pd.DataFrame, held_out: float | None) -> Figure:
    """Loss by step with its running mean, and the held-out loss across."""
    figure, (axes,) = canvas("loss by step", "step", "loss, in nats")
    every = losses.iloc[:: max(1, len(losses) // MOST_POINTS)]
    axes.plot(every["step"], every["loss"], color=COLOURS[0], alpha=0.25, linewidth=0.6, label="one step")
    steps = max(FEWEST, round(SMOOTHED * len(losses)))
    mean = losses["loss"].rolling(steps, min_periods=1, center=True).mean()
    axes.plot(losses["step"], mean, color=COLOURS[0], linewidth=1.6, label=f"mean of {steps:,} steps")
    if held_out is not None:
        axes.axhline(held_out, color=GREY, linestyle="--", linewidth=1.2, label=f"held-out text: {held_out:.3f}")
    seen = losses["loss"].to_numpy()
    if len(seen) and np.isfinite(seen).any():
        axes.set_ylim(top=float(np.nanmax(seen)) * 1.03)
    legend(figure, [axes])
    return figure


def _grid(metrics: pd.DataFrame) -> Grid:
    lines = []
    for _, row in metrics.iterrows():
        spread = f"{row['low']:.4f} to {row['high']:.4f}" if pd.notna(row["low"]) and pd.notna(row["high"]) else ""
        said = [tidy(row[name]) for name in ("variant", "split", "metric")]
        lines.append([*said, f"{row['value']:.4f}", spread, f"{row['n']:,.0f}"])
    about = "Loss is the mean of what was guessed, in nats; perplexity its exponential. Of training, the last steps."
    return Grid(about, ["objective", "text", "measured", "value", "95 % interval", "blocks"], lines, 3)


def _tiles(facts: dict[str, object]) -> list[Tile]:
    shown = {"held-out loss": ("loss_held_out", ".3f"), "perplexity": ("perplexity", ",.2f")}
    shown |= {"parameters": ("parameters", ",.0f"), "steps": ("steps", ",.0f")}
    values = {title: (number(facts.get(key)), form) for title, (key, form) in shown.items()}
    found = [Tile(title, format(value, form)) for title, (value, form) in values.items() if value is not None]
    seconds = number(facts.get("seconds"))
    return found + ([Tile("took", duration(seconds))] if seconds is not None else [])


def _provenance(facts: dict[str, object], record: object) -> Facts:
    told = record if isinstance(record, dict) else {}
    known = {name: facts.get(name) for name in ("model", "text", "documents", "blocks", "blocks_held_out")}
    known |= {"compute_dtype": facts.get("compute_dtype")} | {name: told.get(name) for name in ("commit", "machine")}
    versions = told.get("versions")
    if isinstance(versions, dict):
        known["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    said = {name: f"{value:,}" if isinstance(value, int) else value for name, value in known.items()}
    return Facts([(name.replace("_", " "), tidy(value)) for name, value in said.items() if value is not None])
