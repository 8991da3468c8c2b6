"""Training members: a probe, some layers of its inputs, a seed; each left at its best epoch on validation.

It is given latents, never a backbone. Small members of one shape train side by side in one program; large ones fill
the machine alone and go one after another.
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
from permafrost.probes.inputs.finetuned import FinetunedInputs
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe, layout_for, stack, unstack
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.tasks.losses import SMALLEST_BATCH
from permafrost.probes.tasks.registry import build, loss_and_metric, objective_of, scorer_of, task_of
from permafrost.probes.training.batches import orders_of
from permafrost.probes.training.best_state import History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.log import Log
from permafrost.probes.training.loop import AfterEpoch, fit
from permafrost.probes.training.parameter_groups import BACKBONE, learning_numbers, within
from permafrost.probes.training.problem import TaskObjective, TrainingProblem

SMALL = 50_000
"""Numbers to learn below which members train side by side: larger ones fill the machine alone."""

TOGETHER_BYTES = 64 << 20
"""Most latents that members side by side read in a step."""


@dataclass(frozen=True, eq=False)
class MemberConfig:
    """One training to do."""

    variant: str
    recipe: Recipe
    inputs: ProbeInputs
    layers: tuple[int, ...]
    """Which of the inputs' layers it reads."""

    seed: int
    pretrained: PretrainedEncoder | None = None


@dataclass(frozen=True, eq=False)
class TrainedMember:
    """One variant trained with one seed."""

    variant: str
    seed: int
    recipe: Recipe
    inputs: ProbeInputs
    probe: Probe
    history: History
    pretrained: PretrainedEncoder | None = None
    log: Log | None = None
    """Where blocks of the backbone learnt with it."""

    of_blocks: int = 0
    """How many numbers of the backbone's blocks it learnt."""

    component: str = PROBE
    """What its probe is called where the recipe freezes parts of it."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it reads."""
        return tuple(self.inputs.columns[source] for source in self.probe.layout.sources)

    @property
    def parameters(self) -> int:
        """How many numbers it learnt; what was frozen from the start is none of them."""
        still = [one for one, when in self.recipe.train.freeze.items() if when == 0]
        return self.of_blocks + sum(
            part.numel()
            for name, part in self.probe.named_parameters()
            if not any(within(f"{self.component}.{name}", one) for one in still)
        )


CheckpointOf = Callable[[Sequence[MemberConfig], Corpus], Checkpoint | None]
"""Where the training of some members, in one program, is kept while it lasts."""


def train_members(
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None = None,
    after_epoch: AfterEpoch | None = None,
    checkpoint_of: CheckpointOf | None = None,
) -> list[TrainedMember]:
    """Train every member; each probe is left at its best epoch on validation."""
    done = sorted(train_each(members, corpus, progress, after_epoch, checkpoint_of), key=lambda pair: pair[0])
    return [trained for _, trained in done]


def train_each(
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None = None,
    after_epoch: AfterEpoch | None = None,
    checkpoint_of: CheckpointOf | None = None,
) -> Iterator[tuple[int, TrainedMember]]:
    """Train every member, one group after another; yields each with its place among them as it is done."""
    for group in _groups(members, corpus):
        probes, some = [probe for _, _, probe in group], [member for _, member, _ in group]
        checkpoint = checkpoint_of(some, corpus) if checkpoint_of else None
        fitted = _fit_beside(probes, some, corpus, progress, after_epoch, checkpoint)
        for (place, member, _), (probe, how, log, of_blocks) in zip(group, fitted, strict=True):
            told = (member.variant, member.seed, member.recipe, member.inputs)
            yield place, TrainedMember(*told, probe, how, member.pretrained, log, of_blocks)


Placed = tuple[int, MemberConfig, Probe]


def _groups(members: Sequence[MemberConfig], corpus: Corpus) -> Iterator[list[Placed]]:
    """Members that train in one program: small ones of one shape, as many as a step has room for."""
    waiting: dict[str, list[Placed]] = {}
    for place, member in enumerate(members):
        probe = start(member, corpus)
        if (
            isinstance(member.inputs, FinetunedInputs)
            or probe.layout.tokens
            or sum(part.numel() for part in probe.parameters()) > SMALL
        ):
            yield [(place, member, probe)]
            continue
        recipe = replace(member.recipe, variants=(), summary="")
        alike = replace(
            recipe, probe=replace(recipe.probe, inputs=(), layers="all"), train=replace(recipe.train, seeds=(0,))
        )
        key = f"{id(member.inputs)} {probe.shape} {fingerprint(plain(alike))}"
        group = waiting.setdefault(key, [])
        layers = sum(len(other.layers) for _, other, _ in group) + len(member.layers)
        width = member.inputs.values.shape[2]
        if group and layers * width * 8 * recipe.train.batch_rows > TOGETHER_BYTES:
            yield waiting.pop(key)
            group = waiting.setdefault(key, [])
        group.append((place, member, probe))
    yield from waiting.values()


