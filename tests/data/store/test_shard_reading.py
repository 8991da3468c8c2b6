"""What is asked of an opened shard is what the index says of it, or is told; pages may be given back at any time."""

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from permafrost.data.errors import MachineError
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.encoding import vectors_in
from permafrost.data.store.errors import ShardError
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, assert_equal_tokens, decoded, drawn_latents, ragged_block

TEXTS = ["a", "b", "c", "d", "i"]  # 7, 1, 2, 3 and 1 tokens
COLUMNS = {"mean": (0, 2), "tokens": (1,)}


@pytest.fixture
def block() -> Block:
    return ragged_block(TEXTS, COLUMNS)


@pytest.fixture
def shard(block: Block, tmp_path: Path) -> Shard:
    return Shard(write_shard(tmp_path, IDENTITY, {"layers": 3}, block))


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@pytest.mark.parametrize("width", [3, 70])
def test_vectors_that_lie_among_other_bytes_are_read_in_place(dtype, width):
    stored = drawn_latents(np.random.default_rng(0), (4, 5, width), dtype)
    vector = stored[0, 0].nbytes
    gap, before = 6, 10
    content = np.full(before + 20 * (vector + gap), 0xAB, np.uint8)
    for number, values in enumerate(stored.reshape(20, -1)):
        start = before + number * (vector + gap)
        content[start : start + vector] = np.frombuffer(values.tobytes(), np.uint8)
    strides = 5 * (vector + gap), vector + gap
    found = vectors_in(content, before, (4, 5), strides, dtype, width)
    assert (found.dtype, found.shape) == (stored.dtype, stored.shape)
    assert found.tobytes() == stored.tobytes()
    assert np.shares_memory(found, content)


def test_a_shard_in_another_process_reads_the_file_anew(shard):
    again = pickle.loads(pickle.dumps(shard))
    assert again.path == shard.path
    np.testing.assert_array_equal(again.layer("mean", 2), shard.layer("mean", 2))


def test_keys_are_those_of_the_rows_or_the_index_is_wrong(shard, block):
    rows = np.array([3, 0, 4])
    shard.check_keys(block.keys[rows], rows)
    shard.check_keys(block.keys[:0], rows[:0])
    for keys, wrong in ((block.keys[rows], rows[::-1]), (block.keys[rows], np.array([3, 0, 5]))):
        with pytest.raises(MachineError, match=r"an index file names texts, which the shard does not hold\. Remove"):
            shard.check_keys(keys, wrong)


def test_what_a_shard_does_not_hold_is_named(shard, tmp_path):
    pooled = Shard(write_shard(tmp_path, IDENTITY, {"layers": 3}, ragged_block(TEXTS, {"mean": (0,)})))
    for ask, part in (
        (lambda: shard.layer("mean", 1), "view mean, layer 1"),
        (lambda: shard.layer("max", 0), "view max, layer 0"),
        (lambda: shard.width("max"), "view max"),
        (lambda: pooled.offsets, "tokens/offsets"),
    ):
        with pytest.raises(MachineError, match=f"an index file names {part}, which the shard does not hold"):
            ask()
    assert pooled.tokens == 0


def test_a_shard_that_was_cut_after_it_was_opened_cannot_be_read(shard):
    with open(shard.path, "r+b") as file:
        file.truncate(100)
    for ask, name in ((lambda: shard.keys, "keys"), (lambda: shard.layer("mean", 0), "latents/mean")):
        with pytest.raises(ShardError, match=rf"{name}(\[0\])? (cannot be read|does not match)"):
            ask()


def test_pages_that_are_given_back_are_read_again(shard, block):
    shard.release()  # nothing was read yet
    layer = shard.layer("mean", 2)
    shard.release()
    np.testing.assert_array_equal(layer, block.latents["mean"][1])


def test_a_store_tells_its_layers_and_a_folder_of_another_store_is_refused(block, tmp_path):
    store = LatentStore.at(tmp_path, "m", IDENTITY)
    store.append(block, {"layers": 3})
    assert store.layers == 3
    moved = store.path.rename(store.path.with_name("0" * 16))
    with pytest.raises(ShardError, match="it belongs to another store"):
        LatentStore.open(moved)


@pytest.mark.parametrize("most", [1, 3, 5, 100])
def test_texts_in_stored_order_are_all_texts_in_parts_of_about_as_many_tokens(most, block, tmp_path):
    store = LatentStore.at(tmp_path, "m", IDENTITY)
    store.append(block, {"layers": 3})
    asked = ["d", "a", "i", "c", "b"]
    reader = store.token_reader(asked, [1])
    parts = list(reader.in_stored_order(most))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(asked)))
    order = [TEXTS.index(asked[text]) for part in parts for text in part]
    assert [sorted(order[: len(part)]) for part in parts[:1]] == [list(range(len(parts[0])))]
    for part in parts:
        assert part.tolist() == sorted(part)
        assert int(reader.lengths[part].sum()) - int(reader.lengths[part].max()) < most
    places = [{TEXTS.index(asked[text]) for text in part} for part in parts]
    assert [min(place) for place in places] == sorted(min(place) for place in places)
    assert all(max(first) < min(second) for first, second in pairwise(places))


def test_a_reader_that_keeps_no_pages_reads_the_same(block, tmp_path):
    store = LatentStore.at(tmp_path, "m", replace(IDENTITY))
    store.append(block, {"layers": 3})
    reader = store.token_reader(TEXTS, [1])
    assert block.tokens is not None
    for keeps_none in (False, True):
        reader.keeps_no_pages = keeps_none
        assert_equal_tokens(reader.read([2, 0, 2]), decoded(block.tokens.select(np.array([2, 0, 2]))))
