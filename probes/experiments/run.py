"""Run of a recipe: extraction, training of every variant, selection of one on validation, evaluation, run folder."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.metric_rows import all_rows, parameter_rows
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.tables import (
    autoencoder_table,
    breakdown_table,
    epochs_table,
    latent_table,
    prediction_table,
    training_table,
)
from permafrost.probes.variants.train_variant import train_variant
from permafrost.probes.variants.trained_variant import TrainedVariant, best_variant
from permafrost.probes.variants.workspace import Workspace

T = TypeVar("T")


def run_recipe(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Run a recipe and write a run folder.

    Raises:
        InputError: something in the recipe, the corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    variant_recipes = recipe.variant_recipes()
    unfinished = UnfinishedTrainings.of(runs, name, recipe, progress)
    workspace = Workspace(provider, progress, unfinished=unfinished)
    corpus = workspace.corpus(recipe.corpus)
    metric = check_variants(recipe, variant_recipes, corpus)
    unread = prepare_variants(workspace, {variant: [changed] for variant, changed in variant_recipes.items()})
    if corpus.test_split == "validation":
        chose = ", which chose epochs and variant, and read high" if corpus.selection_split == "validation" else ""
        progress.note(f"no test split: figures are on validation{chose}")
    training_started = time.perf_counter()
    train = partial(train_variant, workspace=workspace)
    variants, refused = train_variants(train, variant_recipes, unread, progress, drop_blocks_but_best)
    selected = best_variant(variants)
    training_seconds = time.perf_counter() - training_started
    progress.note("measuring every variant, with intervals")
    rows = all_rows(variants, corpus) + parameter_rows(variants)
    stores = {variant.variant: workspace.plan_latents(variant.recipe, recipe.corpus) for variant in variants}
    texts_run = sum(latents.texts_run for latents in workspace.stored.values())
    record = make_record(corpus, variants, stores) | {
        "experiment": "run",
        "name": name,
        "summary": recipe.summary,
        "texts_run": texts_run,
        "selected": selected.variant,
        "refused": refused,
        "metric": metric,
        "seconds": {"training": training_seconds, "all": time.perf_counter() - started},
    }
    tables = _tables(rows, variants, selected, corpus, workspace)
    path = write_run(
        runs, name, RunContents(recipe=recipe, record=record, tables=tables, selected=selected.fitted_probe(corpus))
    )
    unfinished.remove()
    return RunResult(
        path=path,
        seconds=time.perf_counter() - started,
        texts=corpus.text_count,
        texts_distinct=len(corpus.texts),
        texts_run=texts_run,
        selected=selected.variant,
        parameters=record["parameters"],
        backbone_parameters={variant: probe["backbone_parameters"] for variant, probe in record["probes"].items()},
        metrics=[asdict(row) for row in rows],
    )


def prepare_variants(workspace: Workspace, recipes: Mapping[str, Sequence[Recipe]]) -> dict[str, InputError]:
    """Get the latents of every variant; return the variants whose backbone or corpus cannot be read, with the error.

    Args:
        recipes: variant -> its recipes, one per task.

    Raises:
        InputError: the only variant cannot be read.
    """
    try:
        workspace.prepare([recipe for task_recipes in recipes.values() for recipe in task_recipes])
    except InputError:
        if len(recipes) == 1:
            raise
    else:
        return {}
    unread: dict[str, InputError] = {}
    for variant, task_recipes in recipes.items():
        try:
            workspace.prepare(task_recipes)
        except InputError as error:
            unread[variant] = error
    return unread


def train_variants(
    train: Callable[[str, Recipe], T],
    recipes: Mapping[str, Recipe],
    unread: Mapping[str, InputError],
    progress: Progress,
    free_memory: Callable[[list[T]], list[T]],
) -> tuple[list[T], dict[str, str]]:
    """Train every variant; return the trained ones, and variant -> reason of those that are left out.

    A variant that cannot be trained is left out, so that a run does not lose the others.

    Args:
        recipes: variant -> its recipe.
        unread: variants that are left out already; as :func:`prepare_variants` returns them.
        free_memory: applied to the variants trained so far after each training.

    Raises:
        InputError: no variant can be trained.
    """
    trained: list[T] = []
    refused: dict[str, InputError] = dict(unread)
    if len(unread) < len(recipes):
        for variant, reason in unread.items():
            progress.note(f"{variant} is left out: {reason}")
    for variant, recipe in recipes.items():
        if variant in unread:
            continue
        try:
            trained = free_memory([*trained, train(variant, recipe)])
        except SpecError as error:
            refused[variant] = error
    if not trained:
        raise next(iter(refused.values()))
    for variant, reason in refused.items():
        if variant not in unread:
            progress.note(f"{variant} is left out: {reason}")
    return trained, {variant: str(reason) for variant, reason in refused.items()}


def drop_blocks_but_best(variants: list[TrainedVariant]) -> list[TrainedVariant]:
    """Return the variants without their fine-tuned blocks, which fill memory; the best one keeps its own."""
    best = best_variant(variants)
    return [variant if variant is best else variant.without_blocks() for variant in variants]


def _tables(
    rows: Sequence[MetricRow],
    variants: Sequence[TrainedVariant],
    selected: TrainedVariant,
    corpus: Corpus,
    workspace: Workspace,
) -> dict[str, pd.DataFrame]:
    return {
        "metrics": metrics_frame(rows),
        "predictions": prediction_table(selected, corpus, corpus.test_split),
        "breakdown": breakdown_table(selected, corpus),
        "training": training_table(variants),
        "epochs": epochs_table(variants),
        "autoencoder": autoencoder_table(variants),
        "latents": _latent_table(workspace, selected, corpus),
    }


def _latent_table(workspace: Workspace, variant: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Return the latents to show; empty if blocks were fine-tuned: no two variants share latents then."""
    if variant.recipe.finetune.trains_backbone:
        return pd.DataFrame()
    return latent_table(workspace.inputs(variant.recipe, variant.recipe.corpus), variant, corpus)
