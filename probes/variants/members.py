"""Members of a variant and their training: a probe on some layers of its inputs, trained with one seed.

A trained member has the weights of its best epoch on validation. Small members of equal shape are stacked and trained
in one program; large ones use the whole machine and are trained one after another. Members read inputs, never a
backbone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.spec import fingerprint, plain
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe, layout_for, stack, unstack
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.tasks.losses import MIN_BATCH_ROWS
from permafrost.probes.tasks.registry import build, loss_and_metric, objective_of, scorer_of, task_of
from permafrost.probes.training.batches import order_indices
from permafrost.probes.training.best_state import History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.log import TrainingLog
from permafrost.probes.training.loop import AfterEpoch, fit
from permafrost.probes.training.parameter_groups import BACKBONE, belongs_to, count_trainable
from permafrost.probes.training.problem import TaskObjective, TrainingProblem

MAX_STACKED_PARAMETERS = 50_000
"""Maximum number of parameters of a probe that is stacked with others; a larger one is trained alone."""

MAX_STACKED_BYTES = 64 << 20
"""Maximum size of the latents that stacked members read per training step."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MemberConfig:
    """What one member is trained on."""

    variant: str
    recipe: Recipe
    inputs: ProbeInputs
    layers: tuple[int, ...]
    """Indices of the inputs' layers that the member reads."""

    seed: int
    pretrained: PretrainedEncoder | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedMember:
    """One variant trained with one seed; the probe has the weights of its best epoch."""

    variant: str
    seed: int
    recipe: Recipe
    inputs: ProbeInputs
    probe: Probe
    history: History
    pretrained: PretrainedEncoder | None = None
    log: TrainingLog | None = None
    """Log of the training if blocks of the backbone were fine-tuned with the probe."""

    trained_backbone_parameters: int = 0
    """Number of trained parameters in blocks of the backbone."""

    component: str = PROBE
    """Name of the probe's component in ``train.freeze``."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the inputs that the probe reads."""
        return tuple(self.inputs.columns[source] for source in self.probe.layout.sources)

    @property
    def parameters(self) -> int:
        """Number of trained parameters; those frozen from the start are not counted."""
        frozen = [component for component, epoch in self.recipe.train.freeze.items() if epoch == 0]
        return self.trained_backbone_parameters + sum(
            parameter.numel()
            for name, parameter in self.probe.named_parameters()
            if not any(belongs_to(f"{self.component}.{name}", component) for component in frozen)
        )


CheckpointOf = Callable[[Sequence[MemberConfig], Corpus], Checkpoint | None]
"""Return the checkpoint of members that are trained in one program; None if the training is not kept."""


def train_members(
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None = None,
    after_epoch: AfterEpoch | None = None,
    checkpoint_of: CheckpointOf | None = None,
) -> list[TrainedMember]:
    """Train every member and return them in the given order."""
    trained = sorted(train_each(members, corpus, progress, after_epoch, checkpoint_of), key=lambda pair: pair[0])
    return [member for _, member in trained]


def train_each(
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None = None,
    after_epoch: AfterEpoch | None = None,
    checkpoint_of: CheckpointOf | None = None,
) -> Iterator[tuple[int, TrainedMember]]:
    """Train every member, group by group; yield each with its index among ``members`` as soon as it is trained."""
    for group in _stackable_groups(members, corpus):
        probes, configs = [member.probe for member in group], [member.config for member in group]
        checkpoint = checkpoint_of(configs, corpus) if checkpoint_of else None
        trained = _fit_stacked(probes, configs, corpus, progress, after_epoch, checkpoint)
        yield from zip([member.index for member in group], trained, strict=True)


@dataclass(frozen=True, eq=False)
class IndexedMember:
    """A member about to be trained."""

    index: int
    """Index in the order of the caller."""

    config: MemberConfig
    probe: Probe


def _stackable_groups(members: Sequence[MemberConfig], corpus: Corpus) -> Iterator[list[IndexedMember]]:
    """Yield groups of members to train in one program: small ones of equal shape, or a large one alone."""
    waiting: dict[str, list[IndexedMember]] = {}
    for index, config in enumerate(members):
        member = IndexedMember(index, config, initial_probe(config, corpus))
        if _trains_alone(member):
            yield [member]
            continue
        key = _stacking_key(member)
        group = waiting.setdefault(key, [])
        layers = sum(len(other.config.layers) for other in group) + len(config.layers)
        width = config.inputs.width
        if group and layers * width * 8 * config.recipe.train.batch_rows > MAX_STACKED_BYTES:
            yield waiting.pop(key)
            group = waiting.setdefault(key, [])
        group.append(member)
    yield from waiting.values()


def _trains_alone(member: IndexedMember) -> bool:
    return (
        member.config.inputs.blocks is not None
        or member.probe.layout.tokens
        or sum(parameter.numel() for parameter in member.probe.parameters()) > MAX_STACKED_PARAMETERS
    )


def _stacking_key(member: IndexedMember) -> str:
    """Return a key that members share if they can be stacked: same inputs and shape, recipes that train alike."""
    recipe = replace(member.config.recipe, variants=(), summary="")
    recipe = replace(
        recipe, probe=replace(recipe.probe, inputs=(), layers="all"), train=replace(recipe.train, seeds=(0,))
    )
    return f"{id(member.config.inputs)} {member.probe.shape} {fingerprint(plain(recipe))}"


