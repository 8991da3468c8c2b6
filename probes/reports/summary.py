"""What a report says in tables and words, drawn from the tables of a run; a missing figure is said, never ``nan``."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from permafrost.data.corpora.records import Kind
from permafrost.probes.config.names import CORRELATIONS, PROBABILITY, UNTRAINED
from permafrost.probes.reports.page import Facts, Grid, Tile, tidy
from permafrost.probes.results.files import number
from permafrost.probes.results.formatting import duration
from permafrost.probes.results.run_tables import Tables

UNDEFINED = "undefined"

Line = Sequence[str | tuple[str, str]]

REFERENCES: dict[Kind, str] = {
    "score": "the cosine of latents as they are",
    "class": "the commonest class of training",
    "tags": "the tag that each word has most often in training",
    "answers": "the sentence that shares most words with the question",
}
"""What is said without training."""

WORST = 12
"""Rows with the largest errors that are shown."""


def headline(run: Tables) -> Grid | None:
    """A line per variant: every metric with its interval, parameters, share of the backbone.

    Of the untrained reference only the last layer of each view is shown.
    """
    rows = run.metrics[(run.metrics["split"] == run.split) & run.metrics["seed"].isna()]
    rows = rows[~rows["metric"].str.endswith("_p")]
    if rows.empty or len(run.layers):  # of which metrics.csv has a line each
        return None
    raw = rows["variant"].str.startswith(UNTRAINED)
    last = rows.groupby(["variant", "view"])["layer"].transform("max")
    rows = rows[~raw | rows["layer"].isna() | (rows["layer"] == last)]
    metrics, several = list(dict.fromkeys(rows["metric"])), rows["task"].nunique() > 1
    lines: list[Line] = []
    strong = None
    for (variant, view, task), part in rows.groupby(["variant", "view", "task"], sort=False):
        layer = part["layer"].iloc[0]
        inputs = str(view).replace("+", " + ") + (f", layer {layer:.0f}" if pd.notna(layer) else "")
        cells = [_measured(part, metric) for metric in metrics]
        strong = len(lines) if variant == run.selected else strong
        own, share = size_of(run, str(variant))
        parameters = "–" if own is None else (f"{own:,.0f}", percent(share)) if share else f"{own:,.0f}"
        lines.append([tidy(variant), *([tidy(task)] if several else []), tidy(inputs), *cells, parameters])
    heads = ["variant", *(["task"] if several else []), "latents", *map(tidy, metrics), "parameters"]
    n = rows["n"].max()
    of = f" of {n:,.0f} rows" if pd.notna(n) else ""
    caption = f"On {run.split}{of}; in brackets the bootstrap 95 % interval over rows, {run.over_seeds}."
    caption += f" “{UNTRAINED}” is {REFERENCES[run.kind]}." if raw.any() and run.kind in REFERENCES else ""
    caption += " Beside the parameters, their share of the backbone's." if run.record_table("probes") else ""
    return Grid(caption, heads, lines, 3 if several else 2, strong)


def tiles(run: Tables) -> list[Tile]:
    """The figures of merit of the chosen variant."""
    if len(run.layers):
        return _tiles_of_layers(run)
    found = [Tile("chosen", tidy(run.selected, 40))] if run.selected else []
    rows = run.metrics[
        (run.metrics["split"] == run.split) & (run.metrics["variant"] == run.selected) & run.metrics["seed"].isna()
    ]
    row = rows[(rows["metric"] == run.metric) & rows["value"].notna()].head(1)
    if len(row):
        one = row.iloc[0]
        spread = f"{one['low']:.3f} to {one['high']:.3f}" if pd.notna(one["low"]) and pd.notna(one["high"]) else ""
        found.append(Tile(f"{tidy(run.metric)} on {run.split}", f"{one['value']:.3f}", spread))
    elif run.selected and len(run.metrics):
        found.append(Tile(f"{tidy(run.metric)} on {run.split}", UNDEFINED, why_undefined(run)))
    own, share = size_of(run, run.selected)
    if own is not None:
        found.append(Tile("parameters", f"{own:,.0f}", f"{percent(share)} of the backbone" if share else ""))
    return found + took(run)


def why_undefined(run: Tables) -> str:
    """Why the chosen variant has no figure of merit, in words."""
    for name, what in (("score", "predictions"), ("label", "predictions"), ("target", "targets")):
        if name in run.predictions and run.predictions[name].nunique() == 1:
            return f"all {what} are the same"
    return "it was not measured"


def worst(run: Tables) -> Grid | None:
    """The rows with the largest error, mean over seeds; of classes the surest mistakes; None for others."""
    table = run.predictions
    names = [name for name in ("sentence", "sentence1", "sentence2") if name in table]
    if run.kind not in ("score", "class") or not names:
        return None
    if run.kind == "score":
        means = table.groupby([*names, "target"], sort=False)["score"].mean().reset_index()
        means = means.assign(error=(means["score"] - means["target"]).abs()).nlargest(WORST, "error")
        lines = [
            [
                *(tidy(row[name]) for name in names),
                f"{row['target']:.2f}",
                f"{row['score']:.2f}",
                f"{row['error']:.2f}",
            ]
            for _, row in means.iterrows()
        ]
        return Grid(
            "Largest distance of predicted and gold, mean over seeds.", [*names, "gold", "predicted", "error"], lines,
            len(names), sentences=True,
        )  # fmt: skip
    wrong = table[table["label"] != table["target"]].drop_duplicates(names)
    sure = [_probability(row) for _, row in wrong.iterrows()]
    wrong = wrong.assign(sure=pd.Series(sure, index=wrong.index, dtype=float)).sort_values("sure", ascending=False)
    lines = [
        [*(tidy(row[name]) for name in (*names, "target", "label")), decimals(row["sure"], 2)]
        for _, row in wrong.head(WORST).iterrows()
    ]
    caption = "Mistakes, the surest first." if lines else "There is no mistake."
    return Grid(caption, [*names, "gold", "predicted", "probability"], lines, len(names) + 2, sentences=True)


def ablated(run: Tables) -> Grid | None:
    """Every line of the ablation that sums seeds up."""
    rows = run.ablation[run.ablation["seed"].isna()]
    if rows.empty:
        return None
    names = [name for name in ("kind", "name", "layers", "control", "split", "metric") if rows[name].nunique() > 1]
    lines = [
        [
            *(tidy(row[name], 60) for name in names),
            value_and_interval(row),
            decimals(row["p"], 4),
            decimals(row["parameters"], 0),
        ]
        for _, row in rows.iterrows()
    ]
    what, where = (", ".join(dict.fromkeys(rows[name])) for name in ("metric", "split"))
    caption = f"{what} on {where}; p is that of a paired test against the last layer of the trained backbone alone."
    return Grid(
        tidy(caption),
        [*names, "value", "p", "parameters"],
        lines,
        len(names),
        fold=f"All {len(rows):,} lines of the ablation",
    )


def searched(run: Tables) -> str:
    """How many trials there were and how they ended."""
    counts = run.trials["state"].value_counts()
    if counts.empty:
        return ""
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    ends = ", ".join(f"{count:,} {words.get(str(state), tidy(state, 20).lower())}" for state, count in counts.items())
    return f"{len(run.trials):,} trials: {ends}."


def provenance(run: Tables) -> Facts | None:
    """What was run, on what, with which versions, for how long."""
    facts: list[tuple[str, object]] = []
    corpus, texts = (
        run.record_table("corpus"),
        [run.record.get(key) for key in ("texts", "texts_distinct", "texts_run")],
    )
    if corpus:
        rows = "; ".join(f"{split} {plain(n)}" for split, n in run.record_table("corpus", "rows").items())
        facts.append(("corpus", f"{corpus.get('name', '')}: rows {rows}" if rows else corpus.get("name", "")))
    if texts[0] is not None:
        facts.append(
            ("texts", f"{plain(texts[0])}, {plain(texts[1])} distinct, {plain(texts[2])} through the backbone")
        )
    facts.append(("backbones", ", ".join(dict.fromkeys(run.metrics["backbone"]))))
    size_read = number(run.record.get("bytes"))
    facts.append(("latents on disk", f"{size_read:,.0f} bytes ({size_read / 2**20:,.1f} MiB)" if size_read else ""))
    seconds = [
        f"{name} {duration(value)}" for name, raw in run.record_table("seconds").items() if (value := number(raw))
    ]
    facts.append(("time", ", ".join(seconds)))
    facts += [(key, plain(run.record.get(key))) for key in ("machine", "host", "commit")]
    facts.append(
        ("versions", ", ".join(f"{name} {plain(value)}" for name, value in run.record_table("versions").items()))
    )
    kept = [(name, tidy(value)) for name, value in facts if value not in ("", None)]
    return Facts(kept) if kept else None


def took(run: Tables) -> list[Tile]:
    """How long all of it took, where the record says."""
    seconds = number(run.record_table("seconds").get("all"))
    return [] if seconds is None else [Tile("took", duration(seconds))]


def size_of(run: Tables, variant: str) -> tuple[float | None, float | None]:
    """Parameters of a variant's probe, and their share of the backbone; None where the record does not say."""
    told = run.record_table("probes", variant)
    own = number(told.get("parameters"))
    own = number(run.record_table("parameters").get(variant)) if own is None else own
    if own is None:
        own = next((number(one) for one in run.variants.loc[run.variants["variant"] == variant, "trained"]), None)
    backbone = number(told.get("backbone_parameters"))
    return own, own / backbone if own is not None and backbone else None


