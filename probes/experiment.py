"""An experiment: train every variant with every seed, choose on validation, then score test once.

It is given latents, never a backbone. Both kinds of task, scores and classes, are one record each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.corpus import Corpus, CorpusError, Rows
from data.latents import LatentStore
from data.plan import Columns, resolve_layers
from data.progress import Progress, Silent
from data.shard import Latents
from data.spec import SpecError, nearest
from probes.calibration import Calibration, calibrate
from probes.losses import LOSSES, SMALLEST_BATCH
from probes.metrics import METRICS
from probes.probe import ROUNDING, ClassProbe, Probe, ProbeSpec, ScoreProbe
from probes.recipe import Recipe
from probes.siamese import layer_cosines
from probes.train import Fitted, fit


@dataclass(frozen=True)
class Task:
    """What a kind of target implies."""

    name: str
    loss: str
    losses: tuple[str, ...]
    metric: str
    metrics: tuple[str, ...]


TIED = 0.01
"""Share of validation rows at the top of the scale above which it is said."""

TASKS = {
    "score": Task("similarity", "log_variance", ("mse", "log_variance"), "spearman", ("pearson", "spearman")),
    "class": Task("classification", "cross_entropy", ("cross_entropy",), "accuracy", ("accuracy", "macro_f1")),
}


@dataclass(frozen=True, eq=False)
class Inputs:
    """Latents as a probe reads them."""

    values: Tensor
    """``[layer, text, width]`` in float32: the layers of each view, one view after another."""

    columns: tuple[tuple[str, int], ...]
    """(view, layer) of each index of the layer axis."""

    @property
    def view(self) -> str:
        """The views it holds, joined."""
        return "+".join(dict.fromkeys(view for view, _ in self.columns))

    @property
    def layer(self) -> int | None:
        """The layer, where there is one only."""
        return self.columns[0][1] if len(self.columns) == 1 else None


@dataclass(frozen=True, eq=False)
class Trained:
    """One variant trained with one seed."""

    variant: str
    seed: int
    recipe: Recipe
    inputs: Inputs
    probe: Probe
    fitted: Fitted
    calibration: Calibration | None
    """Raw prediction to score in 0..1; None for classes."""


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


def train_variant(
    name: str, recipe: Recipe, corpus: Corpus, inputs: Inputs, seed: int, progress: Progress | None = None
) -> Trained:
    """Train one variant with one seed; the probe is left at its best epoch on validation."""
    task, train, validation = task_of(corpus), corpus.split("train"), corpus.split("validation")
    loss_name = task.loss if recipe.train.loss == "auto" else recipe.train.loss
    metric = task.metric if recipe.train.metric == "auto" else recipe.train.metric
    for key, value, known in (("loss", loss_name, task.losses), ("metric", metric, task.metrics)):
        if value not in known:
            raise SpecError(f"train.{key} = '{value}' does not fit {task.name}; use one of: {', '.join(known)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = build(recipe, corpus.labels, train.sides.shape[1], inputs)
        probe.adapt(inputs.values[:, np.unique(train.sides)])
        targets = torch.from_numpy(train.targets).to(torch.int64 if corpus.labels else torch.float32)

        def loss(rows: NDArray[np.int64]) -> Tensor:
            return LOSSES[loss_name](probe(sides_of(inputs, train.sides[rows])), targets[rows])

        def validate() -> float:
            prediction = answers(raw_predictions(probe, inputs, validation))
            if metric in ("pearson", "spearman") and np.ptp(prediction) == 0:
                return math.nan  # no correlation: such an epoch is never the best
            return float(METRICS[metric](prediction, validation.targets))

        smallest = SMALLEST_BATCH.get(loss_name, 1)
        fitted = fit(probe, loss, len(train), validate, recipe.train, seed, smallest, progress)
    calibration = None
    if isinstance(probe, ScoreProbe):
        with torch.inference_mode():
            raw, top = raw_predictions(probe, inputs, validation), probe.top()
        calibration = calibrate(raw, validation.targets, top)
        above = float((raw > top + 2 * ROUNDING).mean())
        if above > TIED and progress:
            progress.note(f"{name}: {above:.0%} of validation is above identical texts, and ties with them at the top")
    return Trained(name, seed, recipe, inputs, probe, fitted, calibration)


def build(recipe: Recipe, labels: Sequence[str], sides: int, inputs: Inputs) -> Probe:
    """A fresh probe for these latents: for classes where there are labels, else for scores."""
    layers, _, width = inputs.values.shape
    if labels:
        return ClassProbe(recipe.probe, layers, width, sides, len(labels))
    return ScoreProbe(recipe.probe, layers, width)


def read_inputs(store: LatentStore, texts: Sequence[str], columns: Columns, spec: ProbeSpec) -> Inputs:
    """The latents that ``spec`` reads of ``texts``, of the ``columns`` that a plan keeps.

    Raises:
        SpecError: the probe asks for a view or a layer that the plan does not keep.
    """
    views: tuple[str, ...] = spec.views or tuple(columns)
    wanted: list[tuple[str, int]] = []
    for view in views:
        if view not in columns:
            raise SpecError(f"probe.views names '{view}', which plan.views does not keep. {nearest(view, columns)}")
        kept = columns[view]
        layers = kept if spec.layers == "all" else resolve_layers(spec.layers, store.layers)
        for layer in layers:
            if layer not in kept:
                raise SpecError(f"probe.layers names {layer}, which plan.layers does not keep: {list(kept)}.")
            wanted.append((view, layer))
    latents = {view: store.read(texts, view, [layer for other, layer in wanted if other == view]) for view in views}
    return Inputs(stack(latents, wanted), tuple(wanted))


def stack(latents: Mapping[str, Latents], columns: Sequence[tuple[str, int]]) -> Tensor:
    """``[layer, text, width]`` by view, whose layers come in the order of ``columns`` -> one tensor in float32."""
    views = list(dict.fromkeys(view for view, _ in columns))
    return torch.cat([torch.from_numpy(np.asarray(latents[view], np.float32)) for view in views])


def sides_of(inputs: Inputs, sides: NDArray[np.int64]) -> list[Tensor]:
    """``[row, side]`` indices -> one ``[layer, row, width]`` per side."""
    return [inputs.values[:, column] for column in sides.T]


def raw_predictions(probe: Probe, inputs: Inputs, rows: Rows, batch: int = 4096) -> NDArray[np.float32]:
    """What the probe says of rows, before calibration: ``[row]`` numbers or ``[row, class]`` logits."""
    parts = [probe(sides_of(inputs, rows.sides[start : start + batch])) for start in range(0, len(rows), batch)]
    values: NDArray[np.float32] = torch.cat(parts).detach().numpy()
    return values


def answers(raw: NDArray[Any]) -> NDArray[Any]:
    """The predicted number, or the most likely class, of each row."""
    return raw.argmax(1) if raw.ndim == 2 else raw


def choose(trained: Sequence[Trained]) -> str:
    """The variant with the best validation metric, the mean over its seeds."""
    values: dict[str, list[float]] = {}
    for one in trained:
        values.setdefault(one.variant, []).append(one.fitted.best_value)
    return max(values, key=lambda name: float(np.mean(values[name])))


def raw_cosines(inputs: Inputs, rows: Rows) -> NDArray[np.float32]:
    """The untrained reference for scores: ``[layer, row]``, plain cosines of the latents."""
    cosines = torch.empty(len(inputs.columns), len(rows))
    for layer, values in enumerate(inputs.values):
        first, second = (values[column] for column in rows.sides.T)
        cosines[layer] = layer_cosines(first, second)
    return cosines.numpy()


def train_all(
    variants: Mapping[str, Recipe],
    corpus: Corpus,
    inputs_of: Callable[[Recipe], Inputs],
    progress: Progress | None = None,
) -> list[Trained]:
    """Every variant with every seed of its recipe."""
    progress = progress or Silent()
    trained = []
    for name, recipe in variants.items():
        inputs = inputs_of(recipe)
        for seed in recipe.train.seeds:
            trained.append(train_variant(name, recipe, corpus, inputs, seed, progress))
            fitted = trained[-1].fitted
            progress.note(
                f"{name}, seed {seed}: best epoch {fitted.best_epoch + 1} of {len(fitted.values)}, "
                f"validation {fitted.best_value:.4f}"
            )
    return trained
