"""Trained variants: the probe of all seeds of a variant, with its predictions for every split.

Each seed predicts by itself, or all together by the mean of their predictions (``train.average``). Predictions are
kept, inputs are not: a run may read many plans, and memory holds the latents of a few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.tasks.fitted import FittedProbe
from permafrost.probes.training.best_state import History
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.log import TrainingLog


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedVariant:
    """A variant, trained with all its seeds on one task."""

    variant: str
    recipe: Recipe
    columns: tuple[Column, ...]
    """Columns of the inputs that each member of the probe reads."""

    seeds: tuple[int, ...]
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

    calibrations: tuple[Calibration, ...]
    """Maps from predictions to scores in 0..1, one per entry of :meth:`outputs`; empty if targets are not scores."""

    value: float
    """Selection metric on validation: of the mean prediction, or the mean over seeds."""

    best_index: int
    """Index of the seed that predicts new texts if a single one does: the best on validation, or, if tasks keep one
    state of their shared blocks, the best by the mean over tasks."""

    seed_blocks: Sequence[Callable[[], nn.Module]] = ()
    """``[seed]``, functions that return the fine-tuned blocks with the weights that were kept; empty if none were."""

    logs: Sequence[TrainingLog] = ()
    """``[seed]``; empty if no block was fine-tuned."""

    backbone_parameters: int = 0
    """Number of parameters of the fine-tuned blocks, frozen ones included; 0 if latents were cached."""

    @property
    def average(self) -> bool:
        """Whether the seeds predict together, by the mean of their predictions."""
        return self.recipe.train.average

    def fitted_probe(self, corpus: Corpus) -> FittedProbe:
        """Return what predicts new texts: all seeds if they predict together, else the best one."""
        return FittedProbe(
            variant=self.variant,
            recipe=self.recipe,
            columns=self.columns,
            probe=self.probe if self.average else unstack(self.probe, self.best_index),
            calibration=self.calibrations[0 if self.average else self.best_index] if self.calibrations else None,
            labels=corpus.labels,
            score_range=corpus.score_range,
            kind=corpus.kind,
            texts_per_row=corpus.split("train").texts.shape[1],
            seeds=self.seeds if self.average else self.seeds[self.best_index : self.best_index + 1],
            blocks=self.seed_blocks[self.best_index] if self.seed_blocks else None,
        )

    def without_blocks(self) -> "TrainedVariant":
        """Return the variant without its fine-tuned blocks, which frees their memory."""
        return replace(self, seed_blocks=())

    def outputs(self, split: str) -> list[NDArray[np.float32]]:
        """Return the predictions to evaluate on a split: those of each seed, or their mean alone."""
        return [self.mean_predictions[split]] if self.average else list(self.predictions[split])


def best_variant(variants: Sequence[TrainedVariant]) -> TrainedVariant:
    """Return the variant with the best selection metric on validation; the first of equals."""
    return max(variants, key=lambda variant: variant.value)
