"""The report of a comparison of sentences: heatmaps, maps, tables, drawn from the run folder's tables alone."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from permafrost.probes.figures.sentence_map import about_tsne, shape, spaces
from permafrost.probes.figures.style import SETTINGS, canvas, caption
from permafrost.probes.metrics.cosines import square
from permafrost.probes.reports.page import (
    Facts,
    Fold,
    Grid,
    Picture,
    Section,
    Tile,
    Turnable,
    figures_folder,
    render,
    replace_file,
    save_picture,
    tidy,
)
from permafrost.probes.results.files import ReportError, Schema, number, read_table, read_words, shown_name
from permafrost.probes.results.formatting import duration
from permafrost.probes.results.run_folder import RunFolder

SCHEMAS = {
    "cosines": Schema(("backbone",), ("first", "second", "cosine")),
    "sentences": Schema(("text",), ("sentence",)),
    "maps": Schema(("map", "backbone", "method"), ("sentence", "x", "y", "z")),
}

MOST_WRITTEN = 16
"""Sentences up to which a heatmap has its figures written in it."""

DARKEST = "#0b4f8a"
"""The shade of a cosine of 1; not one of the page's colours, which change at night."""

MOST_LINES = 45
"""Pairs up to which the table of cosines stands open."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the folder of a comparison says."""

    name: str
    record: Mapping[str, Any]
    recipe: str
    cosines: pd.DataFrame
    texts: list[str]
    maps: pd.DataFrame

    @property
    def titles(self) -> dict[str, str]:
        """Backbone -> its name without the folder or owner before it, where that tells it from the others."""
        names = list(dict.fromkeys(self.cosines["backbone"]))
        short = [name.rstrip("/").rsplit("/", 1)[-1] for name in names]
        return {
            name: caption(one if short.count(one) == 1 else name, 40) for name, one in zip(names, short, strict=True)
        }

    def told(self, key: str) -> Mapping[str, Any]:
        """A table of the record; empty where it is missing or something else."""
        found = self.record.get(key)
        return found if isinstance(found, Mapping) else {}


def write_page(folder: Path) -> Path:
    """Draw ``figures/`` and ``report.html`` of a comparison from its tables; returns the page.

    Raises:
        ReportError: a table is missing, or cannot be read.
        DamageError: one is not as the run wrote it.
    """
    run = read_comparison(folder)
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a sentence may be in any script
        kept = figures_folder(folder)
        pictures = [
            save_picture(kept, f"heatmap-{place}-{_slug(title)}", figure, title, "Darker is nearer; one scale for all.")
            for place, (title, figure) in enumerate(heatmaps(run).items(), 1)
        ]
        about = f"Cosines of {len(run.texts):,} sentences by {', '.join(run.titles.values())}."
        page = render(run.name, "similarity", tidy(about), tiles(run), sections(run, pictures))
    replace_file(folder / "report.html", page.encode("utf-8", "replace"))
    return folder / "report.html"


def read_comparison(folder: Path) -> Comparison:
    """Read the folder of a comparison; errors as of :func:`write_page`."""
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
    name = shown_name(run, "similarity")
    return Comparison(name, run.record, read_words(run), frames["cosines"], texts, frames["maps"])


def heatmaps(run: Comparison) -> dict[str, Figure]:
    """Title of a backbone -> its cosines as a heatmap; shades mean the same in all of them."""
    floor = min(float(run.cosines["cosine"].min()), 0.99)
    tables = {title: square(run.cosines, backbone, len(run.texts)) for backbone, title in run.titles.items()}
    return {title: heatmap(table, run.texts, title, floor) for title, table in tables.items()}


