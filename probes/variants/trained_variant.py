"""What a variant came to: its seeds side by side in one probe, and what they say of every split.

Seeds answer one by one, or together by the mean of what they say. Predictions are kept, latents are not: a run may
read many plans, and memory holds a few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.finetuned import FinetunedInputs
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.calibration import Calibration, calibrate
from permafrost.probes.models.probe import Probe, stack, unstack
from permafrost.probes.models.sentence_probes import ROUNDING, ScoreProbe
from permafrost.probes.tasks.fitted import FittedProbe
from permafrost.probes.tasks.registry import (
    loss_and_metric,
    mean_prediction,
    predictions,
    scorer_of,
    task_of,
    untrained_cosines,
)
from permafrost.probes.training.best_state import History
from permafrost.probes.training.encoder_pretraining import PretrainedEncoder
from permafrost.probes.training.log import Log
from permafrost.probes.variants.members import TrainedMember

TIED = 0.01
"""Share of validation rows at the top of the scale above which it is said."""


@dataclass(frozen=True, eq=False)
class TrainedVariant:
    """A variant, trained."""

    variant: str
    recipe: Recipe
    columns: tuple[Column, ...]
    """What each of its members reads."""

    seeds: tuple[int, ...]
    probe: Probe
    """A member per seed."""

    parameters: int
    """Numbers that one seed learnt."""

    histories: Sequence[History]
    pretrained: Sequence[PretrainedEncoder | None]
    predictions: Mapping[str, NDArray[np.float32]]
    """Split -> numbers ``[seed, row]``, logits ``[seed, row, class]`` or ``[seed, word, tag]``, places of answers."""

    mean_predictions: Mapping[str, NDArray[np.float32]]
    """Split -> what the seeds say together, without the first axis; empty where they answer one by one."""

    untrained: Mapping[str, NDArray[np.float32]]
    """Split -> ``[layer, row]``, cosines of the latents as they are; empty for classes."""

    calibrations: tuple[Calibration, ...]
    """Prediction to score in 0..1, one for each voice; none where the targets are no scores."""

    value: float
    """The validation metric that chooses: of what the seeds say together, or the mean of theirs."""

    best: int
    """The place of the seed that answers new texts where one does: whose validation metric is best, or, where tasks
    keep one state of what they share, the mean of theirs."""

    seed_blocks: Sequence[Callable[[], nn.Module]] = ()
    """For each seed, its blocks of the backbone with the weights that were kept; empty where none learnt."""

    logs: Sequence[Log] = ()
    """For each seed; empty where no block learnt."""

    of_backbone: int = 0
    """Numbers of the backbone that ran in training; 0 where its latents were cached."""

    @property
    def average(self) -> bool:
        """Whether the seeds answer together."""
        return self.recipe.train.average

    def fitted_probe(self, corpus: Corpus) -> FittedProbe:
        """What predicts new texts: all seeds if they predict together, else the best one."""
        return FittedProbe(
            variant=self.variant,
            recipe=self.recipe,
            columns=self.columns,
            probe=self.probe if self.average else unstack(self.probe, self.best),
            calibration=self.calibrations[0 if self.average else self.best] if self.calibrations else None,
            labels=corpus.labels,
            score_range=corpus.score_range,
            kind=corpus.kind,
            texts_per_row=corpus.split("train").texts.shape[1],
            seeds=self.seeds if self.average else self.seeds[self.best : self.best + 1],
            blocks=self.seed_blocks[self.best] if self.seed_blocks else None,
        )

    def without_blocks(self) -> "TrainedVariant":
        """The same, with nothing to answer new texts by."""
        return replace(self, seed_blocks=())

    def outputs(self, split: str) -> list[NDArray[np.float32]]:
        """What is answered on a split: by each seed, or by all together; what ``said`` has, without the seed."""
        return [self.mean_predictions[split]] if self.average else list(self.predictions[split])


SplitPredictions = Mapping[str, NDArray[np.float32]]
"""Split -> what some members say of it, ``[member, ...]``."""


def predict_splits(probe: Probe, inputs: ProbeInputs, corpus: Corpus) -> SplitPredictions:
    """What a probe says of every split."""
    with torch.inference_mode():
        return {split: predictions(probe, inputs, rows) for split, rows in corpus.splits.items()}


def combine_seeds(
    members: Sequence[TrainedMember],
    corpus: Corpus,
    progress: Progress | None = None,
    one_by_one: Sequence[SplitPredictions] = (),
    trunks: Sequence[Callable[[], nn.Module]] = (),
) -> TrainedVariant:
    """Join the seeds of one variant, and have them say what they say of every split.

    Args:
        one_by_one: what each of them says, where they have said it already.
        trunks: as :attr:`TrainedVariant.trunks`, where their inputs do not have them.
    """
    first = members[0]
    probe = (stack([one.probe for one in members]) if len(members) > 1 else first.probe).eval()
    learning = isinstance(first.inputs, FinetunedInputs)
    if learning:
        one_by_one = one_by_one or [predict_splits(one.probe, one.inputs, corpus) for one in members]
        trunks = trunks or [partial(_module, one.inputs) for one in members]
    if one_by_one:
        said = {split: np.concatenate([one[split] for one in one_by_one]) for split in corpus.splits}
    else:
        said = dict(predict_splits(probe, first.inputs, corpus))
    with torch.inference_mode():
        together = first.recipe.train.average
        joint = {split: mean_prediction(probe, first.inputs, rows) for split, rows in corpus.splits.items() if together}
        pairs = not learning and corpus.kind == "score" and corpus.split("train").texts.shape[1] == 2
        untrained = {split: untrained_cosines(first.inputs, rows) for split, rows in corpus.splits.items() if pairs}
        tops = None
        if corpus.kind == "score":
            tops = probe.top().numpy() if isinstance(probe, ScoreProbe) else said[corpus.selection].max(1)
    selection = corpus.selection
    voices = [joint[selection]] if together else list(said[selection])
    calibrations: list[Calibration] = []
    if tops is not None:
        calibrations = _calibrated(first.variant, voices, [tops.mean()] if together else list(tops), corpus, progress)
    return TrainedVariant(
        first.variant,
        first.recipe,
        first.columns,
        tuple(one.seed for one in members),
        probe,
        first.parameters,
        [one.history for one in members],
        [one.pretrained for one in members],
        said,
        joint,
        untrained,
        tuple(calibrations),
        _value(members, voices, corpus),
        int(np.argmax([one.history.best_value for one in members])),
        trunks,
        [one.log for one in members if one.log],
        sum(part.numel() for part in first.inputs.module.parameters())
        if isinstance(first.inputs, FinetunedInputs)
        else 0,
    )


def _calibrated(
    variant: str,
    voices: Sequence[NDArray[np.float32]],
    tops: Sequence[float],
    corpus: Corpus,
    progress: Progress | None,
) -> list[Calibration]:
    """Prediction to score, for each voice; ``tops`` is what identical texts get."""
    found = []
    for voice, top in zip(voices, tops, strict=True):
        found.append(calibrate(voice, corpus.split(corpus.selection).targets, float(top)))
        above = float((voice > top + 2 * ROUNDING).mean())
        if above > TIED and progress:
            share = f"{variant}: {above:.0%} of {corpus.selection}"
            progress.note(f"{share} is above identical texts, and ties with them at the top")
    return found


def _module(inputs: ProbeInputs) -> nn.Module:
    assert isinstance(inputs, FinetunedInputs)
    return inputs.module


def _value(members: Sequence[TrainedMember], voices: Sequence[NDArray[np.float32]], corpus: Corpus) -> float:
    first = members[0]
    if not first.recipe.train.average:
        return float(np.mean([one.history.best_value for one in members]))
    _, metric = loss_and_metric(first.recipe, task_of(corpus))
    scorer = scorer_of(corpus, corpus.selection)
    return scorer.value(metric, scorer.decode(voices[0]))


def choose(found: Sequence[TrainedVariant]) -> TrainedVariant:
    """The variant with the best validation metric."""
    return max(found, key=lambda one: one.value)
