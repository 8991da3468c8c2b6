"""Shards of the token view: ragged, read by text and layer; a damaged or hostile one is refused by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from permafrost.data.latents import maintenance
from permafrost.data.ragged import TokenLatents, concatenate, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.encoding import decode, memory_dtype
from permafrost.data.store.errors import ShardError, StoreError
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from tests.support import blocks
from tests.support.blocks import Columns, assert_equal_tokens, decoded, lengths_of, ragged_block

IDENTITY = replace(blocks.IDENTITY, stored_dtype="float16")
BOTH: Columns = {"mean": (0, 2), "tokens": (1, 3)}
TEXTS = ["a", "b", "c", "i"]  # 7, 1, 2 and 1 tokens
PARTS = ("states", "offsets", "ids", "spans")


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore.at(tmp_path, "org/model", IDENTITY)


def add(store: LatentStore, texts: Sequence[str], columns: Columns = BOTH, seed: int = 0) -> Block:
    block = ragged_block(texts, columns, "float16", seed)
    store.append(block, {"backbone": "org/model", "layers": 99})
    return block


def tokens_of(block: Block) -> TokenLatents:
    assert block.tokens is not None
    return block.tokens


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@pytest.mark.parametrize("columns", [BOTH, {"tokens": (2,)}])
def test_a_shard_gives_back_the_tokens_that_were_written(tmp_path, dtype, columns):
    written = ragged_block(TEXTS, columns, dtype)
    shard = Shard(write_shard(tmp_path, replace(IDENTITY, stored_dtype=dtype), {"layers": 99}, written))
    assert (shard.columns, shard.texts, shard.tokens) == (columns, 4, 11)
    assert (shard.width("tokens"), shard.dtype) == (4, memory_dtype(dtype))
    states = np.stack([decode(shard.layer("tokens", layer)) for layer in columns["tokens"]])
    assert_equal_tokens(TokenLatents(states, shard.offsets, shard.ids, shard.spans), decoded(tokens_of(written)))
    for index, layer in enumerate(columns.get("mean", ())):
        np.testing.assert_array_equal(shard.layer("mean", layer), written.latents["mean"][index])
    assert shard.problems() == []


def test_plain_h5py_reads_the_layout_that_the_module_describes(tmp_path):
    written = ragged_block(TEXTS, BOTH, "float16")
    with h5py.File(write_shard(tmp_path, IDENTITY, {"layers": 99}, written)) as file:
        assert set(file) == {"keys", "lengths", "latents", "tokens"}
        assert set(file["tokens"]) == set(PARTS)
        for name in PARTS:
            dataset, values = file[f"tokens/{name}"], getattr(written.tokens, name)
            np.testing.assert_array_equal(dataset[:], values)
            assert (dataset.chunks, dataset.compression) == (None, None)
            slices = values if name == "states" else [values]
            assert dataset.attrs["xxh3"].tolist() == [xxhash.xxh3_64_intdigest(part.tobytes()) for part in slices]


def test_reading_gives_the_tokens_of_the_texts_asked_in_the_order_asked(store):
    block = add(store, TEXTS)
    read = store.read_tokens(["c", "a", "i", "c"], [3, 1])
    expected = tokens_of(block).select(np.array([2, 0, 3, 2]))
    assert_equal_tokens(read, TokenLatents(expected.states[::-1], expected.offsets, expected.ids, expected.spans))
    assert read.lengths.tolist() == [2, 7, 1, 2]


def test_texts_and_layers_may_lie_in_several_shards(store):
    first, second = add(store, ["a", "b"], seed=1), add(store, ["c"], seed=2)
    third = add(store, ["c", "a", "b"], {"tokens": (2,)}, seed=3)
    wide = concatenate([tokens_of(first), tokens_of(second)])
    other = tokens_of(third).select(np.array([1, 2, 0]))
    states = np.stack([other.states[0], wide.states[0]])
    assert_equal_tokens(
        store.read_tokens(["a", "b", "c"], [2, 1]), TokenLatents(states, wide.offsets, wide.ids, wide.spans)
    )
    assert store.columns() == {"mean": (0, 2), "tokens": (1, 2, 3)}


def test_ids_and_spans_can_be_read_without_states(store):
    block = add(store, TEXTS)
    read = store.read_tokens(["b", "a"], [])
    assert read.states.shape == (0, 8, 4)
    np.testing.assert_array_equal(read.ids, tokens_of(block).select(np.array([1, 0])).ids)


def test_reading_nothing_gives_nothing_of_the_right_shape(store):
    add(store, TEXTS)
    read = store.read_tokens([], [1, 3])
    assert (read.states.shape, read.states.dtype, read.offsets.tolist()) == ((2, 0, 4), np.float16, [0])
    assert store.token_reader(TEXTS, [1]).read([]).states.shape == (1, 0, 4)
    assert store.read_tokens([], [4]).states.shape == (1, 0, 4)


def test_what_is_not_there_is_named(store):
    add(store, ["a"])
    with pytest.raises(StoreError, match="text 'b' has no latent of view tokens, layer 1"):
        store.read_tokens(["a", "b"], [1])
    with pytest.raises(StoreError, match="text 'a' has no latent of view tokens, layer 2"):
        store.read_tokens(["a"], [2])
    with pytest.raises(StoreError, match=r"text 'b' has no latent of view tokens\."):
        store.read_tokens(["b"], [])
    with pytest.raises(StoreError, match="use read_tokens"):
        store.read(["a"], "tokens", [1])


def test_a_store_from_before_the_token_view_has_none_and_can_get_it(store):
    add(store, TEXTS, {"mean": (1,)})
    with pytest.raises(SpecError, match="view 'tokens' is not in this store"):
        store.read_tokens(["a"], [1])
    ((lacks, texts),) = store.missing_columns(text_keys(TEXTS), {"mean": (1,), "tokens": (1,)})
    assert (lacks, texts.tolist()) == ({"tokens": (1,)}, [0, 1, 2, 3])
    block = add(store, TEXTS, lacks)
    assert store.missing_columns(text_keys(TEXTS), {"mean": (1,), "tokens": (1,)}) == []
    assert_equal_tokens(store.read_tokens(TEXTS, [1]), tokens_of(block))


def test_shards_that_disagree_on_how_many_tokens_a_text_has_are_refused(store):
    add(store, TEXTS, {"tokens": (1,)})
    block = ragged_block(["x" + text for text in TEXTS], {"tokens": (2,)}, "float16")
    store.append(
        Block(keys=text_keys(TEXTS), lengths=block.lengths, columns=block.columns, latents={}, tokens=block.tokens),
        {"layers": 99},
    )
    with pytest.raises(ShardError, match="more or fewer tokens than in another shard"):
        store.read_tokens(TEXTS, [1, 2])


def test_a_layer_not_asked_for_is_not_read(store):
    block = add(store, TEXTS)
    (path,) = store.path.glob("*.h5")
    flip(path, tokens_of(block).states[1])
    np.testing.assert_array_equal(store.read_tokens(TEXTS, [1]).states[0], tokens_of(block).states[0])
    with pytest.raises(ShardError, match=r"tokens/states\[1\] does not match its checksum"):
        store.read_tokens(TEXTS[:1], [3])


def test_a_reader_maps_a_shard_once_however_many_layers_it_has(store):
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("the files of a process cannot be counted here")
    layers = tuple(range(30))
    for number, text in enumerate("abcdefgh"):
        add(store, [text], {"tokens": layers}, seed=number)
    before = len(list(folder.iterdir()))
    reader = store.token_reader("abcdefgh", layers)
    assert len(list(folder.iterdir())) - before <= 8
    assert reader.read([0]).states.shape[0] == 30


def flip(path: Path, values: np.ndarray) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(values.tobytes())] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_byte_names_its_dataset(store, part):
    values = getattr(tokens_of(add(store, TEXTS)), part)
    (path,) = store.path.glob("*.h5")
    flip(path, values[0] if part == "states" else values)
    with pytest.raises(ShardError, match=rf"tokens/{part}\[0\] does not match its checksum"):
        store.read_tokens(["b"], [1])
    (finding,) = maintenance.verify([store.path])
    assert any(f"tokens/{part}[0] does not match" in problem for problem in finding.problems)


def instead(name: str, values: Any, **more: Any) -> Callable[[h5py.File], None]:
    """Another dataset in the place of one, with checksums that fit."""

    def change(file: h5py.File) -> None:
        sums = file[f"tokens/{name}"].attrs["xxh3"]
        del file[f"tokens/{name}"]
        made = file.create_dataset(f"tokens/{name}", data=values, **more)
        fit = np.ascontiguousarray(values)
        made.attrs["xxh3"] = sums if name == "states" else np.array([xxhash.xxh3_64_intdigest(fit.data)], "u8")

    return change


def without(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.__delitem__(f"tokens/{name}")


def linked(file: h5py.File) -> None:
    del file["tokens/ids"]
    file["tokens/ids"] = h5py.ExternalLink("/etc/passwd", "/x")


def grouped(file: h5py.File) -> None:
    del file["tokens/ids"]
    file.create_group("tokens/ids")


def uncounted(file: h5py.File) -> None:
    file["tokens/spans"].attrs["xxh3"] = np.zeros(0, "u8")


UNFIT = "offsets, ids and spans do not fit each other"
HOSTILE: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "no offsets": (without("offsets"), "not what belongs to tokens"),
    "an extra dataset": (lambda file: file.create_dataset("tokens/more", data=[1]), "not what belongs to tokens"),
    "a link": (linked, "is a link that leads elsewhere"),
    "a group for ids": (grouped, "a dataset was expected"),
    "one offset less": (instead("offsets", np.array([0, 7, 8, 10])), UNFIT),
    "one id more": (instead("ids", np.zeros(12, "i4")), UNFIT),
    "spans of three": (instead("spans", np.zeros((11, 3), "i4")), UNFIT),
    "scalar ids": (instead("ids", np.int32(1)), ""),
    "short offsets": (instead("offsets", np.array([0, 7, 8, 10, 11], "i4")), "dtype int32"),
    "ids that are floats": (instead("ids", np.zeros(11, "f4")), "dtype float32"),
    "one state less": (instead("states", np.zeros((2, 10, 4), "f2")), "declared are 2 layers"),
    "states of integers": (instead("states", np.zeros((2, 11, 4), "i2")), "dtype int16"),
    "states in chunks": (instead("states", np.zeros((2, 11, 4), "f2"), chunks=(1, 11, 4)), "one plain run of bytes"),
    "no checksum of the spans": (uncounted, "tokens/spans lack their checksum"),
    "tokens that nobody declared": (lambda file: file.move("tokens", "latents/tokens"), "other things than latents"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_file_is_refused_on_opening(tmp_path, trick):
    path = write_shard(tmp_path, IDENTITY, {"layers": 99}, ragged_block(TEXTS, BOTH, "float16"))
    change, reason = HOSTILE[trick]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ShardError) as error:
        Shard(path)
    assert error.value.reason.startswith("not a whole shard (")
    assert reason in error.value.reason


WRONG = {
    "beyond the tokens": ("offsets", [0, 7, 8, 10, 2**40]),
    "not from 0": ("offsets", [1, 7, 8, 10, 11]),
    "falling": ("offsets", [0, 8, 7, 10, 11]),
    "rising only by overflow": ("offsets", [0, 2**63 - 1, -(2**63), 10, 11]),
    "a text without tokens": ("offsets", [0, 7, 7, 10, 11]),
    "an id below 0": ("ids", [*range(10), -1]),
    "half a span": ("spans", [[-1, 1]] * 11),
    "a span that falls": ("spans", [[3, 2]] * 11),
}


@pytest.mark.parametrize("trick", WRONG)
def test_numbers_that_cannot_be_right_are_refused_though_their_checksum_fits(store, trick):
    add(store, TEXTS)
    (path,) = store.path.glob("*.h5")
    name, values = WRONG[trick]
    with h5py.File(path, "r+") as file:
        instead(name, np.array(values, "i8" if name == "offsets" else "i4"))(file)
    with pytest.raises(ShardError, match=f"tokens/{name} cannot be right"):
        LatentStore.open(store.path).read_tokens(["b"], [1])
    assert f"tokens/{name} cannot be right" in Shard(path).problems()


names = st.lists(st.sampled_from("abcdefi"), min_size=1, unique=True)
layers = st.lists(st.integers(0, 2), min_size=1, unique=True).map(tuple)
shards = st.lists(st.tuples(names, layers, st.booleans()), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)  # every shard is synced
@given(
    dtype=st.sampled_from(sorted(STORED_DTYPES)),
    shards=shards,
    asked=st.lists(st.sampled_from("abcdefi"), max_size=6),
    wanted=layers,
    batch=st.data(),
)
def test_the_store_reads_tokens_like_a_dictionary(tmp_path_factory, dtype, shards, asked, wanted, batch):
    store = LatentStore(tmp_path_factory.mktemp("store"), replace(IDENTITY, stored_dtype=dtype))
    made: dict[str, tuple[list[str], Block]] = {}
    for seed, (texts, held, pooled) in enumerate(shards):
        block = ragged_block(texts, {"tokens": held} | ({"mean": (0,)} if pooled else {}), dtype, seed)
        made[store.append(block, {"layers": 99}).name] = (texts, block)
    naive: dict[tuple[str, int], np.ndarray] = {}
    for name in sorted(made, reverse=True):  # the first by name counts, so it comes last
        texts, block = made[name]
        for row, text in enumerate(texts):
            own = decoded(tokens_of(block).select(np.array([row])))
            naive |= {(text, layer): own.states[index] for index, layer in enumerate(block.columns["tokens"])}
    asked = [text for text in asked if all((text, layer) in naive for layer in wanted)]
    reader = store.token_reader(asked, wanted)
    for chosen in ([*range(len(asked))], batch.draw(st.lists(st.sampled_from(range(len(asked) or 1)), max_size=4))):
        chosen = [index for index in chosen if index < len(asked)]
        found, texts = reader.read(chosen), [asked[index] for index in chosen]
        assert found.offsets.tolist() == offsets_from_lengths(lengths_of(texts)).tolist()
        parts = [np.stack([naive[text, layer] for layer in wanted]) for text in texts]
        expected = np.concatenate([np.empty((len(wanted), 0, 4), memory_dtype(dtype)), *parts], axis=1)
        assert found.states.dtype == expected.dtype
        np.testing.assert_array_equal(found.states, expected)
        whole = ragged_block(texts, {"tokens": (0,)}) if texts else None
        if whole:
            np.testing.assert_array_equal(found.ids, tokens_of(whole).ids)
            np.testing.assert_array_equal(found.spans, tokens_of(whole).spans)
