"""Training of one group of members in one program: several of one task, or one of each of several tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer
from permafrost.probes.balancing.weighting import make_balancer
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.disk import reading_ahead
from permafrost.probes.models.probe import Probe, stack, unstack
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.heads import objective_of
from permafrost.probes.objectives.losses import min_batch_rows
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.loop import AfterEpoch, FitResult, fit
from permafrost.probes.training.parameter_groups import BACKBONE, belongs_to, count_trainable
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.training.problem import TaskObjective, TrainingProblem, order_indices
from permafrost.probes.variants.members import Group, MemberConfig, TrainedMember


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedGroup:
    """A group of members, trained in one program."""

    members: Mapping[str, Sequence[TrainedMember]]
    """Component -> members."""

    fit: FitResult
    modules: Mapping[str, nn.Module]
    """Component -> its module, fine-tuned blocks included."""

    shared_parameters: int
    """Number of trained parameters that all tasks share."""

    def restore_blocks(self, component: str) -> nn.Module:
        """Return the fine-tuned blocks, with the weights that a task was evaluated with."""
        self.fit.restore(component)
        return self.modules[BACKBONE]


def train_group(
    group: Group,
    recipe: Recipe,
    progress: Progress | None = None,
    name: str = "training",
    after_epoch: AfterEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    peak: PeakMemory | None = None,
) -> TrainedGroup:
    """Train a group of members; each has the weights of its best epoch on validation.

    Args:
        recipe: recipe of the variant, with all of its tasks.
        name, after_epoch, checkpoint, peak: as for :func:`permafrost.probes.training.loop.fit`.
    """
    probes = {
        task: stack([member.probe for member in members]) if len(members) > 1 else members[0].probe
        for task, members in group.items()
    }
    configs = [member.config for member in next(iter(group.values()))]
    seeds, named = [config.seed for config in configs], [config.named for config in configs]
    problem = training_problem(recipe, {task: members[0].config for task, members in group.items()}, probes, seeds)
    result = fit(problem, recipe.train, seeds, progress, name, after_epoch, checkpoint, peak, named)
    members = {
        task: [
            TrainedMember(config=member.config, probe=probe, history=history)
            for member, probe, history in zip(
                group[task], _single_probes(probes[task]), result.histories[task], strict=True
            )
        ]
        for task in group
    }
    shared_parameters = count_trainable(problem, recipe.train, BACKBONE)
    return TrainedGroup(members=members, fit=result, modules=problem.modules, shared_parameters=shared_parameters)


def _single_probes(probe: Probe) -> list[Probe]:
    members = len(probe.layout.members)
    return [unstack(probe, index).eval() for index in range(members)] if members > 1 else [probe]


def training_problem(
    recipe: Recipe, configs: Mapping[str, MemberConfig], probes: Mapping[str, Probe], seeds: Sequence[int]
) -> TrainingProblem:
    """Return what ``fit`` optimises.

    Args:
        configs: task -> what one of its members is trained on.
        probes: task -> probe with all members of the task.
        seeds: ``[member]``.
    """
    backbone = next(iter(configs.values())).inputs.blocks
    modules: dict[str, nn.Module] = ({} if backbone is None else {BACKBONE: backbone}) | dict(probes)
    all_metrics = backbone is not None or bool(recipe.tasks) or bool(recipe.train.track)
    schedule = recipe.multitask.schedule
    return TrainingProblem(
        modules=modules,
        member_of=_member_of(modules),
        objectives={task: task_objective(probes[task], config, seeds, all_metrics) for task, config in configs.items()},
        order="joint" if schedule == "separate" else schedule,
        temperature=recipe.multitask.temperature,
        balancer=_balancer(
            recipe,
            {task: config.problem.loss for task, config in configs.items()},
            backbone,
            seeds[0],
            next(iter(probes.values())).device,
        ),
        shared=() if backbone is None else (BACKBONE,),
        absent=tuple(component for component in (BACKBONE, *recipe.tasks) if component not in modules),
        private=recipe.multitask.keep == "each",
    )


def task_objective(probe: Probe, config: MemberConfig, seeds: Sequence[int], all_metrics: bool) -> TaskObjective:
    """Return the loss and the validation metrics of a probe on the task of its members.

    Args:
        config: of one of the members; they differ in seed and layers.
        seeds: ``[member]``.
        all_metrics: whether all metrics of the task are measured after every epoch, or the selection metric alone.
    """
    problem, inputs = config.problem, config.inputs
    train, scorer = problem.corpus.split("train"), problem.scorer(problem.corpus.selection_split)
    metrics = dict.fromkeys([problem.metric, *(problem.metrics if all_metrics else ())])
    probe.seed(seeds)
    orders = order_indices(seeds)
    reads = shared_reads(probe.layout, orders, probe.device)
    _check_memory(config, reads, len(train))
    training = objective_of(probe, inputs, train, problem.weights, problem.task.kind == "rank")
    validation = objective_of(probe, inputs, scorer.rows)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        return training.loss(probe, reads, rows, orders, problem.loss)

    def validate() -> dict[str, NDArray[np.floating]]:
        answers = [scorer.decode(prediction) for prediction in validation.predict(probe)]
        return {name: np.array([scorer.value(name, answer) for answer in answers]) for name in metrics}

    return TaskObjective(
        loss=loss,
        validate=validate,
        ahead=reading_ahead(inputs, reads, training.texts_read),
        rows=training.training_rows,
        batch_rows=config.recipe.train.batch_rows,
        smallest_batch=min_batch_rows(problem.loss),
    )


def _check_memory(config: MemberConfig, reads: SharedReads, rows: int) -> None:
    """Raise a :class:`SpecError` if ``train.memory`` is less than the latents of one batch take."""
    spec, inputs, most = config.recipe.train, config.inputs, config.recipe.train.memory_bytes
    sides = config.problem.corpus.split("train").texts.shape[1]
    tokens = 1.0 if inputs.tokens is None else float(inputs.tokens.lengths.mean())
    size = round(min(spec.batch_rows, rows) * sides * tokens) * len(reads.sources) * inputs.width * 4
    if most is not None and most < size:
        raise SpecError(
            f"train.memory = {spec.memory} is less than one batch of {spec.batch_rows} rows takes, {size:,} bytes: "
            "raise it, or lower train.batch_rows."
        )


def _member_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return parameter name -> ``[first axis]``, the member that each slice belongs to.

    Blocks of a backbone belong to the first member.
    """
    member_of: dict[str, Tensor] = {}
    for component, module in modules.items():
        if isinstance(module, Probe):
            member_of |= {f"{component}.{name}": members for name, members in module.member_of().items()}
        else:
            member_of |= {
                f"{component}.{name}": torch.zeros(len(parameter), dtype=torch.int64)
                for name, parameter in module.named_parameters()
                if parameter.requires_grad
            }
    return member_of


def _balancer(
    recipe: Recipe, losses: Mapping[str, str], backbone: nn.Module | None, seed: int, device: torch.device
) -> Balancer | None:
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
    return make_balancer(recipe.balancing, losses, shared, joint, generator, recipe.tasks).to(device)
