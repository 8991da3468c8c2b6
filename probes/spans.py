"""Spans: the best answer that the numbers of tokens spell."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LONGEST = 30
"""Most tokens of an answer."""


def best_spans(logits: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The likeliest answer of every window: start and end chosen together, the end at or after the start.

    Source: Devlin et al., "BERT" (2019), section 4.2; the product of the two probabilities in place of their sum of
    logits, so that windows of one text compare.

    Args:
        logits: ``[..., window, token, 2]``, -inf where no answer can stand; token 0 stands for no answer.

    Returns:
        first and last token ``[..., window]``, and the probability of both.
    """
    start, end = torch.log_softmax(logits, -2).unbind(-1)
    start, end = start[..., 1:], end[..., 1:]
    tokens = start.shape[-1]
    if not tokens:
        nothing = np.zeros(start.shape[:-1], np.int64)
        return nothing, nothing, nothing.astype(np.float32)
    scores = torch.full((*start.shape, min(LONGEST, tokens)), -torch.inf)
    for more in range(scores.shape[-1]):
        scores[..., : tokens - more, more] = start[..., : tokens - more] + end[..., more:]
    best, place = scores.flatten(-2).max(-1)
    first = place // scores.shape[-1]
    last = first + place % scores.shape[-1]
    return (first + 1).numpy(), (last + 1).numpy(), best.exp().numpy()