def percent(share: float) -> str:
    """``2.27 %``."""
    return f"{100 * share:.3g} %"


def value_and_interval(row: Mapping[str, Any] | pd.Series) -> str | tuple[str, str]:
    """``0.842`` with ``[0.821, 0.861]`` beside it."""
    if pd.isna(row["value"]):
        return UNDEFINED
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]"


def plain(value: object) -> str:
    """A value of the record in a line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def _tiles_of_layers(run: Tables) -> list[Tile]:
    layers = run.layers["layer"].dropna()
    found = [Tile("tasks", f"{len(run.layers[['task', 'corpus']].drop_duplicates()):,}")]
    return [*found, Tile("layers", f"{layers.nunique():,}"), *took(run)]


def _measured(part: pd.DataFrame, metric: str) -> str | tuple[str, str]:
    rows = part[part["metric"] == metric]
    if len(rows):
        return value_and_interval(rows.iloc[0])
    return UNDEFINED if metric in CORRELATIONS and part["metric"].isin(["mae"]).any() else "–"


def _probability(row: pd.Series) -> float:
    return float(row.get(PROBABILITY + row["label"], float("nan")))


def decimals(value: float, places: int) -> str:
    """A number with that many decimals; a dash where there is none."""
    return "–" if pd.isna(value) else f"{value:,.{places}f}"
