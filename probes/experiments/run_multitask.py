"""Run of a recipe whose tasks are trained together: extraction, training of every variant, evaluation, run folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.multitask_tables import comparison_rows, metric_rows, parameter_rows, run_tables
from permafrost.probes.experiments.run import prepare_variants, train_variants
from permafrost.probes.experiments.validation import check_multitask
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, TaskContents, write_run
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.multitask import MultitaskVariant, train_multitask
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.tables import breakdown_table, confusion_table, prediction_table
from permafrost.probes.variants.workspace import Workspace


def run_multitask(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Train every variant on its tasks together and write a run folder.

    Raises:
        InputError: something in the recipe, a corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    variant_recipes = recipe.variant_recipes()
    unfinished = UnfinishedTrainings.of(runs, name, recipe, progress)
    workspace = Workspace(provider, progress, unfinished=unfinished)
    metrics: dict[str, str] = {}
    for variant, variant_recipe in variant_recipes.items():
        metrics = check_multitask(variant, variant_recipe, workspace) | metrics
    corpora = _corpora(variant_recipes, workspace)
    task_recipes = {variant: list(changed.task_recipes().values()) for variant, changed in variant_recipes.items()}
    unread = prepare_variants(workspace, task_recipes)
    train = partial(train_multitask, workspace=workspace)
    variants, refused = train_variants(train, variant_recipes, unread, progress, drop_blocks_but_best)
    corpora = {task: corpus for task, corpus in corpora.items() if any(task in variant.tasks for variant in variants)}
    selected = best_variant(variants)
    progress.note("measuring every variant, with intervals")
    rows = [
        *metric_rows(variants, corpora, metrics),
        *comparison_rows(variants, corpora, metrics),
        *parameter_rows(variants),
    ]
    texts_run = sum(latents.texts_run for latents in workspace.stored.values())
    record = _record(name, recipe, variants, corpora) | {
        "metrics": metrics,
        "texts_run": texts_run,
        "selected": selected.variant,
        "refused": refused,
        "costs": {variant.variant: {"seconds": variant.seconds, "memory": variant.peak_bytes} for variant in variants},
        "seconds": {
            "training": sum(variant.seconds for variant in variants),
            "all": time.perf_counter() - started,
        },
    }
    tables = run_tables(rows, variants)
    tasks = _task_contents(selected, variants, corpora, workspace)
    path = write_run(runs, name, RunContents(recipe=recipe, record=record, tables=tables, tasks=tasks))
    unfinished.remove()
    return RunResult(
        path=path,
        seconds=time.perf_counter() - started,
        texts=sum(corpus.text_count for corpus in corpora.values()),
        texts_distinct=sum(len(corpus.texts) for corpus in corpora.values()),
        texts_run=texts_run,
        selected=selected.variant,
        parameters={variant.variant: variant.trained_parameters for variant in variants},
        backbone_parameters={variant.variant: variant.backbone_parameters for variant in variants},
        metrics=[asdict(row) for row in rows],
    )


def _corpora(variant_recipes: Mapping[str, Recipe], workspace: Workspace) -> dict[str, Corpus]:
    """Return task -> its corpus; raise a :class:`SpecError` if variants have different corpora for a task."""
    specs: dict[str, CorpusSpec] = {}
    for variant, recipe in variant_recipes.items():
        for task, task_recipe in recipe.task_recipes().items():
            if specs.setdefault(task, task_recipe.corpus) != task_recipe.corpus:
                raise SpecError(
                    f"variant '{variant}': the corpus of '{task}' is not that of the variants before, and they are "
                    f"compared on the same rows; leave tasks.{task}.corpus out."
                )
    return {task: workspace.corpus(spec) for task, spec in specs.items()}


def drop_blocks_but_best(variants: list[MultitaskVariant]) -> list[MultitaskVariant]:
    """Return the variants without their fine-tuned blocks, which fill memory; the best one keeps its own."""
    best = best_variant(variants)
    return [
        variant
        if variant is best
        else replace(variant, tasks={name: task.without_blocks() for name, task in variant.tasks.items()})
        for variant in variants
    ]


def best_variant(variants: Sequence[MultitaskVariant]) -> MultitaskVariant:
    """Return the best variant on validation, of those that have most tasks; the first of equals."""
    most_tasks = max(len(variant.tasks) for variant in variants)
    return max((variant for variant in variants if len(variant.tasks) == most_tasks), key=lambda variant: variant.value)


def _record(
    name: str, recipe: Recipe, variants: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus]
) -> dict[str, Any]:
    distinct = {id(corpus): corpus for corpus in corpora.values()}.values()
    return make_record(next(iter(corpora.values())), [], {}) | {
        "experiment": "multitask",
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(corpus.name for corpus in distinct), "rows": {}},
        "texts": sum(corpus.text_count for corpus in distinct),
        "texts_distinct": sum(len(corpus.texts) for corpus in distinct),
        "parameters": {variant.variant: variant.trained_parameters for variant in variants},
    }


def _task_contents(
    selected: MultitaskVariant,
    variants: Sequence[MultitaskVariant],
    corpora: Mapping[str, Corpus],
    workspace: Workspace,
) -> dict[str, TaskContents]:
    """Return what is written for each task: probe and predictions of the selected variant, tables of all variants."""
    contents = {}
    for task, trained in selected.tasks.items():
        corpus = corpora[task]
        all_trained = [variant.tasks[task] for variant in variants if task in variant.tasks]
        tables = {
            "predictions": prediction_table(trained, corpus, corpus.test_split),
            "breakdown": pd.concat([breakdown_table(variant, corpus) for variant in all_trained]),
            "confusion": pd.concat([confusion_table(variant, corpus) for variant in all_trained]),
        }
        stored = workspace.plan_latents(trained.recipe, trained.recipe.corpus)
        contents[task] = TaskContents(trained.fitted_probe(corpus), tables, stored)
    return contents
