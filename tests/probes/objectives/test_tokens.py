"""The best span against all spans."""

import itertools

import numpy as np
import pytest
import torch

from permafrost.probes.objectives.tokens import MAX_ANSWER_TOKENS, best_spans


def slow(logits: torch.Tensor) -> tuple[float, set[tuple[int, int]]]:
    """The largest product of two probabilities of one window, and which spans have it."""
    start, end = torch.softmax(logits.double(), 0).T
    found = {
        (low, high): float(start[low] * end[high])
        for low, high in itertools.product(range(1, len(logits)), repeat=2)
        if low <= high < low + MAX_ANSWER_TOKENS
    }
    best = max(found.values())
    return best, {span for span, value in found.items() if value == pytest.approx(best, rel=1e-5)}


@pytest.mark.parametrize("tokens", [2, 3, 10, MAX_ANSWER_TOKENS + 1, MAX_ANSWER_TOKENS + 15])
def test_the_best_span_is_the_best_of_all(tokens):
    logits = 2 * torch.randn(3, 5, tokens, 2)
    logits[0, 1, tokens // 2 + 1 :] = -torch.inf  # padding
    logits[1, 2, 2:-1] = -torch.inf
    first, last, likely = best_spans(logits)
    assert first.shape == last.shape == likely.shape == (3, 5)
    for member, window in itertools.product(range(3), range(5)):
        best, spans = slow(logits[member, window])
        assert likely[member, window] == pytest.approx(best, rel=1e-5)
        assert (first[member, window], last[member, window]) in spans


def test_the_end_never_stands_before_the_start_nor_too_far_behind():
    logits = torch.zeros(1, 60, 2)
    logits[0, 50, 0] = logits[0, 5, 1] = 9.0  # the end before the start
    (first,), (last,), _ = best_spans(logits)
    assert first <= last
    logits = torch.zeros(1, 60, 2)
    logits[0, 5, 0] = logits[0, 5 + MAX_ANSWER_TOKENS, 1] = 9.0  # one token too far
    (first,), (last,), _ = best_spans(logits)
    assert last - first < MAX_ANSWER_TOKENS
    logits[0, 5 + MAX_ANSWER_TOKENS - 1, 1] = 9.0
    assert [part.tolist() for part in best_spans(logits)[:2]] == [[5], [5 + MAX_ANSWER_TOKENS - 1]]


def test_no_answer_takes_its_share_but_is_no_span():
    logits = torch.zeros(1, 3, 2)
    logits[0, 0] = 5.0
    (first,), (last,), (likely,) = best_spans(logits)
    assert 1 <= first <= last
    share = 1 / (2 + np.exp(5))
    assert likely == pytest.approx(share * share, rel=1e-5)


def test_a_window_of_one_token_or_none_that_can_be_has_no_likely_span():
    assert best_spans(torch.zeros(2, 4, 1, 2))[2].tolist() == [[0] * 4] * 2
    logits = torch.full((1, 5, 2), -torch.inf)
    logits[0, 0] = 0.0
    assert best_spans(logits)[2].tolist() == [0]
