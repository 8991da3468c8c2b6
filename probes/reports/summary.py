"""Tables and facts of a report on a run of one task: headline, largest errors, ablation, study, provenance.

A missing value is shown as ``undefined`` or a dash, never as ``nan``.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from permafrost.data.corpora.records import Kind
from permafrost.probes.config.names import CORRELATIONS, PROBABILITY, UNTRAINED
from permafrost.probes.reports.page import Cell, Facts, Grid, Line, Tile, cell_text
from permafrost.probes.results.files import number
from permafrost.probes.results.formatting import format_duration
from permafrost.probes.results.run_tables import Tables

UNDEFINED = "undefined"

REFERENCES: dict[Kind, str] = {
    "score": "the cosine of latents as they are",
    "class": "the commonest class of training",
    "tags": "the tag that each word has most often in training",
    "answers": "the sentence that shares most words with the question",
}
"""Kind of predictions -> the untrained reference, in words."""

MOST_ERRORS = 12
"""Rows with the largest errors that are shown."""


def headline_grid(run: Tables) -> Grid | None:
    """Return a line per variant: every metric with its interval, its parameters and their share of the backbone.

    Of the untrained reference the last layer of each view is shown.
    """
    rows = run.metrics[(run.metrics["split"] == run.split) & run.metrics["seed"].isna()]
    rows = rows[~rows["metric"].str.endswith("_p")]
    if rows.empty or len(run.layers):  # a run of layers has a line of metrics.csv for each layer
        return None
    untrained = rows["variant"].str.startswith(UNTRAINED)
    last = rows.groupby(["variant", "view"])["layer"].transform("max")
    rows = rows[~untrained | rows["layer"].isna() | (rows["layer"] == last)]
    metrics, several = list(dict.fromkeys(rows["metric"])), rows["task"].nunique() > 1
    lines: list[Line] = []
    strong = None
    for (variant, view, task), variant_rows in rows.groupby(["variant", "view", "task"], sort=False):
        layer = variant_rows["layer"].iloc[0]
        inputs = str(view).replace("+", " + ") + (f", layer {layer:.0f}" if pd.notna(layer) else "")
        names = [variant, *([task] if several else []), inputs]
        strong = len(lines) if variant == run.selected else strong
        cells = [_metric_cell(variant_rows, metric) for metric in metrics]
        lines.append([*map(cell_text, names), *cells, _parameters_cell(run, str(variant))])
    return Grid(
        caption=_headline_caption(run, rows["n"].max(), bool(untrained.any())),
        heads=["variant", *(["task"] if several else []), "latents", *map(cell_text, metrics), "parameters"],
        rows=lines,
        text_columns=3 if several else 2,
        strong=strong,
    )


def _parameters_cell(run: Tables, variant: str) -> Cell:
    parameters, share = parameters_and_share(run, variant)
    if parameters is None:
        return "–"
    return (f"{parameters:,.0f}", percent(share)) if share else f"{parameters:,.0f}"


def _headline_caption(run: Tables, n: float, has_untrained: bool) -> str:
    of = f" of {n:,.0f} rows" if pd.notna(n) else ""
    caption = f"On {run.split}{of}; in brackets the bootstrap 95 % interval over rows, {run.seed_aggregation}."
    caption += f" “{UNTRAINED}” is {REFERENCES[run.kind]}." if has_untrained and run.kind in REFERENCES else ""
    return caption + (" Beside the parameters, their share of the backbone's." if run.record_table("probes") else "")


def run_tiles(run: Tables) -> list[Tile]:
    """Return tiles of a run: its chosen variant with metric and parameters, or its tasks and layers, and its time."""
    if len(run.layers):
        return _layer_tiles(run)
    tiles = [Tile("chosen", cell_text(run.selected, 40))] if run.selected else []
    rows = run.metrics[
        (run.metrics["split"] == run.split) & (run.metrics["variant"] == run.selected) & run.metrics["seed"].isna()
    ]
    with_value = rows[(rows["metric"] == run.metric) & rows["value"].notna()]
    title = f"{cell_text(run.metric)} on {run.split}"
    if len(with_value):
        row = with_value.iloc[0]
        interval = f"{row['low']:.3f} to {row['high']:.3f}" if pd.notna(row["low"]) and pd.notna(row["high"]) else ""
        tiles.append(Tile(title, f"{row['value']:.3f}", interval))
    elif run.selected and len(run.metrics):
        tiles.append(Tile(title, UNDEFINED, why_undefined(run)))
    parameters, share = parameters_and_share(run, run.selected)
    if parameters is not None:
        tiles.append(Tile("parameters", f"{parameters:,.0f}", f"{percent(share)} of the backbone" if share else ""))
    return tiles + duration_tiles(run)


def why_undefined(run: Tables) -> str:
    """Return a phrase that says why the chosen variant has no value of the run's metric."""
    for column, noun in (("score", "predictions"), ("label", "predictions"), ("target", "targets")):
        if column in run.predictions and run.predictions[column].nunique() == 1:
            return f"all {noun} are the same"
    return "it was not measured"


