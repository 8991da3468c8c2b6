"""A run from beginning to end: stage one, every variant trained, one chosen on validation, figures, a run folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.validation import check
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.metric_row import as_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.training.resume import Unfinished
from permafrost.probes.variants import tables as results
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.tables import all_rows, breakdown_table, latent_table, prediction_table
from permafrost.probes.variants.trained_variant import TrainedVariant, choose
from permafrost.probes.variants.workspace import Workspace

T = TypeVar("T")


def run_recipe(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Run a recipe and leave a run folder.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    variants = recipe.variant_recipes()
    unfinished = Unfinished.of(runs, name, recipe, progress)
    workspace = Workspace(provider, progress, unfinished=unfinished)
    corpus = workspace.corpus(recipe.corpus)
    metric = check(recipe, variants, corpus)
    unread = read_all(workspace, {variant: [one] for variant, one in variants.items()})
    if corpus.scored == "validation":
        chose = ", which chose epochs and variant, and read high" if corpus.selection == "validation" else ""
        progress.note(f"no test split: figures are on validation{chose}")
    training = time.perf_counter()
    found, refused = train_all(workspace.train, variants, unread, progress, release)
    selected = choose(found)
    trained = time.perf_counter()
    progress.note("measuring every variant, with intervals")
    rows = all_rows(found, corpus)
    stores = {one.variant: workspace.sources(one.recipe, recipe.corpus) for one in found}
    texts_run = sum(one.texts_run for one in workspace.stored.values())
    record = make_record(corpus, found, stores) | {
        "name": name,
        "summary": recipe.summary,
        "texts_run": texts_run,
        "selected": selected.variant,
        "refused": refused,
        "metric": metric,
        "seconds": {"training": trained - training, "all": time.perf_counter() - started},
    }
    tables = {
        "metrics": as_frame(rows),
        "predictions": prediction_table(selected, corpus, corpus.scored),
        "breakdown": breakdown_table(selected, corpus),
        "training": results.training_table(found),
        "epochs": results.epochs_table(found),
        "autoencoder": results.autoencoder_table(found),
        "latents": _latent_table(workspace, selected, corpus),
    }
    path = write_run(
        runs, name, RunContents(recipe=recipe, record=record, tables=tables, selected=selected.fitted_probe(corpus))
    )
    unfinished.remove()
    seconds = time.perf_counter() - started
    lines = [asdict(row) for row in rows]
    backbones = {variant: about["backbone_parameters"] for variant, about in record["probes"].items()}
    return RunResult(
        path=path,
        seconds=seconds,
        texts=corpus.sentences,
        texts_distinct=len(corpus.texts),
        texts_run=texts_run,
        selected=selected.variant,
        parameters=record["parameters"],
        backbone_parameters=backbones,
        metrics=lines,
    )


def read_all(workspace: Workspace, variants: Mapping[str, Sequence[Recipe]]) -> dict[str, InputError]:
    """Stage one for the recipes of every variant; returns those whose backbone or corpus cannot be had, and why."""
    try:
        workspace.prepare([recipe for some in variants.values() for recipe in some])
    except InputError:
        if len(variants) == 1:
            raise
    else:
        return {}
    unread: dict[str, InputError] = {}
    for variant, recipes in variants.items():
        try:
            workspace.prepare(recipes)
        except InputError as error:
            unread[variant] = error
    return unread


def train_all(
    train: Callable[[str, Recipe], T],
    variants: Mapping[str, Recipe],
    unread: Mapping[str, InputError],
    progress: Progress,
    release: Callable[[list[T]], list[T]],
) -> tuple[list[T], dict[str, str]]:
    """Every variant, trained; and why those that cannot be are not: one must not cost a run the others.

    Args:
        release: gives up what only the best so far needs to keep.

    Raises:
        InputError: none of them can.
    """
    found: list[T] = []
    refused: dict[str, InputError] = dict(unread)
    if len(unread) < len(variants):
        for variant, why in unread.items():
            progress.note(f"{variant} is left out: {why}")
    for variant, recipe in variants.items():
        if variant in unread:
            continue
        try:
            found = release([*found, train(variant, recipe)])
        except SpecError as error:
            refused[variant] = error
    if not found:
        raise next(iter(refused.values()))
    for variant, why in refused.items():
        if variant not in unread:
            progress.note(f"{variant} is left out: {why}")
    return found, {variant: str(why) for variant, why in refused.items()}


def release(found: list[TrainedVariant]) -> list[TrainedVariant]:
    """The variants, of which the best so far alone keeps its blocks of the backbone: they fill memory."""
    best = choose(found)
    return [one if one is best else one.without_blocks() for one in found]


def _latent_table(workspace: Workspace, one: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Empty if blocks were trained: then no latent is the same in two variants."""
    if one.recipe.finetune.learns:
        return pd.DataFrame()
    return latent_table(workspace.inputs(one.recipe, one.recipe.corpus), one, corpus)
