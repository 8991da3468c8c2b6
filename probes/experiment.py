"""Training members: a probe, some layers of its inputs, a seed; each left at its best epoch on validation.

It is given latents, never a backbone. Both kinds of task, scores and classes, are one record each. Small members of
one shape train side by side in one program; large ones fill the machine alone and go one after another.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.corpus import Corpus, CorpusError, Rows
from data.progress import Progress
from data.spec import SpecError, fingerprint, plain
from probes.inputs import Column, Inputs, sides_of
from probes.losses import LOSSES, SMALLEST_BATCH
from probes.metrics import CORRELATIONS, METRICS
from probes.pretraining import Pretrained
from probes.probe import ClassProbe, Probe, ProbeSpec, ScoreProbe, alone, beside, seats_for
from probes.reading import reading
from probes.recipe import Recipe
from probes.seats import Seats
from probes.siamese import cosines
from probes.train import AfterEpoch, Fitted, Learner, fit, orders_of


@dataclass(frozen=True)
class Task:
    """What a kind of target implies."""

    name: str
    loss: str
    losses: tuple[str, ...]
    metric: str
    metrics: tuple[str, ...]


SMALL = 50_000
"""Numbers to learn below which members train side by side: larger ones fill the machine alone."""

TOGETHER_BYTES = 64 << 20
"""Most latents that members side by side read in a step."""

CHUNK_BYTES = 256 << 20
"""Most latents that are read at once where nothing is learnt."""

TASKS = {
    "score": Task("similarity", "log_variance", ("mse", "log_variance"), "spearman", ("pearson", "spearman")),
    "class": Task("classification", "cross_entropy", ("cross_entropy",), "accuracy", ("accuracy", "macro_f1")),
}


@dataclass(frozen=True, eq=False)
class Member:
    """One training to do."""

    variant: str
    recipe: Recipe
    inputs: Inputs
    layers: tuple[int, ...]
    """Which of the inputs' layers it reads."""

    seed: int
    pretrained: Pretrained | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """One variant trained with one seed."""

    variant: str
    seed: int
    recipe: Recipe
    inputs: Inputs
    probe: Probe
    fitted: Fitted
    pretrained: Pretrained | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it reads."""
        return tuple(self.inputs.columns[source] for source in self.probe.seats.sources)

    @property
    def parameters(self) -> int:
        """How many numbers it learnt."""
        return sum(part.numel() for part in self.probe.parameters())


def task_of(corpus: Corpus) -> Task:
    """The task that a corpus poses; raises :class:`CorpusError` where it has no targets or no training rows."""
    if corpus.score_range is None and not corpus.labels:
        raise CorpusError(f"{corpus.name}: it has no targets to learn; set corpus.target to score or class.")
    if corpus.score_range is None and len(corpus.labels) < 2:
        raise CorpusError(f"{corpus.name}: all its training rows are of the class '{corpus.labels[0]}'.")
    for split in ("train", "validation"):
        corpus.split(split)
    task = TASKS["score" if corpus.score_range else "class"]
    if task.name == "similarity" and corpus.split("train").sides.shape[1] != 2:
        raise CorpusError(f"{corpus.name}: scores need two texts a row; corpus.columns names one.")
    if task.name == "similarity" and np.ptp(corpus.split("validation").targets) == 0:
        raise CorpusError(f"{corpus.name}: all its validation scores are the same, a constant correlates with nothing.")
    return task


def loss_and_metric(recipe: Recipe, task: Task) -> tuple[str, str]:
    """The loss that trains and the validation metric that chooses; raises :class:`SpecError` where one does not fit."""
    loss = task.loss if recipe.train.loss == "auto" else recipe.train.loss
    metric = task.metric if recipe.train.metric == "auto" else recipe.train.metric
    for key, value, known in (("loss", loss, task.losses), ("metric", metric, task.metrics)):
        if value not in known:
            raise SpecError(f"train.{key} = '{value}' does not fit {task.name}; use one of: {', '.join(known)}.")
    return loss, metric


def build(spec: ProbeSpec, labels: Sequence[str], sides: int, seats: Seats) -> Probe:
    """A fresh probe: for classes where there are labels, else for scores."""
    return ClassProbe(spec, seats, sides, len(labels)) if labels else ScoreProbe(spec, seats)


def train_members(
    members: Sequence[Member], corpus: Corpus, progress: Progress | None = None, after_epoch: AfterEpoch | None = None
) -> list[Trained]:
    """Train every member; each probe is left at its best epoch on validation."""
    done = sorted(train_each(members, corpus, progress, after_epoch), key=lambda pair: pair[0])
    return [trained for _, trained in done]


def train_each(
    members: Sequence[Member], corpus: Corpus, progress: Progress | None = None, after_epoch: AfterEpoch | None = None
) -> Iterator[tuple[int, Trained]]:
    """Train every member, one group after another; yields each with its place among them as it is done."""
    for group in _groups(members, corpus):
        probes = [probe for _, _, probe in group]
        fitted = _fit_beside(probes, [member for _, member, _ in group], corpus, progress, after_epoch)
        for (place, member, _), (probe, how) in zip(group, fitted, strict=True):
            yield (
                place,
                Trained(member.variant, member.seed, member.recipe, member.inputs, probe, how, member.pretrained),
            )


Placed = tuple[int, Member, Probe]


def _groups(members: Sequence[Member], corpus: Corpus) -> Iterator[list[Placed]]:
    """Members that train in one program: small ones of one shape, as many as a step has room for."""
    waiting: dict[str, list[Placed]] = {}
    for place, member in enumerate(members):
        probe = start(member, corpus)
        if probe.seats.tokens or sum(part.numel() for part in probe.parameters()) > SMALL:
            yield [(place, member, probe)]
            continue
        recipe = replace(member.recipe, variants=(), summary="")
        alike = replace(
            recipe, probe=replace(recipe.probe, inputs=(), layers="all"), train=replace(recipe.train, seeds=(0,))
        )
        key = f"{id(member.inputs)} {max(probe.seats.widths)} {probe.encoder.code} {fingerprint(plain(alike))}"
        group = waiting.setdefault(key, [])
        layers = sum(len(other.layers) for _, other, _ in group) + len(member.layers)
        width = member.inputs.values.shape[2]
        if group and layers * width * 8 * recipe.train.batch_rows > TOGETHER_BYTES:
            yield waiting.pop(key)
            group = waiting.setdefault(key, [])
        group.append((place, member, probe))
    yield from waiting.values()


def start(member: Member, corpus: Corpus) -> Probe:
    """The probe of a member before its training."""
    train = corpus.split("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        tokens = member.inputs.offsets is not None
        of = [(column.plan, column.view) for column in member.inputs.columns]
        seats = seats_for(member.recipe.probe, [member.layers], member.inputs.widths, tokens, of)
        probe = build(member.recipe.probe, corpus.labels, train.sides.shape[1], seats)
    probe.adapt(*member.inputs.moments(np.unique(train.sides), probe.spec.center, probe.spec.scale))
    if member.pretrained:
        by_layer = [member.pretrained.by_layer[layer] for layer in member.layers]
        mixer = {name: value[list(member.layers)] for name, value in member.pretrained.mixer.items()}
        probe.take(by_layer, [mixer])
    return probe


def _fit_beside(
    probes: Sequence[Probe],
    members: Sequence[Member],
    corpus: Corpus,
    progress: Progress | None,
    after_epoch: AfterEpoch | None,
) -> list[tuple[Probe, Fitted]]:
    """Train probes of one shape in one program."""
    recipe, inputs = members[0].recipe, members[0].inputs
    train, validation = corpus.split("train"), corpus.split("validation")
    loss_name, metric = loss_and_metric(recipe, task_of(corpus))
    probe = beside(probes) if len(probes) > 1 else probes[0]
    seeds = [member.seed for member in members]
    probe.seed(seeds)
    targets = torch.from_numpy(train.targets).to(torch.int64 if corpus.labels else torch.float32)

    orders = orders_of(seeds)
    how = reading(probe.seats, orders)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        return LOSSES[loss_name](probe(sides_of(inputs, how, train.sides[rows]), how), targets[rows[orders]])

    def validate() -> NDArray[np.floating]:
        said = answers(predictions(probe, inputs, validation))
        values = [_metric(metric, prediction, validation.targets) for prediction in said]
        return np.array(values)

    learner = Learner(probe, probe.owners(), loss, validate, len(train), SMALLEST_BATCH.get(loss_name, 1))
    name = (
        f"training {members[0].variant}, seed {seeds[0]}" if len(members) == 1 else f"training {len(members)} together"
    )
    fitted = fit(learner, recipe.train, seeds, progress, name, after_epoch)
    singles = [alone(probe, place).eval() for place in range(len(probes))] if len(probes) > 1 else [probe]
    return list(zip(singles, fitted, strict=True))


def _metric(name: str, prediction: NDArray[Any], target: NDArray[Any]) -> float:
    if name in CORRELATIONS and np.ptp(prediction) == 0:
        return math.nan  # no correlation: such an epoch is never the best
    return float(METRICS[name](prediction, target))


def predictions(probe: Probe, inputs: Inputs, rows: Rows) -> NDArray[np.float32]:
    """What each member of a probe says: ``[member, row]`` numbers or ``[member, row, class]`` logits."""
    if probe.seats.tokens and len(probe.seats.members) > 1:  # each pools with queries of its own
        singles = [alone(probe, member).eval() for member in range(len(probe.seats.members))]
        return np.concatenate([predictions(single, inputs, rows) for single in singles])
    how = reading(probe.seats)
    each = len(probe.seats.sources) * inputs.values.shape[2] * 4 * rows.sides.shape[1] * inputs.longest
    chunk = max(1, CHUNK_BYTES // each)
    parts = [probe(sides_of(inputs, how, rows.sides[None, at : at + chunk]), how) for at in range(0, len(rows), chunk)]
    said: NDArray[np.float32] = torch.cat(parts, 1).detach().numpy()
    return said


def answers(raw: NDArray[Any]) -> NDArray[Any]:
    """``[..., row]`` predicted numbers as they are, or of ``[..., row, class]`` logits the most likely class."""
    return raw.argmax(-1) if raw.ndim == 3 else raw


def untrained_cosines(inputs: Inputs, rows: Rows) -> NDArray[np.float32]:
    """The untrained reference for scores: ``[layer, row]``, plain cosines of the latents."""
    said = torch.empty(len(inputs.columns), len(rows))
    for layer in range(len(inputs.columns)):
        first, second = (inputs.pooled(layer, column) for column in rows.sides.T)
        said[layer] = cosines(first, second)
    return said.numpy()
