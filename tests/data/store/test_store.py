"""The latent store: appended to by anyone, read by text, view and layer, whatever the shards look like."""

import dataclasses
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import CapturePlan
from permafrost.data.spec import SpecError, plain
from permafrost.data.store import block, errors, shard_layout
from permafrost.data.store.block import Block
from permafrost.data.store.encoding import decode
from permafrost.data.store.errors import OtherVersionError, ShardError, StoreError
from permafrost.data.store.identity import STORED_DTYPES, folder_name, init_name
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Segments
from permafrost.extract.capture.rounding import LARGEST, encode_latents
from tests.support import blocks
from tests.support.blocks import block_of

IDENTITY = dataclasses.replace(blocks.IDENTITY, stored_dtype="float16")
MEAN = {"mean": (0, 1)}


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore.at(tmp_path, "org/model", IDENTITY)


def add(store: LatentStore, texts: Sequence[str], columns: dict[str, tuple[int, ...]] = MEAN, seed: int = 0) -> Block:
    block = block_of(text_keys(texts), columns, dtype=store.identity.stored_dtype, seed=seed)
    store.append(
        block, {"init": "pretrained", "backbone": "org/model", "tokenizer": "", "revision": "c0ffee", "layers": 99}
    )
    return block


def test_reading_gives_the_latents_of_the_texts_asked_in_the_order_asked(store):
    block = add(store, ["a", "b", "c"])
    read = store.read(["c", "a", "c"], "mean", [1, 0])
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, block.latents["mean"][[1, 0]][:, [2, 0, 2]])


def test_reading_nothing_gives_nothing_of_the_right_shape(store):
    add(store, ["a"])
    assert store.read([], "mean", [0, 1]).shape == (2, 0, 4)
    assert store.read(["a"], "mean", []).shape == (0, 1, 4)


def test_texts_and_columns_may_lie_in_several_shards(store):
    first, second = add(store, ["a", "b"], seed=1), add(store, ["c"], seed=2)
    third = add(store, ["c", "a", "b"], {"mean": (2,), "last": (2,)}, seed=3)
    wide = np.concatenate([first.latents["mean"], second.latents["mean"]], axis=1)
    np.testing.assert_array_equal(store.read(["a", "b", "c"], "mean", [0, 1]), wide)
    np.testing.assert_array_equal(
        store.read(["a", "c"], "mean", [2, 0]), np.stack([third.latents["mean"][0][[1, 0]], wide[0][[0, 2]]])
    )
    assert store.columns() == {"last": (2,), "mean": (0, 1, 2)}


def test_a_text_in_two_shards_counts_once_and_every_reader_takes_the_same(store):
    texts = [f"text {number}" for number in range(100)]
    blocks = [add(store, texts, seed=seed) for seed in range(4)]
    first = Shard(sorted(store.path.glob("*.h5"))[0])
    read = store.read(texts, "mean", [0])
    np.testing.assert_array_equal(read[0], first.layer("mean", 0))
    assert sum(np.array_equal(read[0], block.latents["mean"][0]) for block in blocks) == 1
    np.testing.assert_array_equal(LatentStore.open(store.path).read(texts[7:8], "mean", [0]), read[:, 7:8])


def test_lengths_are_the_tokens_of_each_text(store):
    add(store, ["a", "b"])
    add(store, ["c"])
    assert store.lengths(["c", "b", "a"]).tolist() == [1, 2, 1]
    with pytest.raises(StoreError, match="text 'd' is not in the store"):
        store.lengths(["a", "d"])


def test_a_layer_not_asked_for_is_not_read(store):
    block = add(store, ["a", "b"])
    (path,) = store.path.glob("*.h5")
    raw = bytearray(path.read_bytes())
    raw[raw.index(block.latents["mean"][1].tobytes())] ^= 1
    path.write_bytes(raw)
    np.testing.assert_array_equal(store.read(["a", "b"], "mean", [0]), block.latents["mean"][:1])
    with pytest.raises(ShardError, match=rf"{path.name}: latents/mean\[1\] does not match its checksum"):
        store.read(["a"], "mean", [1])


def test_what_is_not_there_is_named(store):
    add(store, ["a"])
    with pytest.raises(StoreError, match="text 'a dog' has no latent of view mean, layer 1"):
        store.read(["a", "a dog", "b"], "mean", [1])
    with pytest.raises(StoreError, match="text 'a' has no latent of view mean, layer 2"):
        store.read(["a"], "mean", [2])
    with pytest.raises(SpecError, match=r"view 'meen' is not in this store\. Did you mean 'mean'\?"):
        store.read(["a"], "meen", [0])
    with pytest.raises(StoreError, match=r"text '\w{57}\.\.\.' has no latent"):
        store.read(["x" * 61], "mean", [0])


