"""Interface of an objective, the loss and the predictions of a probe on the rows of one split; and shared parts."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.token_inputs import TokenInputs
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads

CHUNK_BYTES = 256 << 20
"""Maximum bytes of float32 latents that are read at once for predictions."""


class Objective(Protocol):
    """Loss and predictions of a probe on the rows of one split. A probe knows neither rows nor targets."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None: ...

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

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return the predictions of each member for all rows, ``[member, ...]``."""

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the combined prediction of all members, in the shape of one member's."""


def chunk_size(item_bytes: int) -> int:
    """Return how many items of ``item_bytes`` fit into :data:`CHUNK_BYTES`, at least one."""
    return max(1, CHUNK_BYTES // item_bytes)


def chunks(inputs: TokenInputs, probe: Probe, windows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield indices into ``windows`` in chunks of bounded size, windows of similar length together."""
    lengths = inputs.tokens.lengths[windows]
    order = np.argsort(lengths, kind="stable")
    max_tokens = chunk_size(len(probe.layout.sources) * inputs.width * 4)
    chunk_numbers = np.cumsum(lengths[order]) // max_tokens
    boundaries = np.searchsorted(chunk_numbers, np.arange(lengths.sum() // max_tokens + 2)).tolist()
    for start, end in pairwise(boundaries):
        if start < end:
            yield order[start:end]
