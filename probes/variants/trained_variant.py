"""Trained variants: of each task the probe of all seeds, with its predictions for every split.

Each seed predicts by itself, or all together by the mean of their predictions (``train.average``). Predictions are
kept, inputs are not: a run may read many plans, and memory holds the latents of a few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.objectives.fitted import FittedProbe
from permafrost.probes.tasks.base import Calibrated
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.training.best_state import History
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.log import TrainingLog


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedTask:
    """One task of a variant, trained with all its seeds."""

    variant: str
    recipe: Recipe
    """Recipe of the task."""

    problem: Problem
    columns: tuple[Column, ...]
    """Columns of the inputs that each member of the probe reads."""

    seeds: tuple[int, ...]
    """Empty for an untrained reference."""

    probe: Probe
    """Stacked probe with one member per seed."""

    parameters: int
    """Number of trained parameters per seed."""

    histories: Sequence[History]
    """``[seed]``."""

    pretrained: Sequence[PretrainedEncoder | None]
    """``[seed]``."""

    predictions: Mapping[str, NDArray[np.float32]]
    """Split -> numbers ``[seed, row]``, logits ``[seed, row, class]`` or ``[seed, word, tag]``, or answer spans."""

    mean_predictions: Mapping[str, NDArray[np.float32]]
    """Split -> mean prediction of the seeds, without the first axis; empty if each seed predicts by itself."""

    untrained_cosines: Mapping[str, NDArray[np.float32]]
    """Split -> ``[layer, row]``, cosine similarities of the latents; empty if rows are no scored pairs of texts."""

    calibrations: tuple[Calibrated | None, ...]
    """What the task fitted on validation, one per entry of :meth:`outputs`."""

    value: float
    """Selection metric on validation: of the mean prediction, or the mean over seeds."""

    best_index: int
    """Index of the seed that predicts new texts if a single one does: the best on validation, or, if tasks keep one
    state of their shared blocks, the best by the mean over tasks."""

    untrained_of: str = ""
    """Name of the variant whose latents it compares, if it is an untrained reference; else empty."""

    seed_blocks: Sequence[Callable[[], nn.Module]] = ()
    """``[seed]``, functions that return the fine-tuned blocks with the weights that were kept; empty if none were."""

    @property
    def average(self) -> bool:
        """Whether the seeds predict together, by the mean of their predictions."""
        return self.recipe.train.average

    def fitted_probe(self) -> FittedProbe:
        """Return what predicts new texts: all seeds if they predict together, else the best one."""
        corpus = self.problem.corpus
        return FittedProbe(
            variant=self.untrained_of or self.variant,
            untrained=bool(self.untrained_of),
            recipe=self.recipe,
            columns=self.columns,
            probe=self.probe if self.average else unstack(self.probe, self.best_index),
            calibration=self.calibrations[0 if self.average else self.best_index],
            labels=corpus.labels,
            first_number=corpus.first_number,
            score_range=corpus.score_range,
            kind=self.problem.task.kind,
            texts_per_row=self.problem.texts_per_row,
            seeds=self.seeds if self.average else self.seeds[self.best_index : self.best_index + 1],
            blocks=self.seed_blocks[self.best_index] if self.seed_blocks else None,
        )

    def outputs(self, split: str) -> list[NDArray[np.float32]]:
        """Return the predictions to evaluate on a split: those of each seed, or their mean alone."""
        return [self.mean_predictions[split]] if self.average else list(self.predictions[split])

    def decoded(self, split: str) -> list[NDArray[Any]]:
        """Return the decoded predictions of :meth:`outputs`."""
        if split not in self._decoded:
            scorer, outputs = self.problem.scorer(split), self.outputs(split)
            pairs = zip(outputs, self.calibrations, strict=True)
            self._decoded[split] = [scorer.decode(output, calibration) for output, calibration in pairs]
        return self._decoded[split]

    @cached_property
    def _decoded(self) -> dict[str, list[NDArray[Any]]]:
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedVariant:
    """A variant, trained with all its seeds on one task or several."""

    variant: str
    recipe: Recipe
    tasks: Mapping[str, TrainedTask]
    logs: Mapping[int, TrainingLog]
    """Seed -> log of its training; empty if the variant has one task and trained no block of the backbone."""

    trained_parameters: int
    """Number of trained parameters per seed."""

    parameters: int
    """Number of parameters that predict all tasks: of the backbone and of every probe."""

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


def best_variant(variants: Sequence[TrainedVariant]) -> TrainedVariant:
    """Return the best variant on validation, of those that have most tasks; the first of equals."""
    most_tasks = max(len(variant.tasks) for variant in variants)
    return max((variant for variant in variants if len(variant.tasks) == most_tasks), key=lambda variant: variant.value)


def keep_best_blocks(variants: Sequence[TrainedVariant]) -> list[TrainedVariant]:
    """Return the variants without their fine-tuned blocks, which fill memory; the best one keeps its own."""
    best = best_variant(variants)
    return [
        variant
        if variant is best
        else replace(variant, tasks={name: replace(task, seed_blocks=()) for name, task in variant.tasks.items()})
        for variant in variants
    ]
