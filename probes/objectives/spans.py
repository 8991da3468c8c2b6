"""Objective of answer spans: start and end token of the answer in every window of a text."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.data.ragged import concatenate_ranges, pad_index
from permafrost.probes.inputs.alignment import answer_tokens
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.token_inputs import require_tokens
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.base import chunks
from permafrost.probes.objectives.losses import LOSSES

MAX_ANSWER_TOKENS = 30
"""Maximum length of a predicted answer, in tokens."""


def best_spans(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the most likely answer of every window; its end is at or after its start.

    Source: Devlin et al., "BERT" (2019), section 4.2; with the product of the two probabilities instead of the sum of
    the logits, so that windows of one text are comparable.

    Args:
        logits: ``[..., window, token, 2]``, -inf for tokens that no answer can contain; token 0 stands for no answer.

    Returns:
        First and last token ``[..., window]``, and the probability of the span.
    """
    start, end = torch.log_softmax(logits, -2).unbind(-1)
    start, end = start[..., 1:], end[..., 1:]
    tokens = start.shape[-1]
    if not tokens:
        zeros = np.zeros(start.shape[:-1], np.int64)
        return zeros, zeros, zeros.astype(np.float32)
    scores = torch.full((*start.shape, min(MAX_ANSWER_TOKENS, tokens)), -torch.inf)
    for further in range(scores.shape[-1]):
        scores[..., : tokens - further, further] = start[..., : tokens - further] + end[..., further:]
    best, index = scores.flatten(-2).max(-1)
    first = index // scores.shape[-1]
    last = first + index % scores.shape[-1]
    return (first + 1).numpy(), (last + 1).numpy(), best.exp().numpy()


class SpanObjective:
    """Objective of answer spans: start and end token of the answer in every window of a text."""

    def __init__(self, inputs: ProbeInputs, rows: Rows) -> None:
        self.inputs, self.rows = require_tokens(inputs), rows
        self.tokens = self.inputs.tokens
        self.windows, self.offsets = self.tokens.windows_of(rows.texts[:, 0])

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """First and last token of the answer in each window, ``[window, 2]``; 0 twice if it is not in the window."""
        return answer_tokens(self.tokens, self.rows, self.windows, self.offsets)

    def loss(
        self, probe: Probe, reads: SharedReads, rows: NDArray[np.int64], orders: NDArray[np.int64], loss_name: str
    ) -> Tensor:
        """As :meth:`Objective.loss`; every window of a row has the same weight."""
        row_indices = single_order(rows)
        window_indices = concatenate_ranges(self.offsets[row_indices], np.diff(self.offsets)[row_indices])
        logits = self._logits(probe, reads, window_indices).float()
        return LOSSES[loss_name](logits, torch.from_numpy(self.targets[window_indices]))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return start, end (exclusive) and probability of the best span of all windows, ``[member, row, 3]``.

        Start and end are characters of the context; -1 twice if no token of the context was read.
        """
        return self._best_spans(probe, len(probe.layout.members), lambda logits: logits)

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return the best span by the mean of the members' token probabilities, ``[row, 3]``."""
        return np.asarray(self._best_spans(probe, 1, _log_mean_probabilities)[0])

    def _best_spans(self, probe: Probe, members: int, combine: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        reads, row_of_window = shared_reads(probe.layout), np.repeat(np.arange(len(self.rows)), np.diff(self.offsets))
        predictions = np.full((members, len(self.rows), 3), -1, np.float32)
        predictions[..., 2] = 0
        for indices in chunks(self.inputs, probe, self.windows):
            first, last, probability = best_spans(combine(self._logits(probe, reads, indices).detach()))
            starts, spans = self.tokens.offsets[self.windows[indices]], self.tokens.spans
            begin, end = spans[starts + first, 0], spans[starts + last, 1]
            for member in range(members):
                for window, row in enumerate(row_of_window[indices]):
                    if probability[member, window] > predictions[member, row, 2]:
                        span = begin[member, window], end[member, window], probability[member, window]
                        predictions[member, row] = span
        return predictions

    def _logits(self, probe: Probe, reads: SharedReads, indices: NDArray[np.int64]) -> Tensor:
        """Return logits ``[member, window, token, 2]``; -inf for all tokens but those of the context and token 0."""
        windows = self.windows[indices]
        states = self.inputs.ragged(reads, windows)
        flat = probe(states, reads)
        index, is_token = pad_index(np.array(states.lengths))
        allowed = self.tokens.spans[self.tokens.tokens_of(windows), 0] >= 0
        allowed[index[:, 0]] = True
        padded: Tensor = flat.new_full((len(flat), *is_token.shape, flat.shape[-1]), -torch.inf)
        padded[:, torch.from_numpy(is_token)] = flat.masked_fill(~torch.from_numpy(allowed)[:, None], -torch.inf)
        return padded


def _log_mean_probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(logits, -2).mean(0, keepdim=True).log()
