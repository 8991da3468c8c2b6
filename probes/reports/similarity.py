"""Page of a comparison of sentences: its lead, tiles, tables, heatmaps and maps."""

import re

from permafrost.probes.figures.sentence_map import (
    backbone_titles,
    few_points_note,
    heatmaps,
    marker_character,
    missing_tsne_note,
    sentence_maps,
)
from permafrost.probes.reports.page import Picture, Scatter, Section, Tile
from permafrost.probes.results.formatting import decimals
from permafrost.probes.results.grid import Grid, cell_text, pivot_lines
from permafrost.probes.results.run_tables import Tables

MOST_LINES = 45
"""Pairs up to which the table of cosines is not folded."""


def similarity_lead(run: Tables) -> str:
    """Return a sentence with the number of sentences and the backbones."""
    titles = ", ".join(backbone_titles(run).values())
    return cell_text(f"Cosines of {len(run['sentences']):,} sentences by {titles}.")


def similarity_tiles(run: Tables) -> list[Tile]:
    """Return tiles: the number of sentences, and the nearest pair by each backbone."""
    tiles = [Tile("sentences", f"{len(run['sentences']):,}")]
    for backbone, title in list(backbone_titles(run).items())[:6]:
        rows = run["cosines"][(run["cosines"]["backbone"] == backbone) & run["cosines"]["cosine"].notna()]
        if len(rows):
            nearest = rows.iloc[int(rows["cosine"].argmax())]
            pair = f"sentences {nearest['first']:.0f} and {nearest['second']:.0f}, the nearest"
            tiles.append(Tile(title, f"{nearest['cosine']:.4f}", pair))
    return tiles


def cosine_grids(run: Tables) -> list[Grid]:
    """Return cosines, a line per pair and a column per backbone; folded if there are many."""
    titles = backbone_titles(run)
    cosines = run["cosines"]
    pairs = [f"{first:.0f}-{second:.0f}" for first, second in zip(cosines["first"], cosines["second"], strict=True)]
    rows = cosines.assign(pair=pairs, column=cosines["backbone"])
    lines = pivot_lines(rows, ["pair"], list(titles), lambda row: decimals(row["cosine"], 6))
    pooling = "the first token" if run.record.get("pooling") == "cls" else "the mean over all tokens"
    grid = Grid(
        caption=f"Cosine of every pair of sentences: {pooling} of the last layer, in float32.",
        heads=["sentences", *titles.values()],
        rows=lines,
        fold=f"All {len(lines):,} pairs" if len(lines) > MOST_LINES else "",
    )
    return [grid]


def similarity_sections(run: Tables) -> list[Section]:
    """Return the sections of cosines with the numbered sentences, of heatmaps, and of the maps in three dimensions."""
    texts, titles = run["sentences"]["text"].tolist(), backbone_titles(run)
    sentences = Grid(
        caption="Each sentence and its marker on the maps.",
        heads=["number", "marker", "sentence"],
        rows=[[f"{n}", marker_character(n), cell_text(text)] for n, text in enumerate(texts, 1)],
        text_columns=3,
    )
    caption = "Darker is nearer; one scale for all."
    pictures = []
    for number, (title, figure) in enumerate(heatmaps(run).items(), 1):
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "backbone"
        pictures.append(Picture(name=f"heatmap-{number}-{slug}", title=title, caption=caption, figure=figure))
    data = sentence_maps(run["maps"], texts, titles)
    maps = run["maps"][run["maps"]["method"] == "tsne"]
    of_backbones = maps[maps["map"] == "latents"].groupby("backbone").size()
    notes = [
        "Colour is the backbone, the marker the sentence.",
        "Backbones differ in width, so each has a map of its latents alone; on the map of all of them, a sentence's "
        "coordinates are its cosines with every sentence, which have the same meaning whatever the width.",
        missing_tsne_note(data, len(set(texts))),
        few_points_note([*maps[maps["map"] == "cosines"].groupby("map").size(), *of_backbones]),
    ]
    cloud = [Scatter(data, show_all=True)] if data["inputs"] else []
    return [
        Section("results", "Cosines", "", [*cosine_grids(run), sentences]),
        Section("heatmaps", "Heatmaps", "", pictures),
        Section("space", "Sentences in space", " ".join(filter(None, notes)), cloud),
    ]
