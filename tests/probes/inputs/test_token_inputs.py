"""Token inputs: states of tokens, in memory or read from a store in batches, are those that are stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.ragged import TokenLatents
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs import latents
from permafrost.probes.inputs import token_inputs as token_inputs_module
from permafrost.probes.inputs.token_inputs import read_inputs, stored_tokens
from permafrost.probes.models.shared_reads import shared_reads
from tests.support.blocks import decoded, ragged_block
from tests.support.stored import limited
from tests.support.synthetic import (
    WIDE,
    answered,
    as_inputs,
    inputs,
    layout,
    states_of,
    tagged,
    token_inputs,
    token_latents,
)


@pytest.mark.parametrize("scale", ["layer", "dimension"])
@pytest.mark.parametrize("made", [tagged, answered])
def test_moments_by_token_are_those_of_all_tokens_of_the_first_windows_of_the_texts(made, scale):
    found, corpus = made()
    texts = np.unique(corpus.split("train").texts)
    mean, spread = found.moments(texts, center=True, scale=scale, by_token=True)
    states = states_of(found)
    for layer in range(2):
        parts = []
        for text in texts:
            window = found.tokens.starts[text]
            parts += list(states[layer, found.tokens.offsets[window] : found.tokens.offsets[window + 1]].double())
        known = torch.stack(parts)
        torch.testing.assert_close(mean[layer, 0].double(), known.mean(0), rtol=1e-5, atol=1e-6)
        square = (known - known.mean(0)).square()
        expected = square.mean(0).sqrt() if scale == "dimension" else square.mean().sqrt().reshape(1)
        torch.testing.assert_close(spread[layer, 0].double(), expected, rtol=1e-5, atol=1e-6)
    pooled = found.moments(texts, center=True, scale=scale)
    assert not torch.allclose(pooled[1], spread)  # a mean of tokens spreads less


def test_moments_of_many_texts_are_measured_on_some_of_them(monkeypatch):
    found, _ = tagged(30)
    monkeypatch.setattr(latents, "MEASURED_TEXTS", 10)
    every_third = replace(found).moments(np.arange(0, 30, 3), True, "layer", by_token=True)
    for one, other in zip(found.moments(np.arange(30), True, "layer", by_token=True), every_third, strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_that_are_stored_in_half_precision_are_read_in_single():
    stored = token_latents([[(0, 1)] * n for n in (3, 1, 5)], dtype="float16")
    found, exact = as_inputs(stored), as_inputs(replace(stored, states=stored.states.astype(np.float32)))
    assert found.read(np.array([0]), [0]).dtype == torch.float16  # and take half the memory
    reads, windows = shared_reads(layout([(0, 1)], (WIDE, WIDE))), np.array([2, 0])
    rows = windows[None, :, None]
    for one, other in [
        (found.ragged(reads, windows).values, exact.ragged(reads, windows).values),
        (found.text_states(reads, rows)[0].values, exact.text_states(reads, rows)[0].values),
        (found.pooled(0, windows), exact.pooled(0, windows)),
        *zip(found.moments(windows, True, "layer"), exact.moments(windows, True, "layer"), strict=True),
        *zip(found.moments(windows, True, "layer", True), exact.moments(windows, True, "layer", True), strict=True),
    ]:
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("layers", [(0, 1, 2), (2,), (2, 0)])
def test_tokens_of_windows_lie_one_after_another_in_the_layers_that_are_read(layers):
    found = token_inputs([[(0, 1)] * n for n in (3, 1, 5)], layers=3)
    reads, windows = shared_reads(layout([layers], (WIDE,) * 3)), np.array([2, 0, 2])
    read = found.ragged(reads, windows)
    assert read.lengths == (5, 3, 5)
    parts = [states_of(found)[:, found.tokens.offsets[at] : found.tokens.offsets[at + 1]] for at in windows]
    torch.testing.assert_close(reads.expand(read.values), torch.cat(parts, 1)[list(layers)], rtol=0, atol=0)


def test_a_text_without_windows_is_one():
    found = token_inputs([[(0, 1)], [(0, 1)] * 2])
    assert found.tokens.starts.tolist() == [0, 1, 2]
    assert found.longest == 2
    assert inputs().longest == 1


def test_what_a_store_holds_of_tokens_is_taken_as_it_is():
    states = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    spans = np.array([[-1, -1], [0, 2], [0, 1]], np.int32)
    read = TokenLatents(states, np.array([0, 2, 3]), np.arange(3, dtype=np.int32), spans)
    columns = [Column("", "tokens", 1), Column("", "tokens", 4)]
    found = stored_tokens(read.select, read.index(np.array([0, 2])), columns, 4)
    whole = found.read(np.arange(2), [0, 1])
    assert whole.dtype == torch.float16
    np.testing.assert_array_equal(whole, states)
    assert found.columns == tuple(columns)
    assert found.widths == (4, 4)
    assert found.tokens.starts.tolist() == [0, 2]
    np.testing.assert_array_equal(found.tokens.spans, spans)


@pytest.mark.parametrize("place", ["maps", "disk", "maps that others share"])
@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_tokens_that_are_read_batch_by_batch_are_those_in_memory(dtype, place, tmp_path, identity, monkeypatch):
    texts, layers = list("abcde"), {"tokens": (0, 1, 2)}
    block = ragged_block(texts, layers, dtype, width=WIDE)
    store = LatentStore.at(tmp_path, "org/model", replace(identity, stored_dtype=dtype))
    store.append(block, {"layers": 3})
    plan = PlanLatents(store=store, columns=layers, texts_run=0, truncated=0, seconds=0.0)
    held = as_inputs(decoded(block.tokens))
    released = list[Shard]()
    release = Shard.release
    monkeypatch.setattr(Shard, "release", lambda shard: (released.append(shard), release(shard)))
    limit = replace(limited(tmp_path, 1 << 30 if place == "maps" else 0), shared=place == "maps that others share")
    lent = read_inputs({"": plan}, texts, held.columns, limit)
    opened = len(released)
    lent.token_states(np.array([1, 2]), [0])
    assert (len(released) > opened) == (place == "maps that others share")
    assert (lent.disk is not None) == (place == "disk")
    for name in ("offsets", "spans", "starts"):
        np.testing.assert_array_equal(getattr(lent.tokens, name), getattr(held.tokens, name))
    windows = np.array([4, 0, 2, 0])
    for layers in ((0, 1, 2), (2, 0)):
        reads = shared_reads(layout([layers], (WIDE,) * 3))
        one, other = lent.ragged(reads, windows), held.ragged(reads, windows)
        assert one.lengths == other.lengths
        assert torch.equal(one.values, other.values)
    for by_token in (False, True):
        moments = [found.moments(np.arange(5), True, "layer", by_token) for found in (lent, held)]
        for one, other in zip(*moments, strict=True):
            assert torch.equal(one, other)
    at_once = held.pooled(1, windows)
    offsets, states = held.tokens.offsets, states_of(held)
    slow = torch.stack([states[1, offsets[at] : offsets[at + 1]].mean(0) for at in windows])
    torch.testing.assert_close(at_once, slow)
    monkeypatch.setattr(token_inputs_module, "POOLED_AT_ONCE", 2)
    torch.testing.assert_close(lent.pooled(1, windows), at_once)
