"""Report of a comparison of sentences: heatmaps, maps and tables, drawn from the tables of its run folder alone."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from permafrost.probes.figures.sentence_map import marker_character, missing_tsne_note, sentence_maps
from permafrost.probes.figures.style import SETTINGS, new_figure, short_name
from permafrost.probes.metrics.cosines import matrix_from_pairs
from permafrost.probes.reports.page import (
    Facts,
    FoldedText,
    Grid,
    Picture,
    Scatter,
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

SCHEMAS = {
    "cosines": Schema(("backbone",), ("first", "second", "cosine")),
    "sentences": Schema(("text",), ("sentence",)),
    "maps": Schema(("map", "backbone", "method"), ("sentence", "x", "y", "z")),
}

MOST_WRITTEN = 16
"""Sentences up to which a heatmap shows its values."""

DARKEST = "#0b4f8a"
"""Colour of a cosine of 1; none of the page's colours, which change in dark mode."""

MOST_LINES = 45
"""Pairs up to which the table of cosines is not folded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The tables of the run folder of a comparison."""

    name: str
    record: Mapping[str, Any]
    recipe: str
    cosines: pd.DataFrame
    """``backbone, first, second, cosine``; sentences are numbered from 1."""

    texts: list[str]
    maps: pd.DataFrame
    """``map, backbone, method, sentence, x, y, z``."""

    @property
    def titles(self) -> dict[str, str]:
        """Backbone -> its title: the last part of its name if no other backbone has the same, else the whole name."""
        names = list(dict.fromkeys(self.cosines["backbone"]))
        last_parts = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
        return {
            name: short_name(last_part if last_parts.count(last_part) == 1 else name, 40)
            for name, last_part in zip(names, last_parts, strict=True)
        }

    def record_table(self, key: str) -> Mapping[str, Any]:
        """Return a table of the record; empty if it is missing or no table."""
        table = self.record.get(key)
        return table if isinstance(table, Mapping) else {}


def write_page(folder: Path) -> Path:
    """Draw ``figures/`` and ``report.html`` of a comparison from its tables; return the path of the page.

    Raises:
        ReportError: a table is missing, or cannot be read.
        DamageError: a file is not as the run wrote it.
    """
    run = read_comparison(folder)
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a sentence may be in any script
        figures = figures_folder(folder)
        caption = "Darker is nearer; one scale for all."
        pictures = [
            save_picture(figures, f"heatmap-{number}-{_slug(title)}", figure, title, caption)
            for number, (title, figure) in enumerate(heatmaps(run).items(), 1)
        ]
        lead = f"Cosines of {len(run.texts):,} sentences by {', '.join(run.titles.values())}."
        page = render_page(run.name, "similarity", cell_text(lead), similarity_tiles(run), sections(run, pictures))
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def read_comparison(folder: Path) -> Comparison:
    """Read the run folder of a comparison; raises as :func:`write_page`."""
    run = RunFolder(folder, ReportError)
    for name in (f"{table}.csv" for table in SCHEMAS):
        if not run.has(name):
            raise ReportError(f"{folder} is no finished comparison: it has no {name}. Run 'similarity' again.")
    frames = {name: read_table(run, f"{name}.csv", schema) for name, schema in SCHEMAS.items()}
    texts = frames["sentences"]["text"].tolist()
    for table, columns in (("cosines", ("first", "second")), ("maps", ("sentence",))):
        for column in columns:
            if not frames[table][column].isin(range(1, len(texts) + 1)).all():
                raise ReportError(f"{folder / table}.csv: column '{column}' must be numbers from 1 to {len(texts)}.")
    if frames["cosines"].empty:
        raise ReportError(f"{folder / 'cosines.csv'} holds no cosines. Run 'similarity' again.")
    return Comparison(
        name=run_name(run, "similarity"),
        record=run.record,
        recipe=read_recipe_text(run),
        cosines=frames["cosines"],
        texts=texts,
        maps=frames["maps"],
    )


def heatmaps(run: Comparison) -> dict[str, Figure]:
    """Draw a heatmap of cosines per backbone, all with one scale; keys are titles of backbones."""
    floor = min(float(run.cosines["cosine"].min()), 0.99)
    tables = {title: matrix_from_pairs(run.cosines, backbone, len(run.texts)) for backbone, title in run.titles.items()}
    return {title: heatmap(table, run.texts, title, floor) for title, table in tables.items()}


