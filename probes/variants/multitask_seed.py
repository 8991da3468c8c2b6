"""Training of one seed of a multitask variant: a probe per task, on shared blocks if the backbone is fine-tuned."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer
from permafrost.probes.balancing.weighting import make_balancer
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.store_record import count_backbone_parameters
from permafrost.probes.models.probe import Probe
from permafrost.probes.tasks.registry import loss_and_metric, task_of
from permafrost.probes.training.best_state import History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.loop import FitResult, fit
from permafrost.probes.training.parameter_groups import BACKBONE, belongs_to, count_trainable
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.training.problem import TrainingProblem
from permafrost.probes.variants.combine_seeds import SplitPredictions, predict_splits
from permafrost.probes.variants.members import (
    MemberConfig,
    TrainedMember,
    initial_probe,
    modules_of,
    owners_of,
    task_objective,
)
from permafrost.probes.variants.workspace import Workspace


@dataclass(frozen=True, eq=False, kw_only=True)
class SeedResult:
    """One seed of a multitask variant, trained; every mapping is by task."""

    seed: int
    fit: FitResult
    modules: Mapping[str, nn.Module]
    """Component name -> its module, fine-tuned blocks included."""

    members: Mapping[str, TrainedMember]
    predictions: Mapping[str, SplitPredictions]
    """Predictions with the weights that each task keeps."""

    trained_parameters: int
    parameters: int
    """Number of parameters of the backbone and of every probe."""

    backbone_parameters: int
    saved_parameters: int
    """Number of trained parameters that sharing saves, compared with blocks of its own for every task."""

    def restore_blocks(self, task: str) -> nn.Module:
        """Return the fine-tuned blocks, with the weights that a task was evaluated with."""
        self.fit.restore(task)
        return self.modules[BACKBONE]


def train_seed(variant: str, recipe: Recipe, workspace: Workspace, seed: int, peak: PeakMemory) -> SeedResult:
    """Train one seed of a variant on all tasks, and predict every split of every task.

    Args:
        peak: measures the memory of the training; a resumed training adds what was measured before.

    Raises:
        SpecError: the validation metric of a task was never finite.
    """
    task_recipes = recipe.task_recipes()
    corpora = {task: workspace.corpus(task_recipe.corpus) for task, task_recipe in task_recipes.items()}
    members = _member_configs(variant, recipe, task_recipes, workspace, seed)
    probes = {task: initial_probe(member, corpora[task]) for task, member in members.items()}
    problem = _training_problem(recipe, members, probes, corpora, seed)
    trained_parameters = count_trainable(problem, recipe.train)
    backbone_parameters = _backbone_parameters(task_recipes, workspace, problem.modules)
    copies = len(task_recipes) - 1 if recipe.multitask.keep == "one" else 0
    saved_parameters = copies * count_trainable(problem, recipe.train, BACKBONE)
    checkpoint = _checkpoint(variant, recipe, task_recipes, workspace, seed)
    name = f"training {variant}, seed {seed}"
    result = fit(problem, recipe.train, [seed], workspace.progress, name, None, checkpoint, peak)
    histories = {task: history for task, (history,) in result.histories.items()}
    _check_histories(variant, histories)
    predictions: dict[str, SplitPredictions] = {}
    for task, member in members.items():
        result.restore(task)
        predictions[task] = predict_splits(probes[task], member.inputs, corpora[task])
        history = histories[task]
        workspace.progress.note(
            f"{variant}, seed {seed}, {task}: best epoch {history.best_epoch + 1} of {len(history.values)}, "
            f"{corpora[task].selection_split} {history.best_value:.4f}"
        )
    return SeedResult(
        seed=seed,
        fit=result,
        modules=problem.modules,
        members={task: _trained(member, probes[task], histories[task], task) for task, member in members.items()},
        predictions=predictions,
        trained_parameters=trained_parameters,
        parameters=sum(_parameter_count(probe) for probe in probes.values()) + backbone_parameters,
        backbone_parameters=backbone_parameters,
        saved_parameters=saved_parameters,
    )


def _member_configs(
    variant: str, recipe: Recipe, task_recipes: Mapping[str, Recipe], workspace: Workspace, seed: int
) -> dict[str, MemberConfig]:
    inputs = _task_inputs(recipe, task_recipes, workspace)
    return {
        task: MemberConfig(
            variant=variant,
            recipe=task_recipe,
            inputs=inputs[task],
            layers=tuple(range(len(inputs[task].columns))),
            seed=seed,
        )
        for task, task_recipe in task_recipes.items()
    }


def _task_inputs(recipe: Recipe, task_recipes: Mapping[str, Recipe], workspace: Workspace) -> dict[str, ProbeInputs]:
    """Return what each task reads; all tasks read the same blocks if the backbone is fine-tuned."""
    if not recipe.finetune.trains_backbone:
        return {task: workspace.inputs(task_recipe, task_recipe.corpus) for task, task_recipe in task_recipes.items()}
    layers = {finetuned_view(task_recipe)[1] for task_recipe in task_recipes.values()}
    first = next(iter(task_recipes.values()))
    blocks = workspace.top_blocks(first, layers.pop() if len(layers) == 1 else "all")
    return {task: workspace.finetuned_inputs(task_recipe, blocks) for task, task_recipe in task_recipes.items()}


def _training_problem(
    recipe: Recipe,
    members: Mapping[str, MemberConfig],
    probes: Mapping[str, Probe],
    corpora: Mapping[str, Corpus],
    seed: int,
) -> TrainingProblem:
    modules = modules_of(probes, next(iter(members.values())).inputs)
    objectives = {
        task: task_objective(probes[task], member.inputs, corpora[task], member.recipe, [seed], all_metrics=True)
        for task, member in members.items()
    }
    losses = {task: loss_and_metric(member.recipe, task_of(corpora[task]))[0] for task, member in members.items()}
    assert recipe.multitask.schedule != "separate"
    return TrainingProblem(
        modules=modules,
        member_of=owners_of(modules),
        objectives=objectives,
        order=recipe.multitask.schedule,
        temperature=recipe.multitask.temperature,
        balancer=_balancer(recipe, losses, modules.get(BACKBONE), seed),
        shared=(BACKBONE,) if recipe.finetune.trains_backbone else (),
        absent=tuple(component for component in (BACKBONE, *recipe.tasks) if component not in modules),
        private=recipe.multitask.keep == "each",
    )


def _balancer(recipe: Recipe, losses: Mapping[str, str], backbone: nn.Module | None, seed: int) -> Balancer | None:
    """Return the balancer of the tasks' losses; None if there is one task.

    Args:
        losses: task -> name of its loss.
        backbone: fine-tuned blocks; None if nothing is.
    """
    if len(losses) < 2:
        return None
    frozen = [component for component, epoch in recipe.train.freeze.items() if epoch == 0]
    shared = [
        parameter
        for name, parameter in (backbone.named_parameters() if backbone else ())
        if not any(belongs_to(f"{BACKBONE}.{name}", component) for component in frozen)
    ]
    generator = torch.Generator().manual_seed(seed)
    joint = recipe.multitask.schedule == "joint"
    return make_balancer(recipe.balancing, losses, shared, joint, generator, recipe.tasks)


def _checkpoint(
    variant: str, recipe: Recipe, task_recipes: Mapping[str, Recipe], workspace: Workspace, seed: int
) -> Checkpoint | None:
    if workspace.unfinished is None:
        return None
    corpora = {task: workspace.corpus(task_recipe.corpus) for task, task_recipe in task_recipes.items()}
    latents = {task: workspace.latent_identities(task_recipe) for task, task_recipe in task_recipes.items()}
    return workspace.unfinished.checkpoint_for(variant, recipe, [seed], corpora, latents)


def _check_histories(variant: str, histories: Mapping[str, History]) -> None:
    """Raise a :class:`SpecError` that names the tasks that have no best epoch."""
    failed = [task for task, history in histories.items() if history.best_epoch < 0]
    constant = [task for task in failed if not np.isfinite(histories[task].values).any()]
    if constant:
        raise SpecError(
            f"{variant}: the metric of {' and of '.join(constant)} was never finite: its predictions are constant."
        )
    if failed:
        raise SpecError(
            f"{variant}: the metrics of {' and '.join(failed)} were not finite in one and the same epoch, and "
            'multitask.keep = "one" keeps one state for all; set it to "each".'
        )


def _trained(member: MemberConfig, probe: Probe, history: History, task: str) -> TrainedMember:
    return TrainedMember(
        variant=member.variant,
        seed=member.seed,
        recipe=member.recipe,
        inputs=member.inputs,
        probe=probe,
        history=history,
        component=task,
    )


def _backbone_parameters(
    task_recipes: Mapping[str, Recipe], workspace: Workspace, modules: Mapping[str, nn.Module]
) -> int:
    """Return the number of parameters of the backbones that are read, frozen blocks included."""
    stored = [
        latents
        for task_recipe in task_recipes.values()
        for latents in workspace.plan_latents(task_recipe, task_recipe.corpus).values()
    ]
    return count_backbone_parameters(stored) if stored else _parameter_count(modules[BACKBONE])


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
