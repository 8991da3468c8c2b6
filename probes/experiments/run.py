"""Run of a recipe: extraction, training of every variant, selection of one on validation, evaluation, run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from permafrost.data.progress import Progress
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.experiment import Experiment
from permafrost.probes.experiments.untrained import untrained_variant
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import TaskContents
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.variants.metric_rows import all_rows
from permafrost.probes.variants.record import latent_stores, variant_record
from permafrost.probes.variants.tables import latent_table, task_tables, variant_tables
from permafrost.probes.variants.train_variant import train_variant
from permafrost.probes.variants.trained_variant import TrainedVariant, best_variant, keep_best_blocks
from permafrost.probes.variants.workspace import Workspace


def run_recipe(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider
) -> RunResult:
    """Run a recipe of one task, or of several that are trained together, and write a run folder.

    Raises:
        InputError: something in the recipe, a corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    with Experiment(name, recipe, runs, progress, provider, "multitask" if recipe.tasks else "run") as experiment:
        variant_recipes = recipe.variant_recipes()
        problems = experiment.prepare(variant_recipes)
        for problem in problems.values():
            _note_splits(problem, progress)
        variants, refused = experiment.train(variant_recipes, train_variant, keep_best_blocks)
        problems = {task: problem for task, problem in problems.items() if any(task in each.tasks for each in variants)}
        untrained = untrained_variant(variants, experiment.workspace)
        selected = best_variant([*variants, untrained] if untrained else variants)
        if selected is untrained:
            variants.append(selected)
        progress.note("measuring every variant, with intervals")
        trained = [each for each in variants if each is not untrained]
        read = selected.recipe.task_recipes() if recipe.tasks else {each.variant: each.recipe for each in trained}
        return experiment.finish(
            all_rows(variants, problems),
            problems,
            latent_stores(read, experiment.workspace),
            variant_record(variants) | {"selected": selected.variant, "refused": refused},
            variant_tables(variants) | {"latents": _latent_table(selected, experiment.workspace)},
            _task_contents(selected, variants, experiment.workspace),
        )


def _note_splits(problem: Problem, progress: Progress) -> None:
    """Say it if the reported figures are on rows that chose epochs and variants."""
    corpus = problem.corpus
    if corpus.test_split == "validation":
        chose = ", which chose epochs and variant, and read high" if corpus.selection_split == "validation" else ""
        progress.note(f"no test split: figures are on validation{chose}")


def _latent_table(variant: TrainedVariant, workspace: Workspace) -> pd.DataFrame:
    """Return the latents to show; empty for several tasks, or fine-tuned blocks, whose latents no variants share."""
    if variant.recipe.tasks or variant.recipe.finetune.trains_backbone:
        return pd.DataFrame()
    return latent_table(workspace.inputs(variant.recipe, variant.recipe.corpus), variant.tasks[PROBE])


def _task_contents(
    selected: TrainedVariant, variants: Sequence[TrainedVariant], workspace: Workspace
) -> Mapping[str, TaskContents]:
    """Return what is written for each task: probe and predictions of the selected variant, groups of rows.

    The groups are those of all variants if there are several tasks, else of the selected one.
    """
    contents = {}
    for task, trained in selected.tasks.items():
        compared = [each.tasks[task] for each in variants if task in each.tasks] if task != PROBE else []
        stored = workspace.plan_latents(trained.recipe, trained.recipe.corpus)
        contents[task] = TaskContents(trained.fitted_probe(), task_tables(trained, compared), stored)
    return contents
