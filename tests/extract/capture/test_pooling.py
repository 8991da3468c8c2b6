"""Poolings of ragged texts are those of a plain loop over their tokens, and one from outside is tried as it says."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Pooling
from permafrost.extract.capture.pooling import OURS, POOLINGS, checked_pooling

NAIVE = {
    "last": lambda states: states[-1],
    "text_last": lambda states: states[-1],
    "cls": lambda states: states[0],
    "mean": lambda states: states.mean(0),
    "sum": lambda states: states.sum(0),
    "max": lambda states: states.max(0),
    "weighted_mean": lambda states: np.average(states, axis=0, weights=np.arange(1, len(states) + 1)),
}
"""View -> its definition: ``[token, width]`` of one text in float64 to ``[width]``."""

ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-13}
"""Dtype -> bound of the rounding of a sum over some ten tokens, of values around 1."""

TEXTS, TOKENS, WIDTH = 7, 11, 5


def drawn(leading: tuple[int, ...], dtype: torch.dtype, first: bool) -> tuple[Tensor, Tensor]:
    """Hidden states, NaN in padding, and masks of 1 to 11 tokens that follow one another."""
    rng = np.random.default_rng(len(leading))
    lengths = np.array([1, TOKENS, *rng.integers(1, TOKENS, TEXTS - 2)])
    starts = np.zeros(TEXTS, int) if first else np.array([rng.integers(0, TOKENS - length + 1) for length in lengths])
    places = np.arange(TOKENS)
    mask = torch.from_numpy((places >= starts[:, None]) & (places < (starts + lengths)[:, None]))
    hidden = torch.randn(*leading, TEXTS, TOKENS, WIDTH, dtype=dtype)
    return hidden.masked_fill(~mask[..., None], torch.nan), mask


def by_loop(view: str, hidden: Tensor, mask: Tensor) -> np.ndarray:
    flat = hidden.reshape(-1, *hidden.shape[-3:]).double().numpy()
    pooled = [[NAIVE[view](text[real]) for text, real in zip(layer, mask.numpy(), strict=True)] for layer in flat]
    return np.array(pooled).reshape(*hidden.shape[:-2], hidden.shape[-1])


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
@pytest.mark.parametrize("view", OURS)
def test_a_pooling_is_that_of_a_loop_over_the_tokens(view, leading, dtype, inference):
    for first in (True,) if view == "cls" else (True, False):
        hidden, mask = drawn(leading, dtype, first)
        with torch.inference_mode() if inference else nullcontext():
            pooled = POOLINGS[view](hidden, mask)
        assert (pooled.dtype, pooled.shape) == (dtype, (*leading, TEXTS, WIDTH))
        np.testing.assert_allclose(pooled.numpy(), by_loop(view, hidden, mask), rtol=0, atol=ROUNDING[dtype])


@pytest.mark.parametrize("view", OURS)
def test_every_token_that_is_seen_and_no_other_has_a_gradient(view):
    hidden, mask = drawn((), torch.float64, first=True)
    hidden = hidden.nan_to_num(0).requires_grad_()
    POOLINGS[view](hidden, mask).sum().backward()
    assert hidden.grad is not None
    seen = hidden.grad.abs().sum(-1) > 0
    assert not (seen & ~mask).any()
    assert view in ("last", "text_last", "cls", "max") or torch.equal(seen, mask)


@pytest.mark.parametrize("inference", [False, True])
def test_a_sum_over_no_tokens_is_zero(inference):
    hidden, mask = torch.ones(2, 3, 4, 5), torch.zeros(3, 4, dtype=torch.bool)
    mask[1, :2] = True
    with torch.inference_mode() if inference else nullcontext():
        assert POOLINGS["sum"](hidden, mask)[0, :, 0].tolist() == [0, 2, 0]


class Recorded:
    """The mean, that remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[Tensor, Tensor]] = []

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        self.given.append((hidden.clone(), mask.clone()))
        return hidden.sum(1) / mask.sum(1).clamp(min=1)[:, None]


def checked(function: Any) -> Any:
    return checked_pooling.__wrapped__("own", Pooling(function))