def initial_probe(member: MemberConfig, corpus: Corpus) -> Probe:
    """Create the probe of a member as it is before training, drawn with the member's seed."""
    train = corpus.split("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        tokens = member.inputs.tokens is not None
        views = [(column.plan, column.view) for column in member.inputs.columns]
        layout = layout_for(member.recipe.probe, [member.layers], member.inputs.widths, tokens, views)
        probe = build(member.recipe.probe, corpus.kind, len(corpus.labels), train.texts.shape[1], layout)
    by_token = tokens and not probe.pools
    probe.set_normalization(
        *member.inputs.moments(np.unique(train.texts), probe.spec.center, probe.spec.scale, by_token)
    )
    if member.pretrained:
        by_layer = [member.pretrained.by_layer[layer] for layer in member.layers]
        mixer = {name: value[list(member.layers)] for name, value in member.pretrained.mixer.items()}
        probe.load_members(by_layer, [mixer])
    return probe


def _fit_stacked(
    probes: Sequence[Probe],
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None,
    after_epoch: AfterEpoch | None,
    checkpoint: Checkpoint | None,
) -> list[TrainedMember]:
    """Train the probes of members, all of one shape, in one program."""
    recipe, inputs = members[0].recipe, members[0].inputs
    probe = stack(probes) if len(probes) > 1 else probes[0]
    seeds = [member.seed for member in members]
    modules = modules_of({PROBE: probe}, inputs)
    finetunes = BACKBONE in modules
    problem = TrainingProblem(
        modules=modules,
        member_of=owners_of(modules),
        objectives={PROBE: task_objective(probe, inputs, corpus, recipe, seeds, all_metrics=finetunes)},
        shared=(BACKBONE,) if finetunes else (),
        absent=() if finetunes else (BACKBONE,),
    )
    trained_backbone_parameters = count_trainable(problem, recipe.train, BACKBONE)
    name = (
        f"training {members[0].variant}, seed {seeds[0]}" if len(members) == 1 else f"training {len(members)} together"
    )
    result = fit(problem, recipe.train, seeds, progress, name, after_epoch, checkpoint)
    singles = [unstack(probe, index).eval() for index in range(len(probes))] if len(probes) > 1 else [probe]
    return [
        TrainedMember(
            variant=member.variant,
            seed=member.seed,
            recipe=member.recipe,
            inputs=member.inputs,
            probe=single,
            history=history,
            pretrained=member.pretrained,
            log=result.log if finetunes else None,
            trained_backbone_parameters=trained_backbone_parameters,
        )
        for member, single, history in zip(members, singles, result.histories[PROBE], strict=True)
    ]


def task_objective(
    probe: Probe, inputs: ProbeInputs, corpus: Corpus, recipe: Recipe, seeds: Sequence[int], all_metrics: bool
) -> TaskObjective:
    """Return the loss and the validation metrics of a probe on the task of a corpus.

    Args:
        seeds: ``[member]``, of the probe's members.
        all_metrics: whether all metrics of the task are measured after every epoch, or the selection metric alone.
    """
    train, scorer, task = corpus.split("train"), scorer_of(corpus, corpus.selection_split), task_of(corpus)
    loss_name, metric = loss_and_metric(recipe, task)
    metrics = dict.fromkeys([metric, *(task.metrics if all_metrics else ())])
    probe.seed(seeds)
    orders = order_indices(seeds)
    reads = shared_reads(probe.layout, orders)
    training, validation = objective_of(probe, inputs, train), objective_of(probe, inputs, scorer.rows)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        return training.loss(probe, reads, rows, orders, loss_name)

    def validate() -> dict[str, NDArray[np.floating]]:
        answers = [scorer.decode(prediction) for prediction in validation.predict(probe)]
        return {name: np.array([scorer.value(name, answer) for answer in answers]) for name in metrics}

    return TaskObjective(
        loss=loss,
        validate=validate,
        rows=len(train),
        batch_rows=recipe.train.batch_rows,
        smallest_batch=MIN_BATCH_ROWS.get(loss_name, 1),
    )


def modules_of(probes: Mapping[str, Probe], inputs: ProbeInputs) -> dict[str, nn.Module]:
    """Return component name -> module to train: the probes, and the fine-tuned blocks that their inputs come from."""
    backbone: dict[str, nn.Module] = {} if inputs.blocks is None else {BACKBONE: inputs.blocks}
    return backbone | dict(probes)


def owners_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return parameter name -> ``[first axis]``, the member that each slice belongs to.

    Blocks of a backbone belong to the first member.
    """
    owners: dict[str, Tensor] = {}
    for component, module in modules.items():
        if isinstance(module, Probe):
            owners |= {f"{component}.{name}": owner for name, owner in module.member_of().items()}
        else:
            owners |= {
                f"{component}.{name}": torch.zeros(len(parameter), dtype=torch.int64)
                for name, parameter in module.named_parameters()
                if parameter.requires_grad
            }
    return owners
