"""Lead, tiles and facts of a page: what ran on what, and its key figures.

A missing value is shown as ``undefined`` or left out, never as ``nan``.
"""

from collections.abc import Mapping

import pandas as pd

from permafrost.probes.figures.metrics import selection_rows
from permafrost.probes.figures.sentence_map import backbone_titles
from permafrost.probes.figures.subsets import subset_rows
from permafrost.probes.reports.metrics import parameters_and_share
from permafrost.probes.reports.page import Facts, Tile
from permafrost.probes.results.files import number
from permafrost.probes.results.formatting import decimals, format_duration, metric_title, percent
from permafrost.probes.results.grid import UNDEFINED, Grid, cell_text
from permafrost.probes.results.metric_row import PARAMETERS
from permafrost.probes.results.run_tables import Tables


def probe_lead(run: Tables) -> str:
    """Return a sentence that says what was trained on which backbones and corpus, and how the variant was chosen."""
    backbones = cell_text(", ".join(dict.fromkeys(run.metrics["backbone"])) or "a frozen backbone", 120)
    if run.tasks:
        names = run.task_names
        tasks = f"{len(names)} tasks on {backbones}: {cell_text(', '.join(names), 300)}."
        return f"{tasks if len(names) > 1 else f'The task {names[0]} on {backbones}.'} Chosen on {run.selection}."
    corpus = run.record_table("corpus").get("name")
    on = f" on {cell_text(corpus, 80)}" if corpus else ""
    has_choice = run.experiment in ("run", "multitask") and run.selected
    chosen = f" Chosen on {run.selection} by {cell_text(run.metric, 40)}." if has_choice else ""
    return f"Probes on latents of {backbones}{on}.{chosen}"


def run_tiles(run: Tables) -> list[Tile]:
    """Return tiles of the chosen variant: its name, selection metric on every task and parameters; and the time."""
    tiles = [Tile("chosen", cell_text(run.selected, 40))] if run.selected else []
    for task in run.task_names or [""]:
        tables, rows = run.for_task(task), selection_rows(run, task)
        of_task = f"{cell_text(task, 40)}: " if task else ""
        title = cell_text(f"{of_task}{metric_title(tables.metric)} on {tables.split}", 90)
        rows = rows[rows["variant"] == run.selected]
        for _, row in rows.head(1).iterrows():
            tiles.append(Tile(title, f"{row['value']:.3f}", _interval(row, 3)))
        if rows.empty and not task and run.selected and len(run.metrics):
            tiles.append(Tile(title, UNDEFINED, why_undefined(run)))
    parameters, share = parameters_and_share(run, run.selected)
    if parameters is not None:
        whole = "all" if (run.counts["metric"] == PARAMETERS).any() else "the backbone"
        tiles.append(Tile("parameters", f"{parameters:,.0f}", f"{percent(share)} of {whole}" if share else ""))
    return tiles + duration_tiles(run)


def _interval(row: pd.Series, places: int) -> str:
    low, high = row["low"], row["high"]
    return "" if pd.isna(low) or pd.isna(high) else f"{low:.{places}f} to {high:.{places}f}"


def why_undefined(run: Tables) -> str:
    """Return a phrase that says why the chosen variant has no value of the run's metric."""
    predictions = run["predictions"]
    for column, noun in (("score", "predictions"), ("label", "predictions"), ("target", "targets")):
        if column in predictions and predictions[column].nunique() == 1:
            return f"all {noun} are the same"
    return "it was not measured"


def subset_tiles(run: Tables) -> list[Tile]:
    """Return tiles of an ablation or of layers: numbers of tasks and layers, and the time."""
    rows = subset_rows(run)
    layers = rows.loc[rows["kind"] == "single", "position"].nunique()
    return [Tile("tasks", f"{rows['name'].nunique():,}"), Tile("layers", f"{layers:,}"), *duration_tiles(run)]


def duration_tiles(run: Tables) -> list[Tile]:
    """Return a tile with the duration of the run; empty if the record does not have it."""
    seconds = number(run.record_table("seconds").get("all"))
    return [] if seconds is None else [Tile("took", format_duration(seconds))]


