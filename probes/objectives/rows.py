"""Objective of whole rows: one target for a text or a pair of texts."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.base import chunk_size
from permafrost.probes.objectives.losses import LOSSES


class RowObjective:
    """Objective of one target per row: a score, a class or a set of labels."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        self.inputs, self.rows = inputs, rows

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`."""
        target = torch.from_numpy(self.rows.targets[rows[orders]])
        target = target.float() if target.is_floating_point() else target
        return LOSSES[loss_name](probe(self.inputs.text_states(reads, self.rows.texts[rows]), reads), target)

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return scores ``[member, row]`` or logits ``[member, row, class]``."""
        if probe.layout.tokens and len(probe.layout.members) > 1:  # members have different pooling queries
            singles = [unstack(probe, member).eval() for member in range(len(probe.layout.members))]
            return np.concatenate([self.predict(single) for single in singles])
        reads, texts = shared_reads(probe.layout), self.rows.texts
        row_bytes = len(probe.layout.sources) * self.inputs.width * 4 * texts.shape[1] * self.inputs.longest
        size = chunk_size(row_bytes)
        outputs = [
            probe(self.inputs.text_states(reads, texts[None, start : start + size]), reads)
            for start in range(0, len(texts), size)
        ]
        predictions: NDArray[np.float32] = torch.cat(outputs, 1).detach().numpy()
        return predictions

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the mean of the members' predictions."""
        return np.asarray(self.predict(probe).mean(0))


def untrained_cosines(inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the untrained baseline for scores: cosines of the raw latents of each pair, ``[layer, row]``."""
    by_layer = torch.empty(len(inputs.columns), len(rows))
    for layer in range(len(inputs.columns)):
        first, second = (inputs.pooled(layer, column) for column in rows.texts.T)
        by_layer[layer] = cosines(first, second)
    return by_layer.numpy()
