"""Together: one variant's tasks, trained in one program on the blocks that they share, each with a head of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer
from permafrost.probes.balancing.weighting import make_balancer
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.store_record import backbone_numbers
from permafrost.probes.models.probe import Probe
from permafrost.probes.tasks.registry import loss_and_metric, task_of
from permafrost.probes.training.best_state import History
from permafrost.probes.training.log import Log
from permafrost.probes.training.loop import FitResult, fit
from permafrost.probes.training.parameter_groups import BACKBONE, learning_numbers, within
from permafrost.probes.training.peak_memory import Peak
from permafrost.probes.training.problem import TrainingProblem
from permafrost.probes.variants.members import MemberConfig, TrainedMember, modules_of, owners_of, start, task_objective
from permafrost.probes.variants.trained_variant import SplitPredictions, TrainedVariant, combine_seeds, predict_splits
from permafrost.probes.variants.workspace import Workspace


@dataclass(frozen=True, eq=False)
class MultitaskVariant:
    """A variant, trained on several tasks."""

    variant: str
    recipe: Recipe
    tasks: Mapping[str, TrainedVariant]
    logs: Mapping[int, Log]
    """Seed -> what is worth knowing of its training."""

    trained: int
    """Numbers that one seed learnt."""

    parameters: int
    """Numbers that run when all tasks are answered: the backbone, and every head."""

    of_backbone: int
    """How many of these are the backbone's."""

    saved: int
    """How many more would have been learnt with blocks for every task of its own."""

    seconds: float
    """Of training, all seeds."""

    memory: int
    """By how many bytes the process grew at most while one seed was loaded, trained and measured, pages of mapped files
    aside; the largest of its seeds."""

    @property
    def value(self) -> float:
        """Mean of the tasks' validation metrics."""
        return sum(one.value for one in self.tasks.values()) / len(self.tasks)


def train_multitask(variant: str, recipe: Recipe, workspace: Workspace) -> MultitaskVariant:
    """Train every seed of a variant on all of its tasks."""
    task_recipes = recipe.task_recipes()
    seeds, memory = [], 0
    for seed in recipe.train.seeds:
        with Peak() as peak:
            seeds.append(_SeedTraining(variant, recipe, task_recipes, workspace, seed, peak))
        memory = max(memory, peak.bytes)
    tasks = {
        name: combine_seeds(
            [one.trained[name] for one in seeds],
            workspace.corpus(task.corpus),
            workspace.progress,
            [one.spoken[name] for one in seeds],
            [one.blocks(name) for one in seeds] if recipe.finetune.learns else (),
        )
        for name, task in task_recipes.items()
    }
    if recipe.multitask.keep == "one":
        best = best_seed([task.histories for task in tasks.values()])
        tasks = {name: replace(task, best=best) for name, task in tasks.items()}
    first = seeds[0]
    logs = {one.seed: one.learnt.log for one in seeds}
    sizes = first.learns, first.numbers, first.of_backbone, first.saved
    seconds = sum(one.learnt.seconds for one in seeds)
    return MultitaskVariant(variant, recipe, tasks, logs, *sizes, seconds, memory)


