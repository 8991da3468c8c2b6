"""Report of a pretraining: loss by step, metrics and facts, drawn from the tables of its run folder alone."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from permafrost.data.corpora.records import HELD_OUT
from permafrost.probes.config.names import RECIPE
from permafrost.probes.figures.style import COLOURS, GREY, SETTINGS, new_figure, shared_legend
from permafrost.probes.reports.page import (
    Facts,
    FoldedText,
    Grid,
    Section,
    Tile,
    cell_text,
    figures_folder,
    render_page,
    replace_file,
    save_picture,
)
from permafrost.probes.results.files import Schema, number, read_recipe_text, read_table, run_name
from permafrost.probes.results.formatting import format_duration
from permafrost.probes.results.run_folder import ReportError, RunFolder

LOSSES = Schema((), ("step", "loss"))

METRICS = Schema(("variant", "backbone", "split", "metric"), ("value", "low", "high", "n"))

SMOOTHED, FEWEST = 0.02, 10
"""Window of the running mean: share of all steps, and least number of steps."""

MOST_POINTS = 2000
"""Steps that are drawn one by one; of more, every second, third, and so on."""


def write_page(folder: Path) -> Path:
    """Draw ``figures/`` and ``report.html`` of a pretraining from its tables; return the path of the page.

    Raises:
        ReportError: a table is missing, or cannot be read.
        DamageError: a file is not as the run wrote it.
    """
    run = RunFolder(folder, ReportError)
    for name in ("losses.csv", "metrics.csv", RECIPE):
        if not run.has(name):
            raise ReportError(f"{folder} is no finished pretraining: it has no {name}. Run 'pretrain' again.")
    record, name = run.record, run_name(run, "pretraining")
    losses, metrics = read_table(run, "losses.csv", LOSSES), read_table(run, "metrics.csv", METRICS)
    held_out = metrics[(metrics["split"] == HELD_OUT) & (metrics["metric"] == "loss")]["value"].dropna().tolist()
    caption = "Loss of every step (pale) and its running mean; across, the loss on held-out text."
    with matplotlib.rc_context(SETTINGS):
        figure = loss_curve(losses, held_out[0] if held_out else None)
        picture = save_picture(figures_folder(folder), "loss", figure, "Loss", caption)
        table = record.get("pretraining")
        facts = table if isinstance(table, dict) else {}
        recipe = FoldedText(RECIPE, read_recipe_text(run))
        sections = [
            Section("results", "Results", "", [_grid(metrics), picture]),
            Section("provenance", "What ran", "", [_provenance(facts, record), recipe]),
        ]
        lead = f"A language model from scratch, on {cell_text(facts.get('text', 'plain text'), 80)}."
        page = render_page(name, "pretraining", lead, _tiles(facts), sections)
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def loss_curve(losses: pd.DataFrame, held_out: float | None) -> Figure:
    """Draw the loss by step with its running mean; the held-out loss is a line across. All losses are in nats."""
    figure, (axes,) = new_figure("loss by step", "step", "loss, in nats")
    points = losses.iloc[:: max(1, len(losses) // MOST_POINTS)]
    axes.plot(points["step"], points["loss"], color=COLOURS[0], alpha=0.25, linewidth=0.6, label="one step")
    steps = max(FEWEST, round(SMOOTHED * len(losses)))
    mean = losses["loss"].rolling(steps, min_periods=1, center=True).mean()
    axes.plot(losses["step"], mean, color=COLOURS[0], linewidth=1.6, label=f"mean of {steps:,} steps")
    if held_out is not None:
        axes.axhline(held_out, color=GREY, linestyle="--", linewidth=1.2, label=f"held-out text: {held_out:.3f}")
    values = losses["loss"].to_numpy()
    if len(values) and np.isfinite(values).any():
        axes.set_ylim(top=float(np.nanmax(values)) * 1.03)
    shared_legend(figure, [axes])
    return figure


def _grid(metrics: pd.DataFrame) -> Grid:
    lines = []
    for _, row in metrics.iterrows():
        interval = f"{row['low']:.4f} to {row['high']:.4f}" if pd.notna(row["low"]) and pd.notna(row["high"]) else ""
        names = [cell_text(row[name]) for name in ("variant", "split", "metric")]
        lines.append([*names, f"{row['value']:.4f}", interval, f"{row['n']:,.0f}"])
    return Grid(
        caption="Loss is the mean over predicted tokens, in nats; perplexity is its exponential. Of training, the last "
        "steps.",
        heads=["objective", "text", "measured", "value", "95 % interval", "blocks"],
        rows=lines,
        text_columns=3,
    )


def _tiles(facts: dict[str, object]) -> list[Tile]:
    formats = {"held-out loss": ("loss_held_out", ".3f"), "perplexity": ("perplexity", ",.2f")}
    formats |= {"parameters": ("parameters", ",.0f"), "steps": ("steps", ",.0f")}
    values = {title: (number(facts.get(key)), spec) for title, (key, spec) in formats.items()}
    tiles = [Tile(title, format(value, spec)) for title, (value, spec) in values.items() if value is not None]
    seconds = number(facts.get("seconds"))
    return tiles + ([Tile("took", format_duration(seconds))] if seconds is not None else [])


def _provenance(facts: Mapping[str, object], record: Mapping[str, object]) -> Facts:
    values = {name: facts.get(name) for name in ("model", "text", "documents", "blocks", "blocks_held_out")}
    values |= {"compute_dtype": facts.get("compute_dtype")}
    values |= {name: record.get(name) for name in ("commit", "machine")}
    versions = record.get("versions")
    if isinstance(versions, dict):
        values["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    texts = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
    return Facts([(name.replace("_", " "), cell_text(value)) for name, value in texts.items() if value is not None])
