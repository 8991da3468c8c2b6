"""Training of one variant on one task or several: all its seeds for a run, or the first seed alone for a trial."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import nn

from permafrost.data.spec import SpecError, fingerprint
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.providers import count_backbone_parameters
from permafrost.probes.search.trials import Evaluation
from permafrost.probes.training.best_state import History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder, pretrain
from permafrost.probes.training.log import TrainingLog
from permafrost.probes.training.loop import AfterEpoch
from permafrost.probes.training.parameter_groups import BACKBONE
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.variants.combine_seeds import SplitPredictions, combine_seeds, predict_splits
from permafrost.probes.variants.members import (
    Group,
    MemberConfig,
    TrainedMember,
    UntrainedMember,
    initial_probe,
    stackable_groups,
)
from permafrost.probes.variants.train_group import TrainedGroup, train_group
from permafrost.probes.variants.trained_variant import TrainedVariant
from permafrost.probes.variants.workspace import Workspace


@dataclass(eq=False)
class _TaskSeeds:
    """What the trained seeds of a variant leave of one task, every list ``[seed]``."""

    members: list[TrainedMember] = field(default_factory=list)
    predictions: list[SplitPredictions] = field(default_factory=list)
    """Predictions with the weights that the task keeps; empty if the seeds are stacked before they predict."""

    blocks: list[Callable[[], nn.Module]] = field(default_factory=list)
    """Functions that return the fine-tuned blocks with these weights; empty if none were fine-tuned."""

    def add(self, task: str, group: TrainedGroup, predict: bool) -> None:
        """Add a group of seeds; a group that trains shared blocks, or several tasks, predicts at once."""
        self.members += group.members[task]
        if predict:
            group.fit.restore(task)
            configs = [member.config for member in group.members[task]]
            self.predictions += [
                predict_splits(member.probe, config.inputs, config.problem.corpus)
                for member, config in zip(group.members[task], configs, strict=True)
            ]
        if BACKBONE in group.modules:
            self.blocks.append(partial(group.restore_blocks, task))


def train_variant(variant: str, recipe: Recipe, workspace: Workspace) -> TrainedVariant:
    """Train every seed of a variant on all of its tasks.

    Raises:
        SpecError: the validation metric of a task was never finite.
    """
    by_task = {task: _TaskSeeds() for task in recipe.task_recipes()}
    groups, peak_bytes, logs = list[TrainedGroup](), 0, dict[int, TrainingLog]()
    for seeds in [(seed,) for seed in recipe.train.seeds] if _is_joint(recipe) else [recipe.train.seeds]:
        with PeakMemory() as peak:
            for group in _groups(variant, recipe, workspace, seeds):
                checkpoint, members = checkpoint_of(group, recipe, workspace), next(iter(group.values()))
                program = (
                    f"{variant}, seed {members[0].config.seed}" if len(members) == 1 else f"{len(members)} together"
                )
                groups.append(
                    train_group(group, recipe, workspace.progress, f"training {program}", None, checkpoint, peak)
                )
                _check_histories(variant, groups[-1])
                for task, task_seeds in by_task.items():
                    task_seeds.add(task, groups[-1], predict=_is_joint(recipe))
                _note_best_epochs(variant, groups[-1], workspace)
        if _is_joint(recipe):
            logs[seeds[0]] = groups[-1].fit.log
        peak_bytes = max(peak_bytes, peak.bytes)
    shared_parameters = groups[0].shared_parameters
    backbone_parameters = _backbone_parameters(recipe, workspace, groups[0])
    keeps_one = recipe.multitask.keep == "one" and len(by_task) > 1
    best_index = best_seed([[member.history for member in seeds.members] for seeds in by_task.values()])
    tasks = {}
    for task, task_seeds in by_task.items():
        trained = combine_seeds(task_seeds.members, workspace.progress, task_seeds.predictions, task_seeds.blocks)
        tasks[task] = replace(trained, best_index=best_index) if keeps_one else trained
    return TrainedVariant(
        variant=variant,
        recipe=recipe,
        tasks=tasks,
        logs=logs,
        trained_parameters=sum(task.parameters for task in tasks.values()) + shared_parameters,
        parameters=sum(_parameter_count(seeds.members[0].probe) for seeds in by_task.values()) + backbone_parameters,
        backbone_parameters=backbone_parameters,
        saved_parameters=(len(by_task) - 1) * shared_parameters if keeps_one else 0,
        seconds=sum(group.fit.seconds for group in groups),
        peak_bytes=peak_bytes,
    )


def evaluate_recipe(workspace: Workspace, recipe: Recipe, after_epoch: AfterEpoch | None = None) -> Evaluation:
    """Train the first seed of a recipe of one task and return its best validation metric.

    Args:
        after_epoch: called after every epoch with the validation metric.
    """
    (group,) = _groups("trial", recipe, workspace, recipe.train.seeds[:1])
    trained = train_group(group, recipe, workspace.progress, after_epoch=after_epoch)
    ((member,),) = trained.members.values()
    if member.history.best_epoch < 0:
        raise SpecError(f"its predictions of {member.config.problem.corpus.selection_split} are constant.")
    layers = member.config.pretrained.layers if member.config.pretrained else []
    unexplained = {"unexplained": sum(layer.unexplained for layer in layers) / len(layers)} if layers else {}
    return Evaluation(member.history.best_value, unexplained)


def member_configs(
    variant: str, recipe: Recipe, workspace: Workspace, seeds: Sequence[int]
) -> dict[str, list[MemberConfig]]:
    """Return task -> its trainings ``[seed]``; their encoders are pretrained first if the recipe says so."""
    task_recipes = recipe.task_recipes()
    inputs = _task_inputs(recipe, task_recipes, workspace)
    configs = {
        task: [
            MemberConfig(
                variant=variant,
                recipe=task_recipe,
                problem=workspace.problem(task_recipe),
                inputs=inputs[task],
                layers=tuple(range(len(inputs[task].columns))),
                seed=seed,
                component=task,
            )
            for seed in seeds
        ]
        for task, task_recipe in task_recipes.items()
    }
    if recipe.pretraining.task == "none" or _is_joint(recipe):
        return configs
    return {
        task: [replace(member, pretrained=_pretrained_encoder(member, workspace)) for member in members]
        for task, members in configs.items()
    }


def checkpoint_of(group: Group, recipe: Recipe, workspace: Workspace) -> Checkpoint | None:
    """Return the checkpoint of a group that is trained in one program; None if trainings are not kept."""
    if workspace.unfinished is None:
        return None
    configs = {task: [member.config for member in members] for task, members in group.items()}
    first = {task: members[0] for task, members in configs.items()}
    return workspace.unfinished.checkpoint_for(
        "+".join(dict.fromkeys(member.variant for members in configs.values() for member in members)),
        recipe,
        [member.seed for member in next(iter(configs.values()))],
        {task: member.problem.corpus for task, member in first.items()},
        {task: workspace.latent_identities(member.recipe) for task, member in first.items()},
        {"layers": {task: [list(member.layers) for member in members] for task, members in configs.items()}},
    )


def best_seed(histories: Sequence[Sequence[History]]) -> int:
    """Return the index of the seed with the best mean over tasks of its selection metric.

    Args:
        histories: ``[task][seed]``.
    """
    return int(np.mean([[seed.best_value for seed in task] for task in histories], axis=0).argmax())


def _is_joint(recipe: Recipe) -> bool:
    """Return whether a seed is a program of its own: its tasks, or its blocks, share what they train."""
    return bool(recipe.tasks) or recipe.finetune.trains_backbone


def _groups(variant: str, recipe: Recipe, workspace: Workspace, seeds: Sequence[int]) -> Iterator[Group]:
    """Yield the groups in which some seeds of a variant are trained."""
    configs = member_configs(variant, recipe, workspace, seeds)
    if _is_joint(recipe):
        yield {task: [UntrainedMember(config, initial_probe(config))] for task, (config,) in configs.items()}
    else:
        for task, members in configs.items():
            yield from ({task: group} for group in stackable_groups(members))


def _task_inputs(recipe: Recipe, task_recipes: Mapping[str, Recipe], workspace: Workspace) -> dict[str, ProbeInputs]:
    """Return what each task reads; all tasks read the same blocks if the backbone is fine-tuned."""
    if not recipe.finetune.trains_backbone:
        return {task: workspace.inputs(task_recipe, task_recipe.corpus) for task, task_recipe in task_recipes.items()}
    layers = {finetuned_view(task_recipe)[1] for task_recipe in task_recipes.values()}
    first = next(iter(task_recipes.values()))
    blocks = workspace.top_blocks(first, layers.pop() if len(layers) == 1 else "all")
    return {task: workspace.finetuned_inputs(task_recipe, blocks) for task, task_recipe in task_recipes.items()}


def _pretrained_encoder(member: MemberConfig, workspace: Workspace) -> PretrainedEncoder:
    """Pretrain the encoder of a member's probe, or return it from the cache of the workspace."""
    recipe, spec = member.recipe, member.recipe.pretraining
    encoder = recipe.probe if recipe.probe.mixer == "unified" else replace(recipe.probe, mixer="softmax", hidden=0)
    plans = list(recipe.probe_plans().values())
    key = fingerprint([encoder, spec, plans, recipe.corpus, list(member.inputs.columns), member.seed])

    def make() -> PretrainedEncoder:
        corpus, inputs = workspace.corpus(spec.corpus), workspace.inputs(recipe, spec.corpus)
        checkpoint = None
        if workspace.unfinished:
            corpora = {"pretraining": corpus, PROBE: member.problem.corpus}
            latents, name = {PROBE: workspace.latent_identities(recipe)}, f"{member.variant} pretraining"
            checkpoint = workspace.unfinished.checkpoint_for(
                name, recipe, [member.seed], corpora, latents, {"encoder": key}
            )
        probe, named = initial_probe(member), member.named | {"phase": "pretraining"}
        return pretrain(probe, spec, corpus, inputs, member.seed, workspace.progress, checkpoint, named)

    return workspace.encoders(key, make)


