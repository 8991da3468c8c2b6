"""Objective of pairs to rank: each relevant passage of a batch against the other passages of the batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.data.device.transfer import to_device
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.sentence_probes import ScoreProbe
from permafrost.probes.models.shared_reads import SharedReads
from permafrost.probes.objectives.base import RowObjective
from permafrost.probes.objectives.losses import LOSSES

MOST_NEGATIVES = 4
"""Maximum number of irrelevant passages of its query that each relevant passage brings into a batch."""


class RankObjective(RowObjective):
    """Objective of pairs to rank. The rows of a batch are relevant pairs.

    The candidates of a batch are the passages of its pairs, and up to 4 irrelevant passages of each of their queries,
    which depend on the place of the pair in the batch. A candidate is no negative of a query if it is relevant to the
    query, or the query itself.
    """

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        super().__init__(inputs, rows)
        relevant, text_count = rows.targets > 0, int(rows.texts.max(initial=0)) + 1
        self.relevant = rows.texts[relevant]
        queries, passages = self.relevant.T
        self.relevant_pairs = np.unique(np.concatenate([queries * text_count + passages, queries * (text_count + 1)]))
        """Pairs that are no negatives, ``query * text_count + passage``."""
        self.text_count = text_count
        irrelevant = rows.texts[rows.targets == 0]
        irrelevant = irrelevant[np.argsort(irrelevant[:, 0], kind="stable")]
        self.negatives = irrelevant[:, 1]
        """Irrelevant passages, query after query."""
        self.starts = np.searchsorted(irrelevant[:, 0], queries)
        """``[relevant pair]``: index of the first irrelevant passage of its query."""
        self.counts = np.searchsorted(irrelevant[:, 0], queries, side="right") - self.starts
        self.most = min(MOST_NEGATIVES, int(self.counts.max(initial=0)))

    @property
    def training_rows(self) -> int:
        """Number of relevant pairs."""
        return len(self.relevant)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; ``rows`` are indices of relevant pairs."""
        assert isinstance(probe, ScoreProbe)
        texts = self.texts_read(rows)
        queries, candidates = (part[:, :, 0] for part in texts)
        pairs = queries[:, :, None] * self.text_count + candidates[:, None]
        own = np.eye(queries.shape[1], candidates.shape[1], dtype=bool)
        excluded = to_device((np.isin(pairs, self.relevant_pairs) & ~own)[orders], self.inputs.device)
        (query_states,), (candidate_states,) = (self.inputs.text_states(reads, part) for part in texts)
        scores = probe.matrix(query_states, candidate_states, reads)
        scores = scores.masked_fill(excluded, -torch.inf)
        targets = torch.arange(queries.shape[1], device=scores.device)
        return LOSSES[loss_name](scores, targets.expand(len(scores), -1))

    def texts_read(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """As :meth:`Objective.texts_read`: the queries, then the candidates."""
        return [texts[:, :, None] for texts in (self.relevant[rows, 0], self.candidates(rows))]

    def candidates(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the passages of relevant pairs ``[order, row]``, then their negatives: ``[order, candidate]``.

        A query with fewer negatives than others has its relevant passage in their place, which is no negative.
        """
        passages = self.relevant[rows, 1]
        if not self.most:
            return np.asarray(passages)
        counts = self.counts[rows][..., None]
        numbers = np.arange(rows.shape[1])[:, None] * self.most + np.arange(self.most)
        indices = self.starts[rows][..., None] + numbers % np.maximum(counts, 1)
        negatives = self.negatives[np.minimum(indices, len(self.negatives) - 1)]
        present = np.arange(self.most) < counts
        negatives = np.where(present, negatives, passages[..., None])
        return np.concatenate([passages, negatives.reshape(len(rows), -1)], axis=1)