def test_missing_groups_the_texts_that_lack_the_same_columns(store):
    add(store, ["a", "b"])
    add(store, ["b", "c"], {"last": (0,)})
    keys = text_keys(["a", "b", "c", "d"])
    groups = {
        tuple(texts.tolist()): lacks for lacks, texts in store.missing_columns(keys, {"mean": (0, 2), "last": (0,)})
    }
    assert groups == {
        (0,): {"last": (0,), "mean": (2,)},
        (1,): {"mean": (2,)},
        (2,): {"mean": (0, 2)},
        (3,): {"last": (0,), "mean": (0, 2)},
    }
    assert store.missing_columns(keys[:2], {"mean": (1, 0)}) == []
    assert store.missing_columns(keys[:0], MEAN) == []


def test_an_empty_store_lacks_everything(store):
    ((lacks, texts),) = store.missing_columns(text_keys(["a", "b"]), MEAN)
    assert (lacks, texts.tolist()) == (MEAN, [0, 1])
    assert not store.has_column(text_keys(["a"]), "mean", 0).any()


def test_a_shard_that_another_process_adds_is_seen_at_the_next_look(store):
    add(store, ["a"])
    assert store.has_column(text_keys(["a", "b"]), "mean", 0).tolist() == [True, False]
    add(LatentStore(store.path, IDENTITY), ["b"])
    assert store.has_column(text_keys(["a", "b"]), "mean", 0).tolist() == [True, True]


def append_many(path: Path, start: int) -> None:
    store = LatentStore(path, IDENTITY)
    for number in range(start, start + 20):
        add(store, [f"text {number}", f"text {number + 1}"], seed=number)


def test_processes_that_append_at_once_lose_nothing(store):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(store.path, start)) for start in (0, 10)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    texts = [f"text {number}" for number in range(31)]
    assert store.has_column(text_keys(texts), "mean", 1).all()
    assert len(store.shards) == 30  # the ten that both wrote are equal, byte by byte
    for number in (0, 12, 29):
        pair = block_of(text_keys(texts[number : number + 2]), MEAN, dtype="float16", seed=number)
        assert any(np.array_equal(shard.layer("mean", 0), pair.latents["mean"][0]) for shard in store.shards)


def test_a_shard_of_another_identity_is_refused_and_the_difference_named(store):
    other = LatentStore(store.path, dataclasses.replace(IDENTITY, template="- {text}", max_tokens=8))
    add(other, ["a"])
    with pytest.raises(ShardError, match="it differs in template, max_tokens"):
        store.read(["a"], "mean", [0])


def test_a_store_without_shards_cannot_be_opened(tmp_path):
    with pytest.raises(StoreError, match="holds no shard"):
        LatentStore.open(tmp_path)


def test_a_store_of_another_version_is_in_no_plans_way(tmp_path, monkeypatch):
    plan = CapturePlan(backbone="org/model")
    old = LatentStore.at(tmp_path, "org/model", dataclasses.replace(IDENTITY, weights="v"))
    for module in (block, errors, shard_layout):
        monkeypatch.setattr(module, "FORMAT", module.FORMAT - 1)
    add(old, ["a"])
    monkeypatch.undo()
    with pytest.raises(OtherVersionError, match=r"written by another version .* 'run' and 'extract' make its latents"):
        find_store(tmp_path, plan)
    mine = LatentStore.at(tmp_path, "org/model", IDENTITY)
    add(mine, ["a"])
    assert find_store(tmp_path, plan).path == mine.path


def test_a_plan_finds_its_store_and_no_other(tmp_path):
    plan = CapturePlan(backbone="org/model")
    with pytest.raises(StoreError, match="holds no latents of this plan; run 'extract'"):
        find_store(tmp_path, plan)
    mine = LatentStore.at(tmp_path, "org/model", IDENTITY)
    add(mine, ["a"])
    add(LatentStore.at(tmp_path, "org/model", dataclasses.replace(IDENTITY, max_tokens=8)), ["a"])
    assert find_store(tmp_path, plan).path == mine.path
    assert find_store(tmp_path, dataclasses.replace(plan, max_tokens=8)).identity.max_tokens == 8
    assert find_store(tmp_path, dataclasses.replace(plan, revision="c0ffee")).path == mine.path
    for changes in (
        {"template": "- {text}"}, {"final_norm": True}, {"init": "random"}, {"compute_dtype": "bfloat16"},
        {"tokenizer": "another"}, {"revision": "badcab"}, {"backbone": "elsewhere/org/model"},
    ):  # fmt: skip
        with pytest.raises(StoreError, match="no latents of this plan"):
            find_store(tmp_path, dataclasses.replace(plan, **changes))
    add(LatentStore.at(tmp_path, "org/model", dataclasses.replace(IDENTITY, weights="v")), ["a"])
    with pytest.raises(StoreError, match=r"holds 2 stores of this plan .* they differ in weights"):
        find_store(tmp_path, plan)


