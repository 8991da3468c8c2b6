"""Interface of an objective, the loss and the predictions of a probe on the rows of a split; and that of whole rows."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.losses import LOSSES

CHUNK_BYTES = 256 << 20
"""Maximum bytes of float32 latents that are read at once for predictions."""


class Objective(ABC):
    """Loss and predictions of a probe on the rows of one split. A probe knows neither rows nor targets."""

    @abstractmethod
    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None: ...

    @abstractmethod
    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """Return the loss of each member on a batch, ``[member]``.

        Args:
            reads: layers and row orders that the members share.
            rows: ``[order, row]``, indices of rows.
            orders: ``[member]``, index of the row order of each member.
            loss_name: key of :data:`permafrost.probes.objectives.losses.LOSSES`.
        """

    @abstractmethod
    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return the predictions of each member for all rows, ``[member, ...]``."""

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the combined prediction of all members, the mean of theirs, in the shape of one member's."""
        return np.asarray(self.predict(probe).mean(0))


def chunk_size(item_bytes: int) -> int:
    """Return how many items of ``item_bytes`` fit into :data:`CHUNK_BYTES`, at least one."""
    return max(1, CHUNK_BYTES // item_bytes)


class RowObjective(Objective):
    """Objective of one target per row: a score, a class or a set of labels.

    Args:
        weights: of the classes or labels, for the loss; None weighs all alike.
    """

    def __init__(self, inputs: ProbeInputs, rows: Rows, weights: NDArray[np.float32] | None = None) -> None:
        self.inputs, self.rows = inputs, rows
        self.weights = () if weights is None else (torch.from_numpy(weights),)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`."""
        target = torch.from_numpy(self.rows.targets[rows[orders]])
        target = target.float() if target.is_floating_point() else target
        prediction = probe(self.inputs.text_states(reads, self.rows.texts[rows]), reads)
        return LOSSES[loss_name](prediction, target, *self.weights)

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


def untrained_cosines(inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the untrained baseline for scores: cosines of the raw latents of each pair, ``[layer, row]``."""
    pairs = ([inputs.pooled(layer, column) for column in rows.texts.T] for layer in range(len(inputs.columns)))
    return torch.stack([cosines(first, second) for first, second in pairs]).numpy()
