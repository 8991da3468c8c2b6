"""Latents of texts made of those of their windows are those of a loop over all tokens, in whatever order they come."""

from typing import Any

import numpy as np
import pytest

from permafrost.data.ragged import offsets_from_lengths
from permafrost.extract.capture.pooling import WindowPools
from permafrost.extract.tokenization.token_batch import TokenBatch
from tests.extract.capture.test_pooling import NAIVE

COLUMNS: dict[str, tuple[int, ...]] = {
    "last": (0, 2),
    "text_last": (1,),
    "mean": (2, 0),
    "weighted_mean": (1, 2),
    "cls": (0,),
    "max": (2,),
    "sum": (0, 1, 2),
    "tokens": (1, 0),
}
LAYERS, WIDTH = 3, 4
SEES_OWN = ("text_last", "mean", "weighted_mean", "max", "sum")


class Drawn:
    """Texts of 1 to 5 windows, with tokens that other windows count; some count none, or none of the text's own."""

    def __init__(self, seed: int, own: bool) -> None:
        rng = np.random.default_rng(seed)
        self.counts = rng.integers(1, 6, 6)
        self.texts = np.repeat(np.arange(len(self.counts)), self.counts)
        counted, extra = rng.integers(0, 5, (len(self.texts))), rng.integers(0, 3, (len(self.texts), 2))
        some = offsets_from_lengths(self.counts)[:-1] + self.counts // 2
        counted[some] += 1
        low = extra[:, 0]
        lengths = counted + extra.sum(1)
        self.pooled = np.stack([low, low + counted], 1)
        inner = np.sort(rng.integers(0, 7, (len(self.texts), 2)), axis=1)
        self.own = (low[:, None] + np.minimum(inner, counted[:, None])) if own else None
        if self.own is not None:
            self.own[some] = self.pooled[some]  # every text has a token of its own
        self.states = rng.normal(size=(LAYERS, int(lengths.sum()), WIDTH))
        self.starts = offsets_from_lengths(lengths)
        self.batch = TokenBatch(
            ids=np.zeros(lengths.sum(), np.int32),
            offsets=self.starts,
            uncut=lengths.astype(np.int32),
            pooled=self.pooled.astype(np.int32),
            own=self.own,
            own_views=SEES_OWN,
        )

    def seen(self, window: int, view: str) -> np.ndarray:
        """``[layer, token, width]`` of a window that a view sees."""
        low, high = (self.pooled if self.own is None or view not in SEES_OWN else self.own)[window]
        return self.states[:, self.starts[window] + low : self.starts[window] + high]

    def captured(self, members: list[int], columns: Any) -> dict[str, np.ndarray]:
        """What a forward pass over some windows returns; those of windows without tokens are no numbers."""
        found = {}
        for view, layers in columns.items():
            chosen = [self.seen(window, view)[list(layers)] for window in members]
            if view == "tokens":
                found[view] = np.concatenate(chosen, axis=1)
            else:
                nothing = np.full(WIDTH, -np.inf if view == "max" else np.nan)
                found[view] = np.array(
                    [
                        [NAIVE[view](part[layer]) if part.shape[1] else nothing for part in chosen]
                        for layer in range(len(layers))
                    ]
                )
        return found

    def expected(self, view: str, layers: tuple[int, ...]) -> np.ndarray:
        """Latents of the texts by their definition; of ``tokens``, all of them."""
        whole = [
            np.concatenate([self.seen(window, view) for window in np.flatnonzero(self.texts == text)], axis=1)
            for text in range(len(self.counts))
        ]
        if view == "tokens":
            return np.concatenate(whole, axis=1)[list(layers)]
        return np.array([[NAIVE[view](text[layer]) for text in whole] for layer in layers])


def pooled(drawn: Drawn, columns: dict[str, tuple[int, ...]], seed: int) -> WindowPools:
    """All windows, added in passes of a random order."""
    pools = WindowPools(drawn.batch, drawn.texts, columns)
    order = np.random.default_rng(seed).permutation(len(drawn.texts))
    for part in np.array_split(order, 4):
        pools.add(part, drawn.captured(part.tolist(), pools.columns))
    return pools


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_latents_of_windows_add_up_to_those_of_their_texts(seed, own):
    drawn = Drawn(seed, own)
    latents = pooled(drawn, COLUMNS, seed).latents(np.float64)
    assert list(latents) == list(COLUMNS)
    for view, layers in COLUMNS.items():
        assert latents[view].dtype == np.float64
        np.testing.assert_allclose(latents[view], drawn.expected(view, layers), rtol=0, atol=1e-12, err_msg=view)


@pytest.mark.parametrize("view", COLUMNS)
def test_a_view_alone_is_as_it_is_beside_others(view):
    """A weighted mean is made of the means of its layers, which are asked of the windows and not returned."""
    drawn = Drawn(5, own=False)
    pools = pooled(drawn, {view: COLUMNS[view]}, 5)
    needed = {view, "mean"} if view == "weighted_mean" else {view}
    assert pools.columns == dict.fromkeys(needed, tuple(sorted(COLUMNS[view])))
    latents = pools.latents(np.float64)
    assert list(latents) == [view]
    np.testing.assert_allclose(latents[view], drawn.expected(view, COLUMNS[view]), rtol=0, atol=1e-12)


def test_sums_are_in_float64_and_latents_in_the_dtype_that_is_asked():
    drawn = Drawn(7, own=False)
    pools = WindowPools(drawn.batch, drawn.texts, {"mean": (0,), "tokens": (0,), "weighted_mean": (0,)})
    exact = WindowPools(drawn.batch, drawn.texts, {"mean": (0,), "weighted_mean": (0,)})
    for window in range(len(drawn.texts)):
        rounded = {view: x.astype(np.float32) for view, x in drawn.captured([window], pools.columns).items()}
        pools.add(np.array([window]), rounded)
        exact.add(np.array([window]), {view: x.astype(np.float64) for view, x in rounded.items() if view != "tokens"})
    found = pools.latents(np.float32)
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    for view, values in exact.latents(np.float64).items():
        np.testing.assert_array_equal(found[view], values.astype(np.float32))
    np.testing.assert_array_equal(found["tokens"], drawn.expected("tokens", (0,)).astype(np.float32))


def test_layers_are_those_asked_in_the_order_asked():
    """Views of which more layers are needed than asked: the means that a weighted mean of other layers is made of."""
    drawn = Drawn(8, own=False)
    columns = {"mean": (2,), "weighted_mean": (0, 1, 2)}
    latents = pooled(drawn, columns, 8).latents(np.float64)
    for view, layers in columns.items():
        np.testing.assert_allclose(latents[view], drawn.expected(view, layers), rtol=0, atol=1e-12)