def test_a_store_in_bfloat16_from_before_anything_stayed_in_float32_is_not_read(tmp_path):
    plan = CapturePlan(backbone="org/model", compute_dtype="bfloat16")
    before = dataclasses.replace(IDENTITY, compute_dtype="bfloat16")
    add(LatentStore.at(tmp_path, "org/model", before), ["a"])
    with pytest.raises(StoreError, match="no latents of this plan"):
        find_store(tmp_path, plan)
    now = LatentStore.at(tmp_path, "org/model", dataclasses.replace(before, keeps_float32=True))
    add(now, ["a"])
    assert find_store(tmp_path, plan).path == now.path
    assert "keeps_float32" not in plain(IDENTITY)


def test_a_plan_whose_stored_dtype_is_auto_finds_what_auto_may_have_chosen(tmp_path):
    plan = CapturePlan(backbone="org/model")

    def stored(dtype: str) -> LatentStore:
        store = LatentStore.at(tmp_path, "org/model", dataclasses.replace(IDENTITY, stored_dtype=dtype))
        add(store, ["a"])
        return store

    exact = stored("float32")  # which auto never chooses
    with pytest.raises(StoreError, match="no latents of this plan"):
        find_store(tmp_path, plan)
    brain = stored("bfloat16")
    assert find_store(tmp_path, plan).path == brain.path
    half = stored("float16")
    with pytest.raises(StoreError, match=r"differ in stored_dtype\. Set plan\.stored_dtype to that of one of them"):
        find_store(tmp_path, plan)
    for store in (exact, brain, half):
        chosen: Any = store.identity.stored_dtype
        assert find_store(tmp_path, dataclasses.replace(plan, stored_dtype=chosen)).path == store.path


def test_two_seeds_of_random_weights_have_two_names():
    plans = [CapturePlan(init="random", init_seed=seed) for seed in (0, 1)]
    assert len({init_name(plan) for plan in [*plans, CapturePlan()]}) == 3


@pytest.mark.parametrize(
    ("backbone", "folder"),
    [("gpt2", "gpt2"), ("a/b", "a--b"), ("/x/y/z/", "y--z"), ("../../etc", "etc"), ("..", "_"), ("ü b:c", "ü_b_c")],
)
def test_a_backbones_folder_never_leaves_the_cache(backbone, folder):
    assert folder_name(backbone) == folder


@given(texts=st.lists(st.text(st.characters()), unique=True))
def test_distinct_texts_have_distinct_keys_of_16_bytes(texts):
    keys = text_keys([*texts, *texts])
    assert keys.dtype == "S16"
    assert len(np.unique(keys)) == len(texts)
    np.testing.assert_array_equal(keys[: len(texts)], keys[len(texts) :])


segments = st.builds(Segments, st.text(st.characters()), st.text(st.characters()), st.integers(0, 3))


@given(texts=st.lists(st.one_of(segments, st.text(st.characters())), unique=True))
def test_two_segments_share_no_key_with_a_text_a_window_or_other_segments(texts):
    more = [repr(text) for text in texts] + [str(text) for text in texts]
    everything = list(dict.fromkeys([*texts, *more]))
    assert len(np.unique(text_keys(everything))) == len(everything)


def test_a_border_between_segments_is_part_of_the_key():
    texts = [Segments("a", "b c"), Segments("a b", "c"), Segments("a", "b c", 1), Segments('a", "b', "c"), "a | b c"]
    assert len(np.unique(text_keys(texts))) == len(texts)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_a_value_that_is_not_finite_names_layer_view_and_text(value, dtype):
    values = np.zeros((2, 3, 4), np.float32)
    values[1, 2, 3] = value
    with pytest.raises(StoreError, match=r"layer 7, view mean, text 'c': .* not finite"):
        encode_latents(values, dtype, "mean", [5, 7], ["a", "b", "c"])


