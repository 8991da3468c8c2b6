"""Interface of an objective, the loss and the predictions of a probe on the rows of a split; and that of whole rows."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.data.corpora.ranking import candidate_grid
from permafrost.data.device.transfer import to_device, to_numpy
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.pair_features import cosine_matrix, cosines
from permafrost.probes.models.probe import Probe, unstack
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.losses import LOSSES

CHUNK_BYTES = 32 << 20
"""Maximum bytes of float32 latents that are read at once for predictions."""


class Objective(ABC):
    """Loss and predictions of a probe on the rows of one split. A probe knows neither rows nor targets."""

    rows: Rows

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

    @property
    def training_rows(self) -> int:
        """Number of rows that batches are drawn from."""
        return len(self.rows)

    def texts_read(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return the texts ``[order, row, text of the row]`` that :meth:`loss` reads of a batch, read by read."""
        return [self.rows.texts[rows]]

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
        self.weights = () if weights is None else (to_device(weights, inputs.device),)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`."""
        target = torch.from_numpy(self.rows.targets[rows[orders]])
        target = to_device(target.float() if target.is_floating_point() else target, self.inputs.device)
        (texts,) = self.texts_read(rows)
        prediction = probe(self.inputs.text_states(reads, texts), reads)
        return LOSSES[loss_name](prediction, target, *self.weights)

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return scores ``[member, row]`` or logits ``[member, row, class]``."""
        if probe.layout.tokens and len(probe.layout.members) > 1:  # members have different pooling queries
            singles = [unstack(probe, member).eval() for member in range(len(probe.layout.members))]
            return np.concatenate([self.predict(single) for single in singles])
        reads, texts = shared_reads(probe.layout, device=probe.device), self.rows.texts
        row_bytes = len(probe.layout.sources) * self.inputs.width * 4 * texts.shape[1] * self.inputs.longest
        size = chunk_size(row_bytes)
        if len(texts) > size and isinstance(probe, ScoreProbe) and (grid := candidate_grid(texts)):
            return self._predict_grid(probe, *grid)
        outputs = [
            probe(self.inputs.text_states(reads, texts[None, start : start + size]), reads)
            for start in range(0, len(texts), size)
        ]
        predictions: NDArray[np.float32] = to_numpy(torch.cat(outputs, 1))
        return predictions

    def _predict_grid(
        self, probe: ScoreProbe, first: NDArray[np.int64], second: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the scores ``[member, row]`` of all pairs of some first and some second texts; each is read once."""
        reads = shared_reads(probe.layout, device=probe.device)
        size = chunk_size(len(probe.layout.sources) * self.inputs.width * 4 * self.inputs.longest)
        scores = np.empty((len(probe.layout.members), len(first), len(second)), np.float32)
        for start in range(0, len(second), size):
            (columns,) = self.inputs.text_states(reads, second[None, start : start + size, None])
            for top in range(0, len(first), size):
                (rows,) = self.inputs.text_states(reads, first[None, top : top + size, None])
                block = probe.matrix(rows, columns, reads)
                scores[:, top : top + size, start : start + size] = to_numpy(block)
        return scores.reshape(len(scores), -1)


def untrained_cosines(inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the untrained baseline for scores: cosines of the raw latents of each pair, ``[layer, row]``."""
    layers = range(len(inputs.columns))
    if len(rows) > chunk_size(inputs.width * 4) and (grid := candidate_grid(rows.texts)):
        blocks = ([inputs.pooled(layer, texts)[None] for texts in grid] for layer in layers)
        return np.concatenate([to_numpy(cosine_matrix(*block).flatten(1)) for block in blocks])
    size = chunk_size(len(inputs.columns) * inputs.width * 4 * 2)
    parts = []
    for start in range(0, len(rows), size):
        first, second = (inputs.pooled_layers(column) for column in rows.texts[start : start + size].T)
        parts.append(torch.stack([cosines(*pair) for pair in zip(first, second, strict=True)]))
    return to_numpy(torch.cat(parts, 1))