def _note_best_epochs(variant: str, group: TrainedGroup, workspace: Workspace) -> None:
    for task, members in group.members.items():
        named = "" if task == PROBE else f", {task}"
        for member in members:
            history, split = member.history, member.config.problem.corpus.selection_split
            workspace.progress.note(
                f"{variant}, seed {member.config.seed}{named}: best epoch {history.best_epoch + 1} of "
                f"{len(history.values)}, {split} {history.best_value:.4f}"
            )


def _check_histories(variant: str, group: TrainedGroup) -> None:
    """Raise a :class:`SpecError` that names the tasks that have no best epoch."""
    histories = {task: [member.history for member in members] for task, members in group.members.items()}
    failed = {task: seeds for task, seeds in histories.items() if min(seed.best_epoch for seed in seeds) < 0}
    if PROBE in failed:
        split = group.members[PROBE][0].config.problem.corpus.selection_split
        metric = group.members[PROBE][0].config.problem.metric
        raise SpecError(
            f"{variant}: its metric was never finite: its predictions of {split} are constant, or {metric} is not "
            "defined for them."
        )
    constant = [task for task, seeds in failed.items() if not any(np.isfinite(seed.values).any() for seed in seeds)]
    if constant:
        raise SpecError(
            f"{variant}: the metric of {' and of '.join(constant)} was never finite: its predictions are constant."
        )
    if failed:
        raise SpecError(
            f"{variant}: the metrics of {' and '.join(failed)} were not finite in one and the same epoch, and "
            'multitask.keep = "one" keeps one state for all; set it to "each".'
        )


def _backbone_parameters(recipe: Recipe, workspace: Workspace, group: TrainedGroup) -> int:
    """Return the number of parameters of the backbones that are read, frozen blocks included."""
    stored = [
        latents
        for task_recipe in recipe.task_recipes().values()
        for latents in workspace.plan_latents(task_recipe, task_recipe.corpus).values()
    ]
    return count_backbone_parameters(stored) if stored else _parameter_count(group.modules[BACKBONE])


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