def trials_note(run: Tables) -> str:
    """Return a sentence with the number of trials of a study by their state; empty without trials."""
    counts = run["trials"]["state"].value_counts()
    if counts.empty:
        return ""
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    ends = ", ".join(
        f"{count:,} {words.get(str(state), cell_text(state, 20).lower())}" for state, count in counts.items()
    )
    return f"{len(run['trials']):,} trials: {ends}."


def trial_grids(run: Tables) -> list[Grid]:
    """Return the settings of a study's best trial."""
    best = run.record_table("best")
    params = run.record_table("best", "params")
    value, trial = number(best.get("value")), number(best.get("number"))
    if not params or value is None or trial is None:
        return []
    lines = [[cell_text(name, 60), cell_text(format_value(setting), 120)] for name, setting in params.items()]
    caption = f"The best trial is number {trial:.0f}: {metric_title(cell_text(run.metric, 40))} {value:.4f}."
    return [Grid(caption=caption, heads=["setting", "best trial"], rows=lines, text_columns=2)]


def pretraining_lead(run: Tables) -> str:
    """Return a sentence that says on which text a language model was trained."""
    return (
        f"A language model from scratch, on {cell_text(run.record_table('pretraining').get('text', 'plain text'), 80)}."
    )


def pretraining_tiles(run: Tables) -> list[Tile]:
    """Return tiles of a pretraining: loss and perplexity on held-out text, parameters, steps, and the time."""
    formats = {"held-out loss": ("loss_held_out", ".3f"), "perplexity": ("perplexity", ",.2f")}
    formats |= {"parameters": ("parameters", ",.0f"), "steps": ("steps", ",.0f")}
    facts = run.record_table("pretraining")
    values = {title: (number(facts.get(key)), style) for title, (key, style) in formats.items()}
    tiles = [Tile(title, format(value, style)) for title, (value, style) in values.items() if value is not None]
    return tiles + duration_tiles(run)


def pretraining_grids(run: Tables) -> list[Grid]:
    """Return the losses and perplexities of a pretraining with their intervals."""
    lines = []
    for _, row in run.metrics.iterrows():
        names = [cell_text(row[name]) for name in ("variant", "split", "metric")]
        lines.append([*names, f"{row['value']:.4f}", _interval(row, 4), decimals(row["n"], 0)])
    caption = (
        "Loss is the mean over predicted tokens, in nats; perplexity is its exponential. Of training, the last steps."
    )
    heads = ["objective", "text", "measured", "value", "95 % interval", "blocks"]
    return [Grid(caption=caption, heads=heads, rows=lines, text_columns=3)]


def provenance(run: Tables) -> Facts | None:
    """Return corpus, texts, backbones, sizes, times, machine and versions of a run; None if the record has none."""
    sizes = number(run.record.get("bytes"))
    seconds = {name: number(value) for name, value in run.record_table("seconds").items()}
    versions, pretraining = run.record_table("versions"), run.record_table("pretraining")
    plugins = run.record_table("plugins")
    backbones = [*run.metrics["backbone"], *backbone_titles(run).values()]
    facts: list[tuple[str, object]] = [
        *_corpus_facts(run),
        ("backbones", ", ".join(dict.fromkeys(backbones))),
        *(("left out", f"{name}: {format_value(reason)}") for name, reason in run.record_table("refused").items()),
        *((key, format_value(pretraining.get(key))) for key in PRETRAINING_FACTS),
        ("pooling", format_value(run.record.get("pooling"))),
        ("latents on disk", f"{sizes:,.0f} bytes ({sizes / 2**20:,.1f} MiB)" if sizes else ""),
        ("time", ", ".join(f"{name} {format_duration(value)}" for name, value in seconds.items() if value)),
        *((key, format_value(run.record.get(key))) for key in ("machine", "host", "commit")),
        ("versions", ", ".join(f"{name} {format_value(value)}" for name, value in versions.items() if value)),
        ("parts of other packages", ", ".join(f"{name}: {format_value(value)}" for name, value in plugins.items())),
    ]
    known = [(cell_text(name).replace("_", " "), cell_text(value)) for name, value in facts if value not in ("", None)]
    return Facts(known) if known else None


PRETRAINING_FACTS = ("model", "text", "documents", "blocks", "blocks_held_out", "compute_dtype")
"""Facts of a pretraining that the page lists."""


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


def format_value(value: object) -> str:
    """Return a value of the record as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_value(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
