"""Heads of a probe: how each is built, and the objective that it is trained and asked with."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Rows
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.sentence_probes import ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.models.shared_reads import MemberLayout
from permafrost.probes.models.token_probes import SpanProbe, TagProbe
from permafrost.probes.objectives.base import Objective, RowObjective
from permafrost.probes.objectives.ranking import RankObjective
from permafrost.probes.objectives.tokens import SpanObjective, WordObjective

HEADS: dict[str, Callable[[ProbeSpec, MemberLayout, int, int], Probe]] = {
    "cosine": lambda spec, layout, text_count, label_count: ScoreProbe(spec, layout),
    "regression": lambda spec, layout, text_count, label_count: RegressionProbe(spec, layout, text_count, 1),
    "classes": ClassProbe,
    "labels": ClassProbe,
    "tags": lambda spec, layout, text_count, label_count: TagProbe(spec, layout, label_count),
    "span": lambda spec, layout, text_count, label_count: SpanProbe(spec, layout, 2),
}
"""Head -> function that builds its probe from the spec, the member layout, texts per row and number of labels."""

OBJECTIVES: dict[type[Probe], type[Objective]] = {TagProbe: WordObjective, SpanProbe: SpanObjective}
"""Probe class -> objective; all other probes have one target per row."""


def objective_of(
    probe: Probe,
    inputs: ProbeInputs,
    rows: Rows,
    weights: NDArray[np.float32] | None = None,
    ranks: bool = False,
) -> Objective:
    """Return the objective of a probe on some rows.

    Args:
        weights: of the classes or labels in the loss.
        ranks: whether to train on pairs to rank: batches hold relevant pairs, and other passages beside them.
    """
    if ranks:
        return RankObjective(inputs, rows)
    objective = OBJECTIVES.get(type(probe))
    return objective(inputs, rows) if objective else RowObjective(inputs, rows, weights)


def predictions(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the predictions of each member of a probe.

    Returns:
        Scores ``[member, row]``, logits ``[member, row, class]`` or ``[member, word, tag]``, or answer spans with their
        probability and the null score ``[member, row, 4]``.
    """
    return objective_of(probe, inputs, rows).predict(probe)


def mean_prediction(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the combined prediction of all members, in the shape of one member's."""
    return objective_of(probe, inputs, rows).predict_mean(probe)
