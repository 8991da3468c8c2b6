"""Shards of a request: a partition of its packs, whose union has the bits of one process."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.spec import SpecError
from permafrost.data.text import Segments, TextError
from permafrost.extract.distributed.claims import Claims, KeySet
from permafrost.extract.distributed.shards import ShardOfPacks, deal, parse_shard
from permafrost.extract.extraction import extract

WORDS = ["dog", "grass", "stove", "winter", "small", "brown", "runs", "over", "green", "then"]
TEXTS = [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} {'runs ' * (i % 5)}{WORDS[i // 100]}" for i in range(300)]
REPEATED = [*TEXTS[:150], *TEXTS[20:40], *TEXTS[150:], *TEXTS[::7]]
"""Texts of earlier blocks in later ones, where they lie in other packs."""

BLOCK = 64


@pytest.fixture
def plan(tiny: Any) -> CapturePlan:
    views = ("last", "mean")
    return CapturePlan(
        backbone=str(tiny("llama")), views=views, max_tokens=32, compute_dtype="float32", stored_dtype="float32"
    )


@pytest.fixture
def spec(tmp_path: Any) -> ExtractSpec:
    return ExtractSpec(cache=str(tmp_path / "cache"), device="cpu", block_texts=BLOCK, batch_tokens=60)


def elsewhere(spec: ExtractSpec, name: str) -> ExtractSpec:
    return replace(spec, cache=f"{spec.cache}-{name}")


class Notes(NoProgress):
    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)


def bits(latents: Any, texts: Any = TEXTS) -> list[np.ndarray]:
    return [latents.store.read(texts, view, layers) for view, layers in latents.columns.items()]


@given(st.lists(st.integers(1, 1000)), st.integers(1, 9), st.integers(0, 30))
def test_packs_are_dealt_to_each_worker_within_one_pack_of_the_others(sizes, workers, first):
    dealt = deal(sizes, workers, first)
    tokens = [sum(size for size, owner in zip(sizes, dealt, strict=True) if owner == index) for index in range(workers)]
    assert set(dealt) <= set(range(workers))
    assert max(tokens) - min(tokens) <= max(sizes, default=0)
    assert dealt == deal(sizes, workers, first)


def test_many_blocks_of_one_pack_go_to_all_workers():
    assert sorted(deal([9], 4, block)[0] for block in range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_shards_in_any_order_have_the_bits_of_one_process(order, plan, spec):
    """Texts that occur in several blocks too: they belong to the first."""
    whole = extract(plan, iter(REPEATED), elsewhere(spec, "whole"))
    told = Notes()
    parts = [extract(plan, iter(REPEATED), spec, told, ShardOfPacks((index, 3))) for index in order]
    assert sum(part.texts_run for part in parts) == whole.texts_run == len(TEXTS)
    assert all(60 < part.texts_run < 140 for part in parts)
    left = [note for note in told.notes if "stored yet" in note or note.startswith("all texts")]
    assert [note.split()[0].replace(",", "") for note in left[:2]] == [
        str(len(TEXTS) - parts[0].texts_run),
        str(parts[2].texts_run),
    ]
    assert left[2] == "all texts of the request are stored"
    for ours, theirs in zip(bits(parts[0]), bits(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert extract(plan, iter(REPEATED), spec).texts_run == 0


def test_a_shard_is_the_same_whatever_is_stored_by_then(plan, spec):
    """Another worker's part, columns of some texts, or a part of its own."""
    alone = extract(plan, TEXTS, elsewhere(spec, "alone"), None, ShardOfPacks((1, 2)))
    extract(plan, TEXTS, spec, None, ShardOfPacks((0, 2)))
    after = extract(plan, TEXTS, spec, None, ShardOfPacks((1, 2)))
    assert after.texts_run == alone.texts_run
    own = [text for text in TEXTS if _stored(alone.store, text)]
    assert len(own) == alone.texts_run
    for ours, theirs in zip(bits(after, own), bits(alone, own), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert extract(plan, TEXTS, spec, None, ShardOfPacks((1, 2))).texts_run == 0


def _stored(store: Any, text: str) -> bool:
    try:
        store.lengths([text])
    except Exception:
        return False
    return True


@pytest.mark.parametrize("first", [0, 1])
def test_requests_that_share_texts_leave_them_to_the_first(first, plan, spec):
    """Corpora with texts in common, and plans with columns in common: in one store, each column once."""
    one_view = replace(plan, views=("mean",))
    requests = [(one_view, TEXTS[:200]), (plan, TEXTS[120:]), (plan, TEXTS)]

    def run(spec: ExtractSpec, shard: Any) -> Any:
        return [extract(asked, texts, spec, None, shard) for asked, texts in requests]

    whole = run(elsewhere(spec, "whole"), None)
    parts = [run(spec, ShardOfPacks((index, 2))) for index in (first, 1 - first)]
    assert [sum(part[i].texts_run for part in parts) for i in range(3)] == [latents.texts_run for latents in whole]
    for ours, theirs in zip(bits(parts[1][2]), bits(whole[2]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_shards_of_texts_in_windows_and_of_pairs(tiny, spec):
    plan = CapturePlan(
        backbone=str(tiny("bert")), views=("mean", "tokens"), max_tokens=12, truncation="windows", stride=2
    )
    texts = [*TEXTS[:40], *(f"{'small dog ' * (i + 5)}{WORDS[i]}" for i in range(6))]
    texts += [Segments("green grass", f"{'brown dog ' * (3 * i)}over") for i in range(6)]
    whole = extract(plan, texts, elsewhere(spec, "whole"))
    parts = [extract(plan, texts, spec, None, ShardOfPacks((index, 2))) for index in (1, 0)]
    assert sum(part.texts_run for part in parts) == whole.texts_run > len(texts)
    windows = whole.store.expand_windows(texts)[0]
    for store in (parts[1].store,):
        np.testing.assert_array_equal(store.read(windows, "mean", (1,)), whole.store.read(windows, "mean", (1,)))
        tokens, expected = store.read_tokens(windows, [1]), whole.store.read_tokens(windows, [1])
        np.testing.assert_array_equal(tokens.states, expected.states)


def test_texts_that_are_cut_are_counted_among_those_stored_and_refused_by_every_worker(plan, spec):
    short = replace(plan, max_tokens=4)
    parts = [extract(short, TEXTS, spec, None, ShardOfPacks((index, 2))) for index in range(2)]
    whole = extract(short, TEXTS, spec)
    assert 0 < parts[0].truncated < parts[1].truncated == whole.truncated
    with pytest.raises(TextError):
        extract(replace(short, truncation="refuse"), TEXTS, elsewhere(spec, "strict"), None, ShardOfPacks((1, 2)))


@given(st.lists(st.lists(st.binary(min_size=16, max_size=16))))
def test_a_set_of_keys_has_what_was_added(groups):
    known, added = KeySet(), set()
    for group in groups:
        keys = np.array(group, "S16") if group else np.zeros(0, "S16")
        assert known.contains(keys).tolist() == [key[:8] in added for key in group]
        known.add(keys)
        added |= {key[:8] for key in group}


def test_what_is_left_of_a_block_is_in_one_group_for_each_set_of_columns(tmp_path):
    claims = Claims()
    keys = np.array([b"a" * 16, b"b" * 16, b"c" * 16], "S16")
    both, mean = {"last": (1,), "mean": (1,)}, {"mean": (1,)}
    assert claims.claim(tmp_path, keys[:1], {"last": (1,)}, []) == []
    left = claims.claim(tmp_path, keys, both, [(both, np.array([0, 2])), (mean, np.array([1]))])
    assert [(columns, members.tolist()) for columns, members in left] == [(both, [2]), (mean, [0, 1])]
    assert claims.claim(tmp_path, keys, both, [(both, np.array([0, 1, 2]))]) == []


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"RANK": "2", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"}, (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "10"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3"}, (1, 3)),
        (
            {"SLURM_ARRAY_TASK_ID": "21", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}
            | {"SLURM_ARRAY_TASK_STEP": "10"},
            (2, 3),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "RANK": "7"}, (0, 1)),
    ],
)
def test_the_environment_of_a_launcher_tells_the_shard(environment, shard):
    assert parse_shard("auto", environment) == shard


@pytest.mark.parametrize(
    ("shard", "environment", "message"),
    [
        ("3/3", {}, "--shard 3/3: the workers of 3 are 0 to 2"),
        ("0/0", {}, "at least one worker"),
        ("1/0", {}, "at least one worker"),
        ("a/b", {}, "expected I/N"),
        ((-1, 2), {}, "expected I/N"),
        ("auto", {"RANK": "1"}, "RANK and WORLD_SIZE; SLURM_ARRAY_TASK_ID"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "tell no shard"),
        ("auto", {"RANK": "5", "WORLD_SIZE": "2"}, "--shard 5/2"),
    ],
)
def test_a_shard_that_cannot_be_is_refused_in_one_line(shard, environment, message):
    with pytest.raises(SpecError, match=message):
        parse_shard(shard, environment)
