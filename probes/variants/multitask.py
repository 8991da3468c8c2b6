"""Multitask variants: one variant trained on several tasks together, each with a head of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from permafrost.probes.config.recipe import Recipe
from permafrost.probes.training.best_state import History
from permafrost.probes.training.log import TrainingLog
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.variants.combine_seeds import combine_seeds
from permafrost.probes.variants.multitask_seed import SeedResult, train_seed
from permafrost.probes.variants.trained_variant import TrainedVariant
from permafrost.probes.variants.workspace import Workspace


@dataclass(frozen=True, eq=False, kw_only=True)
class MultitaskVariant:
    """A variant, trained with all its seeds on several tasks."""

    variant: str
    recipe: Recipe
    tasks: Mapping[str, TrainedVariant]
    logs: Mapping[int, TrainingLog]
    """Seed -> log of its training."""

    trained_parameters: int
    """Number of trained parameters per seed."""

    parameters: int
    """Number of parameters that predict all tasks: of the backbone and of every head."""

    backbone_parameters: int
    """Number of these that are the backbone's."""

    saved_parameters: int
    """Number of trained parameters that sharing saves, compared with blocks of its own for every task."""

    seconds: float
    """Duration of the training of all seeds."""

    peak_bytes: int
    """Maximum growth of the process while one seed was loaded, trained and evaluated, without pages of mapped files;
    the largest of all seeds."""

    @property
    def value(self) -> float:
        """Mean of the tasks' selection metrics on validation."""
        return sum(task.value for task in self.tasks.values()) / len(self.tasks)


def train_multitask(variant: str, recipe: Recipe, workspace: Workspace) -> MultitaskVariant:
    """Train every seed of a variant on all of its tasks."""
    seeds, peak_bytes = [], 0
    for seed in recipe.train.seeds:
        with PeakMemory() as peak:
            seeds.append(train_seed(variant, recipe, workspace, seed, peak))
        peak_bytes = max(peak_bytes, peak.bytes)
    tasks = _combine_tasks(recipe, seeds, workspace)
    if recipe.multitask.keep == "one":
        best_index = best_seed([task.histories for task in tasks.values()])
        tasks = {name: replace(task, best_index=best_index) for name, task in tasks.items()}
    first = seeds[0]
    return MultitaskVariant(
        variant=variant,
        recipe=recipe,
        tasks=tasks,
        logs={seed.seed: seed.fit.log for seed in seeds},
        trained_parameters=first.trained_parameters,
        parameters=first.parameters,
        backbone_parameters=first.backbone_parameters,
        saved_parameters=first.saved_parameters,
        seconds=sum(seed.fit.seconds for seed in seeds),
        peak_bytes=peak_bytes,
    )


def _combine_tasks(recipe: Recipe, seeds: Sequence[SeedResult], workspace: Workspace) -> dict[str, TrainedVariant]:
    return {
        task: combine_seeds(
            [seed.members[task] for seed in seeds],
            workspace.corpus(task_recipe.corpus),
            workspace.progress,
            [seed.predictions[task] for seed in seeds],
            [partial(seed.restore_blocks, task) for seed in seeds] if recipe.finetune.trains_backbone else (),
        )
        for task, task_recipe in recipe.task_recipes().items()
    }


def best_seed(histories: Sequence[Sequence[History]]) -> int:
    """Return the index of the seed with the best mean over tasks of its selection metric.

    Args:
        histories: ``[task][seed]``.
    """
    return int(np.mean([[seed.best_value for seed in task] for task in histories], axis=0).argmax())