def start(member: MemberConfig, corpus: Corpus) -> Probe:
    """The probe of a member before its training."""
    train = corpus.split("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        tokens = member.inputs.offsets is not None
        of = [(column.plan, column.view) for column in member.inputs.columns]
        layout = layout_for(member.recipe.probe, [member.layers], member.inputs.widths, tokens, of)
        probe = build(member.recipe.probe, corpus.kind, len(corpus.labels), train.texts.shape[1], layout)
    by_token = tokens and not probe.pools
    probe.adapt(*member.inputs.moments(np.unique(train.texts), probe.spec.center, probe.spec.scale, by_token))
    if member.pretrained:
        by_layer = [member.pretrained.by_layer[layer] for layer in member.layers]
        mixer = {name: value[list(member.layers)] for name, value in member.pretrained.mixer.items()}
        probe.load_members(by_layer, [mixer])
    return probe


def _fit_beside(
    probes: Sequence[Probe],
    members: Sequence[MemberConfig],
    corpus: Corpus,
    progress: Progress | None,
    after_epoch: AfterEpoch | None,
    checkpoint: Checkpoint | None,
) -> list[tuple[Probe, History, Log | None, int]]:
    """Train probes of one shape in one program."""
    recipe, inputs = members[0].recipe, members[0].inputs
    probe = stack(probes) if len(probes) > 1 else probes[0]
    seeds = [member.seed for member in members]
    modules = modules_of({PROBE: probe}, inputs)
    watched = len(modules) > 1
    objective = task_objective(probe, inputs, corpus, recipe, seeds, watched)
    shared, absent = ((BACKBONE,), ()) if watched else ((), (BACKBONE,))
    problem = TrainingProblem(
        modules=modules, member_of=owners_of(modules), objectives={PROBE: objective}, shared=shared, absent=absent
    )
    of_blocks = learning_numbers(problem, recipe.train, BACKBONE)
    name = (
        f"training {members[0].variant}, seed {seeds[0]}" if len(members) == 1 else f"training {len(members)} together"
    )
    result = fit(problem, recipe.train, seeds, progress, name, after_epoch, checkpoint)
    fitted, log = result.histories[PROBE], result.log if watched else None
    singles = [unstack(probe, place).eval() for place in range(len(probes))] if len(probes) > 1 else [probe]
    return [(single, how, log, of_blocks) for single, how in zip(singles, fitted, strict=True)]


def task_objective(
    probe: Probe, inputs: ProbeInputs, corpus: Corpus, recipe: Recipe, seeds: Sequence[int], watched: bool
) -> TaskObjective:
    """What a probe is to learn of a corpus.

    Args:
        seeds: of the probe's members.
        watched: whether all metrics are measured after every epoch, not only the one that chooses.
    """
    train, scorer, task = corpus.split("train"), scorer_of(corpus, corpus.selection), task_of(corpus)
    loss_name, metric = loss_and_metric(recipe, task)
    metrics = dict.fromkeys([metric, *(task.metrics if watched else ())])
    probe.seed(seeds)
    orders = orders_of(seeds)
    how = shared_reads(probe.layout, orders)
    result, chosen = objective_of(probe, inputs, train), objective_of(probe, inputs, scorer.rows)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        return result.loss(probe, how, rows, orders, loss_name)

    def validate() -> dict[str, NDArray[np.floating]]:
        answers = [scorer.decode(said) for said in chosen.predict(probe)]
        return {name: np.array([scorer.value(name, one) for one in answers]) for name in metrics}

    return TaskObjective(
        loss=loss,
        validate=validate,
        rows=len(train),
        batch_rows=recipe.train.batch_rows,
        smallest_batch=SMALLEST_BATCH.get(loss_name, 1),
    )


def modules_of(probes: Mapping[str, Probe], inputs: ProbeInputs) -> dict[str, nn.Module]:
    """Component -> what learns in a training: probes, and the blocks that their inputs are made by."""
    upper: dict[str, nn.Module] = {BACKBONE: inputs.module} if isinstance(inputs, FinetunedInputs) else {}
    return upper | dict(probes)


def owners_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameter -> the members that its parts belong to; blocks of a backbone belong to the first."""
    found: dict[str, Tensor] = {}
    for component, module in modules.items():
        if isinstance(module, Probe):
            found |= {f"{component}.{name}": owner for name, owner in module.member_of().items()}
        else:
            trained = [(name, part) for name, part in module.named_parameters() if part.requires_grad]
            found |= {f"{component}.{name}": torch.zeros(len(part), dtype=torch.int64) for name, part in trained}
    return found
