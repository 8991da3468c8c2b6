"""Objectives of tokens: a tag for each word, read at its first token; the answer in every window of a text."""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.corpora.corpus import Rows
from permafrost.data.device.transfer import to_device, to_numpy
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths, pad_index
from permafrost.probes.inputs.alignment import answer_tokens, first_tokens
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.token_inputs import TokenInputs, require_tokens
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.shared_reads import SharedReads, shared_reads
from permafrost.probes.objectives.base import Objective, chunk_size
from permafrost.probes.objectives.losses import LOSSES

IMPOSSIBLE_LOGIT = -1e9
"""Logit of every tag but "O" for a word without tokens."""

MAX_ANSWER_TOKENS = 30
"""Maximum length of a predicted answer, in tokens."""


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


class WordObjective(Objective):
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
        codes = to_device(self.spans.codes[words[has_token]], logits.device)
        word_logits = logits[:, to_device(np.flatnonzero(has_token), logits.device)].float()
        return LOSSES[loss_name](word_logits, codes.expand(logits.shape[0], -1))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return logits ``[member, word, tag]``; a word beyond the end of a cut text has the first tag, "O"."""
        reads, outputs = shared_reads(probe.layout, device=probe.device), getattr(probe, "outputs", 0)
        shape = len(probe.layout.members), len(self.spans.codes), outputs
        predictions = np.full(shape, IMPOSSIBLE_LOGIT, np.float32)
        predictions[..., 0] = 0
        for rows in chunks(self.inputs, probe, self.windows):
            logits, words, has_token = self._word_logits(probe, reads, rows)
            predictions[:, words[has_token]] = to_numpy(logits)[:, has_token]
        return predictions

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
        index = to_device(np.where(has_token, tokens, 0), token_logits.device)
        return token_logits[:, index], words, has_token


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
    scores = start.new_full((*start.shape, min(MAX_ANSWER_TOKENS, tokens)), -torch.inf)
    for further in range(scores.shape[-1]):
        scores[..., : tokens - further, further] = start[..., : tokens - further] + end[..., further:]
    best, index = scores.flatten(-2).max(-1)
    first = index // scores.shape[-1]
    last = first + index % scores.shape[-1]
    return to_numpy(first + 1), to_numpy(last + 1), to_numpy(best.exp())


class SpanObjective(Objective):
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
        targets = to_device(self.targets[window_indices], logits.device)
        return LOSSES[loss_name](logits, targets.expand(len(logits), -1, -1))

    def predict(self, probe: Probe) -> NDArray[np.float32]:
        """Return the best span of all windows and the null score, ``[member, row, 4]``.

        Of the span: start and end (exclusive), characters of the context, -1 twice if no token of the context was
        read; and its probability. The null score is the smallest log-probability of any window that it holds no answer.
        Source: Devlin et al., "BERT" (2019), section 4.3; the smallest one as in its ``run_squad.py``.
        """
        return self._best_spans(probe, len(probe.layout.members), lambda logits: logits)

    def predict_mean(self, probe: Probe) -> NDArray[np.float32]:
        """Return span and null score by the mean of the members' token probabilities, ``[row, 4]``."""
        return np.asarray(
            self._best_spans(probe, 1, lambda logits: torch.softmax(logits, -2).mean(0, keepdim=True).log())[0]
        )

    def _best_spans(self, probe: Probe, members: int, combine: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        reads = shared_reads(probe.layout, device=probe.device)
        row_of_window = np.repeat(np.arange(len(self.rows)), np.diff(self.offsets))
        predictions = np.full((members, len(self.rows), 4), -1, np.float32)
        predictions[..., 2:] = 0  # a log-probability is at most 0
        for indices in chunks(self.inputs, probe, self.windows):
            logits = combine(self._logits(probe, reads, indices).detach())
            first, last, probability = best_spans(logits)
            null_scores = torch.log_softmax(logits, -2)[..., 0, :].sum(-1)
            np.minimum.at(predictions[..., 3].T, row_of_window[indices], to_numpy(null_scores).T)
            starts, spans = self.tokens.offsets[self.windows[indices]], self.tokens.spans
            begin, end = spans[starts + first, 0], spans[starts + last, 1]
            for member in range(members):
                for window, row in enumerate(row_of_window[indices]):
                    if probability[member, window] > predictions[member, row, 2]:
                        span = begin[member, window], end[member, window], probability[member, window]
                        predictions[member, row, :3] = span
        return predictions

    def _logits(self, probe: Probe, reads: SharedReads, indices: NDArray[np.int64]) -> Tensor:
        """Return logits ``[member, window, token, 2]``; -inf for all tokens but those of the context and token 0."""
        windows = self.windows[indices]
        states = self.inputs.ragged(reads, windows)
        flat = probe(states, reads)
        index, is_token = pad_index(np.array(states.lengths))
        allowed = self.tokens.spans[self.tokens.tokens_of(windows), 0] >= 0
        allowed[index[:, 0]] = True
        empty = flat.new_full((len(flat), is_token.size, flat.shape[-1]), -torch.inf)
        values = flat.masked_fill(to_device(~allowed, flat.device)[:, None], -torch.inf)
        padded: Tensor = empty.index_copy(1, to_device(np.flatnonzero(is_token), flat.device), values)
        return padded.view(len(flat), *is_token.shape, -1)