def errors_grid(run: Tables) -> Grid | None:
    """Return the rows with the largest errors of scores, or the most confident mistakes of classes; None for others."""
    texts = [name for name in ("sentence", "sentence1", "sentence2") if name in run.predictions]
    errors_of = {"score": _score_errors, "class": _class_errors}.get(run.kind)
    return errors_of(run.predictions, texts) if errors_of and texts else None


def _score_errors(predictions: pd.DataFrame, texts: list[str]) -> Grid:
    means = predictions.groupby([*texts, "target"], sort=False)["score"].mean().reset_index()
    means = means.assign(error=(means["score"] - means["target"]).abs()).nlargest(MOST_ERRORS, "error")
    return Grid(
        caption="Largest distance of predicted and gold, mean over seeds.",
        heads=[*texts, "gold", "predicted", "error"],
        rows=[
            [*(cell_text(row[name]) for name in texts), *(f"{row[name]:.2f}" for name in ("target", "score", "error"))]
            for _, row in means.iterrows()
        ],
        text_columns=len(texts),
        sentences=True,
    )


def _class_errors(predictions: pd.DataFrame, texts: list[str]) -> Grid:
    wrong = predictions[predictions["label"] != predictions["target"]].drop_duplicates(texts)
    confidence = [_probability(row) for _, row in wrong.iterrows()]
    wrong = wrong.assign(confidence=pd.Series(confidence, index=wrong.index, dtype=float))
    wrong = wrong.sort_values("confidence", ascending=False)
    lines = [
        [*(cell_text(row[name]) for name in (*texts, "target", "label")), decimals(row["confidence"], 2)]
        for _, row in wrong.head(MOST_ERRORS).iterrows()
    ]
    return Grid(
        caption="Mistakes, the surest first." if lines else "There is no mistake.",
        heads=[*texts, "gold", "predicted", "probability"],
        rows=lines,
        text_columns=len(texts) + 2,
        sentences=True,
    )


def ablation_grid(run: Tables) -> Grid | None:
    """Return every row of the ablation that aggregates over seeds, folded."""
    rows = run.ablation[run.ablation["seed"].isna()]
    if rows.empty:
        return None
    names = [name for name in ("kind", "name", "layers", "control", "split", "metric") if rows[name].nunique() > 1]
    lines = [
        [
            *(cell_text(row[name], 60) for name in names),
            value_cell(row),
            decimals(row["p"], 4),
            decimals(row["parameters"], 0),
        ]
        for _, row in rows.iterrows()
    ]
    metrics, splits = (", ".join(dict.fromkeys(rows[name])) for name in ("metric", "split"))
    caption = f"{metrics} on {splits}; p is that of a paired test against the last layer of the trained backbone alone."
    return Grid(
        caption=cell_text(caption),
        heads=[*names, "value", "p", "parameters"],
        rows=lines,
        text_columns=len(names),
        fold=f"All {len(rows):,} lines of the ablation",
    )


def trials_note(run: Tables) -> str:
    """Return a sentence with the number of trials of a study by their state; empty without trials."""
    counts = run.trials["state"].value_counts()
    if counts.empty:
        return ""
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    ends = ", ".join(
        f"{count:,} {words.get(str(state), cell_text(state, 20).lower())}" for state, count in counts.items()
    )
    return f"{len(run.trials):,} trials: {ends}."


