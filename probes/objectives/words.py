"""Objective of words: a tag for each word, read at its first token."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths
from permafrost.probes.inputs.alignment import first_tokens
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.token_inputs import require_tokens
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.base import chunks
from permafrost.probes.objectives.losses import LOSSES

IMPOSSIBLE_LOGIT = -1e9
"""Logit of every tag but "O" for a word without tokens."""


class WordObjective:
    """Objective of word tags; the logits of a word are those of its first token."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        assert rows.spans is not None
        self.inputs, self.rows, self.spans = require_tokens(inputs), rows, rows.spans
        self.tokens = self.inputs.tokens
        self.windows = self.tokens.starts[rows.texts[:, 0]]
        self.first_tokens = first_tokens(self.tokens, rows)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; words beyond the end of a cut text are ignored."""
        logits, words, has_token = self._word_logits(probe, reads, single_order(rows))
        if not has_token.any():
            zero: Tensor = logits.float().sum((1, 2)) * 0  # the mean of no words would be nan
            return zero
        codes = torch.from_numpy(self.spans.codes[words[has_token]])
        word_logits = logits[:, torch.from_numpy(has_token)].float()
        return LOSSES[loss_name](word_logits, codes.expand(logits.shape[0], -1))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return logits ``[member, word, tag]``; a word beyond the end of a cut text has the first tag, "O"."""
        reads, outputs = shared_reads(probe.layout), getattr(probe, "outputs", 0)
        shape = len(probe.layout.members), len(self.spans.codes), outputs
        predictions = np.full(shape, IMPOSSIBLE_LOGIT, np.float32)
        predictions[..., 0] = 0
        for rows in chunks(self.inputs, probe, self.windows):
            logits, words, has_token = self._word_logits(probe, reads, rows)
            predictions[:, words[has_token]] = logits[:, torch.from_numpy(has_token)].detach().numpy()
        return predictions

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the mean of the members' logits."""
        return np.asarray(self.predict(probe).mean(0))

    def _word_logits(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.int64], NDArray[np.bool_]]:
        """Return logits ``[member, word, tag]`` of the words of rows, their indices, and whether each has a token."""
        windows = self.windows[rows]
        token_logits = probe(self.inputs.ragged(reads, windows), reads)
        starts = offsets_from_lengths(self.tokens.lengths[windows])[:-1]
        counts = np.diff(self.spans.offsets)[rows]
        words = concatenate_ranges(self.spans.offsets[rows], counts)
        has_token = self.first_tokens[words] >= 0
        tokens = self.first_tokens[words] - np.repeat(self.tokens.offsets[windows] - starts, counts)
        return token_logits[:, torch.from_numpy(np.where(has_token, tokens, 0))], words, has_token