def test_a_pooling_from_outside_is_tried_once_a_width_on_the_same_states():
    recorded = Recorded()
    pool = checked(recorded)
    hidden, mask = drawn((2,), torch.float32, first=False)
    pool(hidden, mask)
    tried, recorded.given = recorded.given[:-2], []
    pool(hidden, mask)
    assert len(recorded.given) == 2, "one call a layer, and nothing tried again"
    expected = torch.randn(4, 9, WIDTH, generator=torch.Generator().manual_seed(0))
    (states, real), *alone = tried
    assert real.sum(1).tolist() == [5, 1, 9, 2]
    torch.testing.assert_close(states, expected.masked_fill(~real[..., None], 0), rtol=0, atol=0)
    assert [tuple(each.shape) for each, _ in alone] == [(1, size, WIDTH) for size in (5, 1, 9, 2)]
    for number, (each, whole) in enumerate(alone):
        assert whole.all()
        torch.testing.assert_close(each[0], expected[number, : each.shape[1]], rtol=0, atol=0)
    pool(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool))
    assert [len(each) for each, _ in recorded.given[2:]] == [4, 1, 1, 1, 1, 1], "another width is tried too"


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_a_pooling_from_outside_is_given_the_tokens_of_each_text_first_then_zeros(leading):
    recorded = Recorded()
    pool, (hidden, mask) = checked(recorded), drawn(leading, torch.float32, first=False)
    mask[3] = False  # a window may have no token that counts
    pooled = pool(hidden, mask)
    layers = hidden.reshape(-1, *hidden.shape[-3:])
    assert pooled.shape == (*leading, TEXTS, WIDTH)
    widest = int(mask.sum(1).max())
    for layer, (states, real) in zip(layers, recorded.given[-len(layers) :], strict=True):
        assert states.shape == (TEXTS, widest, WIDTH)
        for text in range(TEXTS):
            count = int(mask[text].sum())
            assert real[text].tolist() == [place < count for place in range(widest)]
            torch.testing.assert_close(states[text, :count], layer[text][mask[text]], rtol=0, atol=0)
            assert not states[text, count:].any()
    expected = by_loop("sum", hidden.nan_to_num(0) * mask[..., None], torch.ones_like(mask))
    counts = mask.sum(1).clamp(min=1).numpy()[:, None]
    np.testing.assert_allclose(pooled.numpy(), expected / counts, atol=1e-5)


def test_texts_without_tokens_are_given_one_position_of_padding():
    recorded = Recorded()
    pool = checked(recorded)
    assert not pool(torch.ones(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)).any()
    states, real = recorded.given[-1]
    assert (states.shape, real.any()) == ((2, 1, 4), torch.tensor(False))


def test_a_pooling_from_outside_runs_in_the_precision_of_its_states():
    weight = torch.eye(WIDTH)
    pool, (hidden, mask) = checked(lambda hidden, mask: (hidden @ weight)[:, 0]), drawn((), torch.float32, first=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pool(hidden, mask), hidden[:, 0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scale", "error", "refused"),
    [(0.0, 1e-5, False), (0.01, 0.9e-5, False), (0.01, 1.1e-5, True), (1e3, 0.9e-2, False), (1e3, 1.1e-2, True)],
)
def test_latents_beside_others_may_differ_by_rounding_and_no_more(scale, error, refused):
    """By 1e-5 of the largest value of a text, or of 1 if its values are smaller."""

    def off(hidden: Tensor, mask: Tensor) -> Tensor:
        pooled = torch.full((len(hidden), hidden.shape[-1]), scale, dtype=hidden.dtype)
        pooled[len(hidden) // 2, 0] += error if len(hidden) > 1 else 0.0  # of the third of four, with 9 tokens
        return pooled

    pool, given = checked(off), (torch.ones(1, 2, 6, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool))
    if refused:
        with pytest.raises(PluginError, match=r"a text of 9 tokens another latent beside one of 9 than alone .* 1\.1e"):
            pool(*given)
    else:
        pool(*given)


@pytest.mark.parametrize("text", range(4))
def test_each_text_that_differs_is_named(text):
    def off(hidden: Tensor, mask: Tensor) -> Tensor:
        pooled = hidden.sum(1)
        pooled[min(text, len(hidden) - 1)] += float(len(hidden) > 1)
        return pooled

    with pytest.raises(PluginError, match=f"a text of {(5, 1, 9, 2)[text]} tokens another latent"):
        checked(off)(torch.ones(1, 2, 6), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda hidden, mask: hidden[:, 0].double(), r"got torch.float64 \[4, 6\]"),
        (
            lambda hidden, mask: hidden[:1, 0],
            r"must .* shape \[4, 6\] for states of shape \[4, 9, 6\], got .* \[1, 6\]",
        ),
        (lambda hidden, mask: hidden[:, 0, :5], r"got torch.float32 \[4, 5\]"),
        (lambda hidden, mask: hidden[:, 0].tolist(), "got list"),
        (lambda hidden, mask: hidden.sum(1) + torch.tensor([0, 0, 0, torch.inf])[: len(hidden), None], "infinity"),
    ],
)
def test_an_output_that_is_no_latent_is_refused(function, message):
    with pytest.raises(PluginError, match=message):
        checked(function)(torch.ones(1, 2, 6), torch.ones(1, 2, dtype=torch.bool))


def test_the_same_part_is_tried_once_in_a_process():
    part = Pooling(Recorded())
    assert checked_pooling("own", part) is checked_pooling("own", part)
    assert checked_pooling("own", part) is not checked_pooling("other", part)