def provenance(run: Tables) -> Facts | None:
    """Return corpus, texts, backbones, sizes, times, machine and versions of a run; None if the record has none."""
    sizes = number(run.record.get("bytes"))
    seconds = {name: number(value) for name, value in run.record_table("seconds").items()}
    versions = run.record_table("versions")
    facts: list[tuple[str, object]] = [
        *_corpus_facts(run),
        ("backbones", ", ".join(dict.fromkeys(run.metrics["backbone"]))),
        ("latents on disk", f"{sizes:,.0f} bytes ({sizes / 2**20:,.1f} MiB)" if sizes else ""),
        ("time", ", ".join(f"{name} {format_duration(value)}" for name, value in seconds.items() if value)),
        *((key, format_value(run.record.get(key))) for key in ("machine", "host", "commit")),
        ("versions", ", ".join(f"{name} {format_value(value)}" for name, value in versions.items())),
    ]
    known = [(name, cell_text(value)) for name, value in facts if value not in ("", None)]
    return Facts(known) if known else None


def _corpus_facts(run: Tables) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = []
    corpus = run.record_table("corpus")
    if corpus:
        rows = "; ".join(f"{split} {format_value(n)}" for split, n in run.record_table("corpus", "rows").items())
        facts.append(("corpus", f"{corpus.get('name', '')}: rows {rows}" if rows else corpus.get("name", "")))
    if run.record.get("texts") is not None:
        texts, distinct, through = (format_value(run.record.get(f"texts{end}")) for end in ("", "_distinct", "_run"))
        facts.append(("texts", f"{texts}, {distinct} distinct, {through} through the backbone"))
    return facts


def duration_tiles(run: Tables) -> list[Tile]:
    """Return a tile with the duration of the run; empty if the record does not have it."""
    seconds = number(run.record_table("seconds").get("all"))
    return [] if seconds is None else [Tile("took", format_duration(seconds))]


def parameters_and_share(run: Tables, variant: str) -> tuple[float | None, float | None]:
    """Return the number of parameters of a variant's probe, and their share of the backbone's; None if unknown."""
    probe = run.record_table("probes", variant)
    parameters = number(probe.get("parameters"))
    if parameters is None:
        parameters = number(run.record_table("parameters").get(variant))
    if parameters is None:
        trained = run.variants.loc[run.variants["variant"] == variant, "trained"]
        parameters = next((number(value) for value in trained), None)
    backbone = number(probe.get("backbone_parameters"))
    return parameters, parameters / backbone if parameters is not None and backbone else None


def percent(share: float) -> str:
    """Return a share as ``2.27 %``."""
    return f"{100 * share:.3g} %"


def value_cell(row: Mapping[str, Any] | pd.Series) -> Cell:
    """Return the value of a row, ``0.842``, with its interval if there is one, ``[0.821, 0.861]``."""
    if pd.isna(row["value"]):
        return UNDEFINED
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]"


def format_value(value: object) -> str:
    """Return a value of the record as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _layer_tiles(run: Tables) -> list[Tile]:
    tasks = len(run.layers[["task", "corpus"]].drop_duplicates())
    layers = run.layers["layer"].dropna().nunique()
    return [Tile("tasks", f"{tasks:,}"), Tile("layers", f"{layers:,}"), *duration_tiles(run)]


def _metric_cell(rows: pd.DataFrame, metric: str) -> Cell:
    with_metric = rows[rows["metric"] == metric]
    if len(with_metric):
        return value_cell(with_metric.iloc[0])
    return UNDEFINED if metric in CORRELATIONS and rows["metric"].isin(["mae"]).any() else "–"


def _probability(row: pd.Series) -> float:
    return float(row.get(PROBABILITY + row["label"], float("nan")))


def decimals(value: float, places: int) -> str:
    """Return a number with ``places`` decimals; a dash if it is missing."""
    return "–" if pd.isna(value) else f"{value:,.{places}f}"