def test_an_overflow_of_float16_names_layer_text_value_and_the_way_out():
    values = np.full((2, 2, 4), 65_504, np.float32)
    assert encode_latents(values, "float16", "mean", [5, 7], ["a", "b"]).max() == 65_504
    values[1, 0, 2] = -71_680
    with pytest.raises(StoreError) as error:
        encode_latents(values, "float16", "mean", [5, 7], ["a", "b"])
    assert str(error.value) == (
        "layer 7, view mean, text 'a': |value| 71,680 does not fit float16; set plan.stored_dtype = \"bfloat16\" or "
        '"float32".'
    )
    for dtype in ("bfloat16", "float32"):
        stored = encode_latents(values, dtype, "mean", [5, 7], ["a", "b"])
        np.testing.assert_allclose(decode(stored), values, rtol=2.0**-8 if dtype == "bfloat16" else 0)


def test_an_overflow_of_bfloat16_is_an_error_though_float32_holds_it():
    values = np.full((1, 1, 4), LARGEST["bfloat16"], np.float32)
    assert decode(encode_latents(values, "bfloat16", "mean", [5], ["a"])).max() == LARGEST["bfloat16"]
    values[0, 0, 2] = np.finfo(np.float32).max
    with pytest.raises(StoreError, match=r'3.403e\+38 does not fit bfloat16; set plan.stored_dtype = "float32"\.'):
        encode_latents(values, "bfloat16", "mean", [5], ["a"])


def test_the_stored_precision_rounds_as_numpy_does():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 400_000, np.uint32).view(np.float32)
    fits = np.abs(np.nan_to_num(bits, nan=1e9, posinf=1e9, neginf=1e9)) < 65_504
    edges = np.array([0.0, -0.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 1 + 2.0**-11, 1 + 3 * 2.0**-11], np.float32)
    values = np.concatenate([bits[fits], edges]).reshape(1, -1, 1)
    for dtype in ("float16", "float32"):
        stored = encode_latents(values, dtype, "mean", [5], ["a"] * values.shape[1])
        assert stored.dtype == dtype
        assert stored.tobytes() == values.astype(dtype).tobytes()
    stored = encode_latents(values, "bfloat16", "mean", [5], ["a"] * values.shape[1])
    upper = values.view(np.uint32) >> 16
    below, above = ((upper << 16).view(np.float32), ((upper + 1) << 16).view(np.float32))  # those on either side
    even = np.where(upper % 2 == 0, below, above)
    nearest = np.where(np.abs(values - below) < np.abs(above - values), below, above)
    tie = values - below == above - values
    np.testing.assert_array_equal(decode(stored), np.where(tie, even, nearest))


def test_a_token_that_cannot_be_stored_names_the_text_it_belongs_to():
    values = np.zeros((1, 5, 4), np.float32)
    for wrong, message in ((np.nan, "not finite"), (7e4, r"\|value\| 70,000 does not fit float16")):
        values[0, 3, 1] = wrong
        with pytest.raises(StoreError, match=f"layer 2, view tokens, text 'b': .*{message}"):
            encode_latents(values, "float16", "tokens", [2], ["a", "a", "a", "b", "b"])


columns = st.dictionaries(
    st.sampled_from(["mean", "last"]), st.lists(st.integers(0, 2), min_size=1, unique=True).map(tuple), min_size=1
)
shards = st.lists(st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True), columns), min_size=1)


@settings(max_examples=40, deadline=None)  # every shard is synced
@given(
    dtype=st.sampled_from(sorted(STORED_DTYPES)),
    shards=shards.filter(lambda made: len(made) < 6),
    asked=st.lists(st.sampled_from("abcdef"), max_size=5),
)
def test_the_store_reads_like_a_dictionary(tmp_path_factory, dtype, shards, asked):
    store = LatentStore(tmp_path_factory.mktemp("store"), dataclasses.replace(IDENTITY, stored_dtype=dtype))
    made: dict[str, tuple[list[str], Block]] = {}
    for seed, (texts, layers) in enumerate(shards):
        block = block_of(text_keys(texts), layers, dtype=dtype, seed=seed)
        made[store.append(block, {"layers": 99}).name] = (texts, block)
    naive: dict[tuple[str, str, int], Any] = {}
    for name in sorted(made, reverse=True):  # the first by name counts, so it comes last
        texts, block = made[name]
        for view, layers in block.columns.items():
            for index, layer in enumerate(layers):
                for row, text in enumerate(texts):
                    naive[text, view, layer] = decode(block.latents[view][index, row])
    for view, layers in store.columns().items():
        for layer in layers:
            held = store.has_column(text_keys(asked), view, layer).tolist()
            assert held == [(text, view, layer) in naive for text in asked]
            found = [text for text, here in zip(asked, held, strict=True) if here]
            expected = [naive[text, view, layer] for text in found]
            np.testing.assert_array_equal(store.read(found, view, [layer])[0], np.reshape(expected, (-1, 4)))