def heatmap(table: NDArray[np.float64], texts: Sequence[str], title: str, floor: float) -> Figure:
    """One table of cosines, ``[sentence, sentence]``; white is ``floor``, the least of all backbones."""
    from matplotlib.colors import LinearSegmentedColormap

    count = len(table)
    side = float(np.clip(2.0 + 0.55 * count, 2.8, 9.0))
    figure, (axes,) = canvas(title, "sentence", "", size=(side + 2.0, side))
    shades = LinearSegmentedColormap.from_list("cosine", ["#ffffff", DARKEST])
    edges = np.arange(count + 1) + 0.5
    drawn = axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(table), cmap=shades, vmin=floor, vmax=1, rasterized=count > MOST_WRITTEN
    )
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    if count <= MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                dark = value - floor > 0.55 * (1 - floor)
                at = (column + 1, row + 1)
                axes.annotate(
                    f"{value:.3f}" if count < 10 else f"{value:.2f}", at, ha="center", va="center", fontsize=7,
                    color="#ffffff" if dark else "#1b1d1f",
                )  # fmt: skip
        axes.set_yticks(range(1, count + 1), [f"{caption(text, 24)}  {at}" for at, text in enumerate(texts, 1)])
        axes.set_xticks(range(1, count + 1))
    axes.set(xlim=(0.5, count + 0.5), ylim=(count + 0.5, 0.5))
    axes.grid(visible=False)
    return figure


def tiles(run: Comparison) -> list[Tile]:
    """What stands at the top: how much was compared, the nearest pair by each backbone."""
    found = [Tile("sentences", f"{len(run.texts):,}")]
    for backbone, title in list(run.titles.items())[:6]:
        rows = run.cosines[(run.cosines["backbone"] == backbone) & run.cosines["cosine"].notna()]
        if len(rows):
            best = rows.iloc[int(rows["cosine"].argmax())]
            pair = f"sentences {best['first']:.0f} and {best['second']:.0f}, the nearest"
            found.append(Tile(title, f"{best['cosine']:.4f}", pair))
    return found


def sections(run: Comparison, pictures: Sequence[Picture]) -> list[Section]:
    """The page in its order."""
    data = spaces(run.maps, run.texts, run.titles)
    notes = [
        "Colour is the backbone, the marker the sentence.",
        "Backbones differ in width, so each has a map of its latents alone; on the map of all of them, a sentence's "
        "coordinates are its cosines with every sentence, which have the same meaning whatever the width.",
        about_tsne(data, len(set(run.texts))),
    ]
    lines = [[f"{at}", shape(at), tidy(text)] for at, text in enumerate(run.texts, 1)]
    sentences = Grid("Each sentence and its marker on the maps.", ["number", "marker", "sentence"], lines, 3)
    cloud = [Turnable(data, spread=True)] if data["inputs"] else []
    recipe = [Fold("recipe.toml", run.recipe)] if run.recipe else []
    return [
        Section("results", "Cosines", "", [cosine_grid(run), sentences]),
        Section("heatmaps", "Heatmaps", "", pictures),
        Section("space", "Sentences in space", " ".join(filter(None, notes)), cloud),
        Section("provenance", "What ran", "", [provenance(run), *recipe]),
    ]


def cosine_grid(run: Comparison) -> Grid:
    """A line a pair, a column a backbone; the nearest pair by the first of them is marked."""
    wide = run.cosines.pivot_table(index=["first", "second"], columns="backbone", values="cosine", sort=False)
    wide = wide.reindex(columns=list(run.titles))
    lines = [
        [f"{pair[0]:.0f} and {pair[1]:.0f}", *("–" if np.isnan(value) else f"{value:.6f}" for value in row)]
        for pair, row in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    pooling = "the first token" if run.record.get("pooling") == "cls" else "the mean over all tokens"
    fold = f"All {len(lines):,} pairs" if len(lines) > MOST_LINES else ""
    about = f"Cosine of every pair of sentences: {pooling} of the last layer, in float32."
    return Grid(about, ["sentences", *run.titles.values()], lines, 1, fold=fold)


def provenance(run: Comparison) -> Facts:
    """What was run, on what, with which versions."""
    facts = [("backbones", ", ".join(run.titles))]
    facts += [("left out", f"{name}: {why}") for name, why in run.told("refused").items()]
    known = {key: run.record.get(key) for key in ("pooling", "texts_run", "commit", "machine")}
    facts += [(key, str(value)) for key, value in known.items() if value is not None]
    versions = ", ".join(f"{name} {version}" for name, version in run.told("versions").items() if version)
    seconds = number(run.told("seconds").get("all"))
    facts += [("versions", versions)] * bool(versions) + [("took", duration(seconds or 0))] * (seconds is not None)
    return Facts([(tidy(name.replace("_", " ")), tidy(value)) for name, value in facts])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "backbone"