def heatmap(table: NDArray[np.float64], texts: Sequence[str], title: str, floor: float) -> Figure:
    """Draw cosines ``[sentence, sentence]`` as a heatmap; white is ``floor``, the least cosine of all backbones."""
    count = len(table)
    side = float(np.clip(2.0 + 0.55 * count, 2.8, 9.0))
    figure, (axes,) = new_figure(title, "sentence", "", size=(side + 2.0, side))
    shades = LinearSegmentedColormap.from_list("cosine", ["#ffffff", DARKEST])
    edges = np.arange(count + 1) + 0.5
    mesh = axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(table), cmap=shades, vmin=floor, vmax=1, rasterized=count > MOST_WRITTEN
    )
    figure.colorbar(mesh, ax=axes, shrink=0.8)
    if count <= MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                dark = value - floor > 0.55 * (1 - floor)
                axes.annotate(
                    f"{value:.3f}" if count < 10 else f"{value:.2f}", (column + 1, row + 1), ha="center", va="center",
                    fontsize=7, color="#ffffff" if dark else "#1b1d1f",
                )  # fmt: skip
        axes.set_yticks(range(1, count + 1), [f"{short_name(text, 24)}  {n}" for n, text in enumerate(texts, 1)])
        axes.set_xticks(range(1, count + 1))
    axes.set(xlim=(0.5, count + 0.5), ylim=(count + 0.5, 0.5))
    axes.grid(visible=False)
    return figure


def similarity_tiles(run: Comparison) -> list[Tile]:
    """Return tiles: the number of sentences, and the nearest pair by each backbone."""
    tiles = [Tile("sentences", f"{len(run.texts):,}")]
    for backbone, title in list(run.titles.items())[:6]:
        rows = run.cosines[(run.cosines["backbone"] == backbone) & run.cosines["cosine"].notna()]
        if len(rows):
            nearest = rows.iloc[int(rows["cosine"].argmax())]
            pair = f"sentences {nearest['first']:.0f} and {nearest['second']:.0f}, the nearest"
            tiles.append(Tile(title, f"{nearest['cosine']:.4f}", pair))
    return tiles


def sections(run: Comparison, pictures: Sequence[Picture]) -> list[Section]:
    """Return the sections of the page in order."""
    data = sentence_maps(run.maps, run.texts, run.titles)
    notes = [
        "Colour is the backbone, the marker the sentence.",
        "Backbones differ in width, so each has a map of its latents alone; on the map of all of them, a sentence's "
        "coordinates are its cosines with every sentence, which have the same meaning whatever the width.",
        missing_tsne_note(data, len(set(run.texts))),
    ]
    sentences = Grid(
        caption="Each sentence and its marker on the maps.",
        heads=["number", "marker", "sentence"],
        rows=[[f"{n}", marker_character(n), cell_text(text)] for n, text in enumerate(run.texts, 1)],
        text_columns=3,
    )
    cloud = [Scatter(data, show_all=True)] if data["inputs"] else []
    recipe = [FoldedText("recipe.toml", run.recipe)] if run.recipe else []
    return [
        Section("results", "Cosines", "", [cosine_grid(run), sentences]),
        Section("heatmaps", "Heatmaps", "", pictures),
        Section("space", "Sentences in space", " ".join(filter(None, notes)), cloud),
        Section("provenance", "What ran", "", [provenance(run), *recipe]),
    ]


def cosine_grid(run: Comparison) -> Grid:
    """Return cosines, a line per pair and a column per backbone; folded if there are many."""
    by_pair = run.cosines.pivot_table(index=["first", "second"], columns="backbone", values="cosine", sort=False)
    by_pair = by_pair.reindex(columns=list(run.titles))
    lines = [
        [f"{pair[0]:.0f} and {pair[1]:.0f}", *("–" if np.isnan(value) else f"{value:.6f}" for value in row)]
        for pair, row in zip(by_pair.index, by_pair.to_numpy(), strict=True)
    ]
    pooling = "the first token" if run.record.get("pooling") == "cls" else "the mean over all tokens"
    return Grid(
        caption=f"Cosine of every pair of sentences: {pooling} of the last layer, in float32.",
        heads=["sentences", *run.titles.values()],
        rows=lines,
        fold=f"All {len(lines):,} pairs" if len(lines) > MOST_LINES else "",
    )


def provenance(run: Comparison) -> Facts:
    """Return backbones, settings, machine, versions and time of a comparison."""
    facts = [("backbones", ", ".join(run.titles))]
    facts += [("left out", f"{name}: {why}") for name, why in run.record_table("refused").items()]
    values = {key: run.record.get(key) for key in ("pooling", "texts_run", "commit", "machine")}
    facts += [(key, str(value)) for key, value in values.items() if value is not None]
    versions = ", ".join(f"{name} {version}" for name, version in run.record_table("versions").items() if version)
    seconds = number(run.record_table("seconds").get("all"))
    facts += [("versions", versions)] * bool(versions) + [("took", format_duration(seconds or 0))] * (
        seconds is not None
    )
    return Facts([(cell_text(name.replace("_", " ")), cell_text(value)) for name, value in facts])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "backbone"
