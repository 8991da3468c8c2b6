"""Combination of the trained members of one task, one per seed, into a :class:`TrainedTask` with predictions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.device.transfer import to_numpy
from permafrost.data.progress import Progress
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe, stack
from permafrost.probes.models.sentence_probes import ROUNDING, ScoreProbe
from permafrost.probes.objectives.base import untrained_cosines
from permafrost.probes.objectives.heads import mean_prediction, predictions
from permafrost.probes.tasks.base import Calibrated
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.variants.members import TrainedMember
from permafrost.probes.variants.trained_variant import TrainedTask

MAX_TIED = 0.01
"""Share of validation rows above the score of identical texts that is tolerated without a note."""

SplitPredictions = Mapping[str, NDArray[np.float32]]
"""Split -> ``[member, ...]``, the predictions of a probe's members."""


def predict_splits(probe: Probe, inputs: ProbeInputs, corpus: Corpus) -> SplitPredictions:
    """Return the predictions of a probe for every split."""
    with torch.inference_mode():
        return {split: predictions(probe, inputs, rows) for split, rows in corpus.splits.items()}


def combine_seeds(
    members: Sequence[TrainedMember],
    progress: Progress | None = None,
    seed_predictions: Sequence[SplitPredictions] = (),
    seed_blocks: Sequence[Callable[[], nn.Module]] = (),
) -> TrainedTask:
    """Stack the seeds of one task in one probe and predict every split.

    Args:
        seed_predictions: ``[seed]``, predictions of the members if they were made already.
        seed_blocks: as :attr:`TrainedTask.seed_blocks`.
    """
    first = members[0]
    config, recipe, problem = first.config, first.config.recipe, first.config.problem
    corpus, selection, inputs = problem.corpus, problem.corpus.selection_split, first.config.inputs
    probe = (stack([member.probe for member in members]) if len(members) > 1 else first.probe).eval()
    if seed_predictions:
        predicted = {split: np.concatenate([seed[split] for seed in seed_predictions]) for split in corpus.splits}
    else:
        predicted = dict(predict_splits(probe, inputs, corpus))
    means = mean_predictions(probe, inputs, corpus) if recipe.train.average else {}
    outputs = [means[selection]] if recipe.train.average else list(predicted[selection])
    calibrations = tuple(_calibrations(first, probe, predicted[selection], outputs, progress))
    return TrainedTask(
        variant=config.variant,
        recipe=recipe,
        problem=problem,
        columns=first.columns,
        seeds=tuple(member.config.seed for member in members),
        probe=probe,
        parameters=first.parameters,
        histories=[member.history for member in members],
        pretrained=[member.config.pretrained for member in members],
        predictions=predicted,
        mean_predictions=means,
        untrained_cosines=reference_cosines(problem, inputs),
        calibrations=calibrations,
        value=_selection_value(members, outputs, calibrations),
        best_index=int(np.argmax([member.history.best_value for member in members])),
        seed_blocks=seed_blocks,
    )


@torch.inference_mode()
def mean_predictions(probe: Probe, inputs: ProbeInputs, corpus: Corpus) -> SplitPredictions:
    """Return the combined prediction of all members for every split."""
    return {split: mean_prediction(probe, inputs, rows) for split, rows in corpus.splits.items()}


@torch.inference_mode()
def reference_cosines(problem: Problem, inputs: ProbeInputs) -> SplitPredictions:
    """Return split -> ``[layer, row]``; empty if the task has another reference, or latents are trained."""
    compares = problem.texts_per_row == 2 and problem.task.compares_texts
    if not compares or inputs.blocks is not None:
        return {}
    return {split: untrained_cosines(inputs, rows) for split, rows in problem.corpus.splits.items()}


def _calibrations(
    member: TrainedMember,
    probe: Probe,
    predicted: NDArray[np.float32],
    outputs: Sequence[NDArray[np.float32]],
    progress: Progress | None,
) -> list[Calibrated | None]:
    """Return what the task fits on the split that selects, for each output.

    Args:
        predicted: ``[seed, row]`` on that split.
        outputs: the same, or their mean if the seeds predict together.
    """
    config = member.config
    task, corpus = config.problem.task, config.problem.corpus
    maxima = _maximum_predictions(probe, predicted)
    calibrations = []
    for output, top in zip(outputs, [maxima.mean()] if config.recipe.train.average else maxima, strict=True):
        calibrations.append(task.calibrate(output, corpus, float(top)))
        tied = float((output > top + 2 * ROUNDING).mean()) if isinstance(probe, ScoreProbe) else 0.0
        if tied > MAX_TIED and progress:
            share = f"{config.variant}: {tied:.0%} of {corpus.selection_split}"
            progress.note(f"{share} is above identical texts, and ties with them at the top")
    return calibrations


@torch.inference_mode()
def _maximum_predictions(probe: Probe, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[seed]``: the prediction for identical texts, or the largest one if the probe compares no texts."""
    if isinstance(probe, ScoreProbe):
        top: NDArray[np.float32] = to_numpy(probe.top())
        return top
    return np.asarray(predicted.reshape(len(predicted), -1).max(1))


def _selection_value(
    members: Sequence[TrainedMember],
    outputs: Sequence[NDArray[np.float32]],
    calibrations: Sequence[Calibrated | None],
) -> float:
    """Return the selection metric on validation: of the mean prediction, or the mean over seeds."""
    problem = members[0].config.problem
    if not members[0].config.recipe.train.average:
        return float(np.mean([member.history.best_value for member in members]))
    scorer = problem.scorer(problem.corpus.selection_split)
    return scorer.value(problem.metric, scorer.decode(outputs[0], calibrations[0]))