class _SeedTraining:
    """One seed of a variant: built, trained, and what it says of every split noted, task by task."""

    def __init__(
        self,
        variant: str,
        recipe: Recipe,
        task_recipes: Mapping[str, Recipe],
        workspace: Workspace,
        seed: int,
        peak: Peak,
    ) -> None:
        self.seed, corpora = seed, {name: workspace.corpus(task.corpus) for name, task in task_recipes.items()}
        inputs = _inputs(recipe, task_recipes, workspace)
        everything = {name: tuple(range(len(one.columns))) for name, one in inputs.items()}
        members = {
            name: MemberConfig(variant, task, inputs[name], everything[name], seed)
            for name, task in task_recipes.items()
        }
        probes: dict[str, Probe] = {name: start(member, corpora[name]) for name, member in members.items()}
        self.modules = modules_of(probes, next(iter(inputs.values())))
        objectives = {
            name: task_objective(probes[name], inputs[name], corpora[name], task, [seed], True)
            for name, task in task_recipes.items()
        }
        member_of = owners_of(self.modules)
        losses = {name: loss_and_metric(task, task_of(corpora[name]))[0] for name, task in task_recipes.items()}
        order = recipe.multitask.schedule
        assert order != "separate"
        problem = TrainingProblem(
            modules=self.modules,
            member_of=member_of,
            objectives=objectives,
            order=order,
            temperature=recipe.multitask.temperature,
            balancer=_balancer(recipe, losses, self.modules.get(BACKBONE), seed),
            shared=(BACKBONE,) if recipe.finetune.learns else (),
            absent=tuple(one for one in (BACKBONE, *recipe.tasks) if one not in self.modules),
            private=recipe.multitask.keep == "each",
        )
        self.learns = learning_numbers(problem, recipe.train)
        heads = sum(part.numel() for probe in probes.values() for part in probe.parameters())
        self.of_backbone = _of_backbone(task_recipes, workspace, self.modules)
        self.numbers = heads + self.of_backbone
        copies = len(task_recipes) - 1 if recipe.multitask.keep == "one" else 0
        self.saved = copies * learning_numbers(problem, recipe.train, BACKBONE)
        checkpoint = None
        if keep := workspace.unfinished:
            latents = {name: workspace.latents(task) for name, task in task_recipes.items()}
            checkpoint = keep.of_training(variant, recipe, [seed], corpora, latents)
        name = f"training {variant}, seed {seed}"
        self.learnt: FitResult = fit(problem, recipe.train, [seed], workspace.progress, name, None, checkpoint, peak)
        _check_fitted(variant, {name: one for name, (one,) in self.learnt.histories.items()})
        self.trained: dict[str, TrainedMember] = {}
        self.spoken: dict[str, SplitPredictions] = {}
        for name, member in members.items():
            self.learnt.restore(name)
            (fitted,) = self.learnt.histories[name]
            self.trained[name] = TrainedMember(
                variant, seed, member.recipe, member.inputs, probes[name], fitted, component=name
            )
            self.spoken[name] = predict_splits(probes[name], member.inputs, corpora[name])
            workspace.progress.note(
                f"{variant}, seed {seed}, {name}: best epoch {fitted.best_epoch + 1} of {len(fitted.values)}, "
                f"{corpora[name].selection} {fitted.best_value:.4f}"
            )

    def blocks(self, task: str) -> Callable[[], nn.Module]:
        """The blocks with the weights that a task was measured with."""
        return partial(self._restored, task)

    def _restored(self, task: str) -> nn.Module:
        self.learnt.restore(task)
        return self.modules[BACKBONE]


def best_seed(tasks: Sequence[Sequence[History]]) -> int:
    """The place of the seed that is best for all tasks: by the mean of their metrics."""
    return int(np.mean([[one.best_value for one in seeds] for seeds in tasks], axis=0).argmax())


def _check_fitted(variant: str, fitted: Mapping[str, History]) -> None:
    """Raise a :class:`SpecError` that names the tasks for whose sake no epoch was the best."""
    never = [name for name, one in fitted.items() if one.best_epoch < 0]
    constant = [name for name in never if not np.isfinite(fitted[name].values).any()]
    if constant:
        raise SpecError(
            f"{variant}: the metric of {' and of '.join(constant)} was never finite: its predictions are constant."
        )
    if never:
        raise SpecError(
            f"{variant}: the metrics of {' and '.join(never)} were not finite in one and the same epoch, and together."
            'keep = "one" keeps one state for all; set it to "each".'
        )


def _inputs(recipe: Recipe, task_recipes: Mapping[str, Recipe], workspace: Workspace) -> dict[str, ProbeInputs]:
    """What each task reads, all of the same blocks where any learn."""
    if not recipe.finetune.learns:
        return {name: workspace.inputs(task, task.corpus) for name, task in task_recipes.items()}
    asked = {finetuned_view(task)[1] for task in task_recipes.values()}
    blocks = workspace.top_blocks(next(iter(task_recipes.values())), asked.pop() if len(asked) == 1 else "all")
    return {name: workspace.finetuned_inputs(task, blocks) for name, task in task_recipes.items()}


def _of_backbone(task_recipes: Mapping[str, Recipe], workspace: Workspace, modules: Mapping[str, nn.Module]) -> int:
    """Numbers of the whole backbone, or of all that are read, blocks that stand still included."""
    stored = [one for task in task_recipes.values() for one in workspace.sources(task, task.corpus).values()]
    if stored:
        return backbone_numbers(stored)
    return sum(part.numel() for part in modules[BACKBONE].parameters())


def _balancer(recipe: Recipe, losses: Mapping[str, str], upper: nn.Module | None, seed: int) -> Balancer | None:
    if len(losses) < 2:
        return None
    still = [one for one, when in recipe.train.freeze.items() if when == 0]
    shared = [
        part
        for name, part in (upper.named_parameters() if upper else ())
        if not any(within(f"{BACKBONE}.{name}", one) for one in still)
    ]
    generator = torch.Generator().manual_seed(seed)
    joint = recipe.multitask.schedule == "joint"
    return make_balancer(recipe.balancing, losses, shared, joint, generator, recipe.tasks)
