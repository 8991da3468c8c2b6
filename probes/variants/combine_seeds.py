"""Combination of the trained members of one variant, one per seed, into a :class:`TrainedVariant` with predictions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.calibration import Calibration, calibrate
from permafrost.probes.models.probe import Probe, stack
from permafrost.probes.models.sentence_probes import ROUNDING, ScoreProbe
from permafrost.probes.tasks.registry import (
    loss_and_metric,
    mean_prediction,
    predictions,
    scorer_of,
    task_of,
    untrained_cosines,
)
from permafrost.probes.variants.members import TrainedMember
from permafrost.probes.variants.trained_variant import TrainedVariant

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
    corpus: Corpus,
    progress: Progress | None = None,
    seed_predictions: Sequence[SplitPredictions] = (),
    seed_blocks: Sequence[Callable[[], nn.Module]] = (),
) -> TrainedVariant:
    """Stack the seeds of one variant in one probe and predict every split.

    Args:
        seed_predictions: ``[seed]``, predictions of the members if they were made already.
        seed_blocks: as :attr:`TrainedVariant.seed_blocks`; by default those of the members' inputs.
    """
    first, selection = members[0], corpus.selection_split
    probe = (stack([member.probe for member in members]) if len(members) > 1 else first.probe).eval()
    finetuned = first.inputs.blocks is not None
    if finetuned:
        seed_predictions = seed_predictions or [
            predict_splits(member.probe, member.inputs, corpus) for member in members
        ]
        seed_blocks = seed_blocks or [partial(_finetuned_blocks, member.inputs) for member in members]
    if seed_predictions:
        predicted = {split: np.concatenate([seed[split] for seed in seed_predictions]) for split in corpus.splits}
    else:
        predicted = dict(predict_splits(probe, first.inputs, corpus))
    means = _mean_predictions(probe, first.inputs, corpus) if first.recipe.train.average else {}
    outputs = [means[selection]] if first.recipe.train.average else list(predicted[selection])
    return TrainedVariant(
        variant=first.variant,
        recipe=first.recipe,
        columns=first.columns,
        seeds=tuple(member.seed for member in members),
        probe=probe,
        parameters=first.parameters,
        histories=[member.history for member in members],
        pretrained=[member.pretrained for member in members],
        predictions=predicted,
        mean_predictions=means,
        untrained_cosines={} if finetuned else _untrained_cosines(first.inputs, corpus),
        calibrations=tuple(_calibrations(first, probe, predicted[selection], outputs, corpus, progress)),
        value=_selection_value(members, outputs, corpus),
        best_index=int(np.argmax([member.history.best_value for member in members])),
        seed_blocks=seed_blocks,
        logs=[member.log for member in members if member.log],
        backbone_parameters=_parameter_count(_finetuned_blocks(first.inputs)) if finetuned else 0,
    )


@torch.inference_mode()
def _mean_predictions(probe: Probe, inputs: ProbeInputs, corpus: Corpus) -> SplitPredictions:
    return {split: mean_prediction(probe, inputs, rows) for split, rows in corpus.splits.items()}


@torch.inference_mode()
def _untrained_cosines(inputs: ProbeInputs, corpus: Corpus) -> SplitPredictions:
    """Return split -> ``[layer, row]``; empty if the rows are no scored pairs of texts."""
    if corpus.kind != "score" or corpus.split("train").texts.shape[1] != 2:
        return {}
    return {split: untrained_cosines(inputs, rows) for split, rows in corpus.splits.items()}


def _calibrations(
    member: TrainedMember,
    probe: Probe,
    predicted: NDArray[np.float32],
    outputs: Sequence[NDArray[np.float32]],
    corpus: Corpus,
    progress: Progress | None,
) -> list[Calibration]:
    """Return the map from prediction to score of each output; empty if the targets are not scores.

    Args:
        predicted: ``[seed, row]`` on the selection split.
        outputs: the same, or their mean if the seeds predict together.
    """
    if corpus.kind != "score":
        return []
    targets = corpus.split(corpus.selection_split).targets
    maxima = _maximum_predictions(probe, predicted)
    calibrations = []
    for output, maximum in zip(outputs, [maxima.mean()] if member.recipe.train.average else maxima, strict=True):
        calibrations.append(calibrate(output, targets, float(maximum)))
        tied = float((output > maximum + 2 * ROUNDING).mean())
        if tied > MAX_TIED and progress:
            share = f"{member.variant}: {tied:.0%} of {corpus.selection_split}"
            progress.note(f"{share} is above identical texts, and ties with them at the top")
    return calibrations


@torch.inference_mode()
def _maximum_predictions(probe: Probe, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``[seed]``: the prediction for identical texts, or the largest one if the probe compares no texts."""
    maxima: NDArray[np.float32] = probe.top().numpy() if isinstance(probe, ScoreProbe) else predicted.max(1)
    return maxima


def _selection_value(members: Sequence[TrainedMember], outputs: Sequence[NDArray[np.float32]], corpus: Corpus) -> float:
    """Return the selection metric on validation: of the mean prediction, or the mean over seeds."""
    recipe = members[0].recipe
    if not recipe.train.average:
        return float(np.mean([member.history.best_value for member in members]))
    _, metric = loss_and_metric(recipe, task_of(corpus))
    scorer = scorer_of(corpus, corpus.selection_split)
    return scorer.value(metric, scorer.decode(outputs[0]))


def _finetuned_blocks(inputs: ProbeInputs) -> nn.Module:
    assert inputs.blocks is not None
    return inputs.blocks


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
