"""The untrained reference as a variant: the cosine of one layer, which a run chooses if no training improves on it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from permafrost.probes.config.columns import view_name
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import untrained_recipe
from permafrost.probes.inputs.providers import count_backbone_parameters
from permafrost.probes.models.probe import layout_for
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.variants.metric_rows import CosineReference, cosine_references, untrained_name
from permafrost.probes.variants.trained_variant import TrainedTask, TrainedVariant
from permafrost.probes.variants.workspace import Workspace


def untrained_variant(variants: Sequence[TrainedVariant], workspace: Workspace) -> TrainedVariant | None:
    """Return the cosine of the layer that is best on validation, of all that some variants read.

    Returns:
        a variant without trained parameters; None if the rows are no scored pairs of texts, all variants train the
        latents, there are several tasks, or every cosine is constant.
    """
    trained = [variant.tasks[PROBE] for variant in variants if PROBE in variant.tasks]
    candidates = [(_value(reference), reference) for reference in cosine_references(trained)]
    finite = [candidate for candidate in candidates if math.isfinite(candidate[0])]
    if not finite:
        return None
    value, reference = max(finite, key=lambda candidate: candidate[0])
    task = _untrained_task(reference, value)
    backbone = count_backbone_parameters(workspace.plan_latents(task.recipe, task.recipe.corpus).values())
    return TrainedVariant(
        variant=task.variant,
        recipe=task.recipe,
        tasks={PROBE: task},
        logs={},
        trained_parameters=0,
        parameters=backbone,
        backbone_parameters=backbone,
        saved_parameters=0,
        seconds=0.0,
        peak_bytes=0,
    )


def _value(reference: CosineReference) -> float:
    """Return the selection metric of a reference on the split that selects."""
    problem = reference.variant.problem
    split = problem.corpus.selection_split
    return problem.scorer(split).value(problem.metric, reference.cosines[split])


def _untrained_task(reference: CosineReference, value: float) -> TrainedTask:
    """Return a reference in the form of a trained task: without seeds, its mean prediction is the cosine."""
    owner, column, cosines = reference.variant, reference.column, reference.cosines
    corpus, task = owner.problem.corpus, owner.problem.task
    recipe = untrained_recipe(owner.recipe, column)
    width = owner.probe.layout.widths[owner.columns.index(column)]
    probe = ScoreProbe(recipe.probe, layout_for(recipe.probe, [(0,)], (width,), owner.probe.layout.tokens)).eval()
    return TrainedTask(
        variant=untrained_name(reference.of, view_name([column]), f"layer {column.layer}"),
        untrained_of=owner.variant,
        recipe=recipe,
        problem=replace(owner.problem, head="cosine", loss=""),
        columns=(column,),
        seeds=(),
        probe=probe,
        parameters=0,
        histories=(),
        pretrained=(),
        predictions={split: np.empty((0, len(cosine)), np.float32) for split, cosine in cosines.items()},
        mean_predictions=cosines,
        untrained_cosines={},
        calibrations=(task.calibrate(cosines[corpus.selection_split], corpus, float(probe.top()[0])),),
        value=value,
        best_index=0,
    )
