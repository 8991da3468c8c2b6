"""Looking after stores: damage is found and set aside, what is redundant goes, and nothing else does."""

import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from permafrost.data.atomic import temporary_path
from permafrost.data.latents import maintenance
from permafrost.data.spec import plain
from permafrost.data.store import block, errors, shard_layout
from permafrost.data.store.errors import StoreError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, assert_equal_tokens, block_of, ragged_block

OTHER = dataclasses.replace(IDENTITY, weights="v")
MEAN = {"mean": (0, 1)}


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore.at(tmp_path, "model", IDENTITY)


def add(
    store: LatentStore, texts: Sequence[str], columns: dict[str, tuple[int, ...]] = MEAN, seed: int = 0, width: int = 4
) -> Path:
    return store.append(
        block_of(text_keys(texts), columns, width, seed=seed), {"backbone": "model", "host": "h", "layers": 99}
    )


def damage(path: Path) -> Path:
    raw = bytearray(path.read_bytes())
    raw[raw.index(Shard(path).layer("mean", 1).tobytes())] ^= 1
    path.write_bytes(raw)
    return path


def test_a_sound_store_has_no_findings_and_every_shard_is_counted(store):
    for seed in range(3):
        add(store, ["a", "b"], seed=seed)
    steps: list[int] = []
    assert list(maintenance.verify([store.path], steps.append)) == []
    assert steps == [1, 1, 1]


def test_every_damaged_shard_is_found_with_its_reason(store):
    sound, flipped, cut = (add(store, ["a", "b"], seed=seed) for seed in range(3))
    damage(flipped)
    cut.write_bytes(cut.read_bytes()[:500])
    found = {finding.path: finding.problems for finding in maintenance.verify([store.path])}
    assert set(found) == {flipped, cut}
    assert found[flipped][0] == "the file's bytes are not those its name was made from"
    assert found[flipped][1].endswith("does not match its checksum")
    assert found[cut][0].startswith("not a whole shard")
    assert sound.exists()


def test_a_shard_of_another_store_is_found(store):
    shards = [add(LatentStore(store.path, identity), ["a"]) for identity in (IDENTITY, OTHER)]
    (finding,) = maintenance.verify([store.path])
    assert finding.path in shards
    assert finding.problems == ("it belongs to another store",)


def test_a_reader_that_somebody_killed_is_not_held_against_the_shard(store):
    for seed in range(3):
        add(store, ["a"], seed=seed)
    seen: list[int] = []

    def kill_the_first_reader(steps: int) -> None:
        if not seen:
            (child,) = multiprocessing.active_children()
            child.kill()
            child.join()
        seen.append(steps)

    assert not list(maintenance.verify([store.path], kill_the_first_reader))
    assert len(seen) == 3


def test_a_shard_whose_readers_keep_dying_is_reported_and_we_live(store):
    path, done = add(store, ["a"]), threading.Event()

    def kill_every_reader() -> None:
        while not done.is_set():
            for child in multiprocessing.active_children():
                child.kill()

    killer = threading.Thread(target=kill_every_reader)
    killer.start()
    try:
        findings = list(maintenance.verify([store.path]))
    finally:
        done.set()
        killer.join()
    assert findings == [maintenance.Finding(path, ("reading it ended the process that read it, twice",))]


def test_a_folder_that_is_no_store_is_left_alone(store, tmp_path):
    add(store, ["a"])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious.h5").write_bytes(b"mine")
    with pytest.raises(StoreError, match="is no store"):
        maintenance.pick_stores(tmp_path, [str(mine)])
    (store.path / "precious.h5").write_bytes(b"mine")
    maintenance.remove_stores([store.path])
    assert [path.name for path in store.path.iterdir()] == ["precious.h5"]


def test_repair_sets_damaged_shards_aside_and_the_rest_reads_on(store):
    kept, broken = add(store, ["a"], seed=1), add(store, ["b"], seed=2)
    damage(broken)
    aside, leftovers = maintenance.repair([store.path])
    assert aside == [broken.with_name(f"{broken.name}.damaged")]
    assert leftovers == []
    assert sorted(store.path.iterdir()) == sorted([kept, *aside])
    assert LatentStore.open(store.path).has_column(text_keys(["a", "b"]), "mean", 0).tolist() == [True, False]
    assert list(maintenance.verify([store.path])) == []


def test_shards_of_another_version_are_told_apart_and_left_alone(store, monkeypatch):
    for module in (block, errors, shard_layout):
        monkeypatch.setattr(module, "FORMAT", module.FORMAT - 1)
    others = [add(store, ["a"], seed=seed) for seed in range(2)]
    monkeypatch.undo()
    broken = others[1].with_name("0" * 32 + ".h5")
    broken.write_bytes(others[1].read_bytes()[:500])
    found = {finding.path: finding.other_version for finding in maintenance.verify([store.path])}
    assert found == {others[0]: True, others[1]: True, broken: False}
    assert maintenance.repair([store.path])[0] == [broken.with_name(f"{broken.name}.damaged")]
    assert maintenance.prune([store.path])[0] == [broken.with_name(f"{broken.name}.damaged")]
    assert sorted(store.path.iterdir()) == sorted(others)


def test_prune_removes_what_others_hold_and_reads_do_not_change(store):
    add(store, ["a", "b", "c"], seed=1)
    copies = {add(store, ["b"], {"mean": (1,)}, seed=seed) for seed in (2, 3)}
    own = add(store, ["b"], {"last": (1,)}, seed=4)
    before = store.read(["a", "c"], "mean", [0, 1]), store.read(["b"], "last", [1])
    removed, size = maintenance.prune([store.path])
    assert set(removed) == copies
    assert size > 0
    assert own.exists()
    fresh = LatentStore.open(store.path)
    np.testing.assert_array_equal(fresh.read(["a", "c"], "mean", [0, 1]), before[0])
    np.testing.assert_array_equal(fresh.read(["b"], "last", [1]), before[1])
    assert maintenance.prune([store.path]) == ([], 0)


def test_prune_and_repair_know_the_tokens_of_a_shard(store):
    store.append(ragged_block(["a", "b"], {"mean": (1,), "tokens": (0, 1)}), {"layers": 2})
    pooled, some = add(store, ["a", "b"], {"mean": (1,)}), ragged_block(["b"], {"tokens": (1,)}, seed=1)
    copy = store.append(some, {"layers": 2})
    own = store.append(ragged_block(["a"], {"tokens": (2,)}, seed=2), {"layers": 2})
    assert set(maintenance.prune([store.path])[0]) == {pooled, copy}
    fresh = LatentStore.open(store.path)
    assert [shard["tokens"] for shard in maintenance.store_details(store.path)["shards"]] == [
        s.tokens for s in fresh.shards
    ]
    raw = bytearray(own.read_bytes())
    raw[raw.index(Shard(own).layer("tokens", 2).tobytes())] ^= 1
    own.write_bytes(raw)
    assert maintenance.repair([store.path])[0] == [own.with_name(f"{own.name}.damaged")]
    fresh = LatentStore.open(store.path)
    assert fresh.columns() == {"mean": (1,), "tokens": (0, 1)}
    assert_equal_tokens(fresh.read_tokens(["a", "b"], [0, 1]), ragged_block(["a", "b"], {"tokens": (0, 1)}).tokens)


def test_of_two_processes_that_wrote_the_same_texts_prune_keeps_the_one_that_is_read(store):
    for seed in range(5):
        add(store, ["a", "b"], seed=seed)
    before = store.read(["a", "b"], "mean", [0, 1])
    assert len(maintenance.prune([store.path])[0]) == 4
    np.testing.assert_array_equal(LatentStore.open(store.path).read(["a", "b"], "mean", [0, 1]), before)


def test_a_shard_that_several_others_hold_together_is_redundant(store):
    add(store, ["a", "b", "x"])
    add(store, ["c", "d", "y"])
    both = add(store, ["b", "c"])
    assert maintenance.prune([store.path])[0] == [both]


def test_shards_that_overlap_but_each_hold_something_alone_stay(store):
    for texts in (["a", "b"], ["b", "c", "d"], ["d", "e"]):
        add(store, texts)
    assert maintenance.prune([store.path]) == ([], 0)


def test_prune_removes_what_repair_set_aside(store):
    add(store, ["a"])
    broken = add(store, ["b"], seed=1)
    damage(broken)
    (aside,), _ = maintenance.repair([store.path])
    size = aside.stat().st_size
    assert maintenance.prune([store.path]) == ([aside], size)


def test_what_a_running_process_writes_is_no_leftover(store):
    add(store, ["a"])
    with temporary_path(store.path) as mine:
        mine.write_bytes(b"x")
        left = mine.with_name(mine.name.replace(f"{os.getpid()}-", "999999999-"))
        left.write_bytes(b"x")
        assert maintenance.prune([store.path]) == ([left], 0)
        assert mine.exists()


def test_removing_a_store_touches_no_file_of_another_kind(store):
    shard = add(store, ["a"])
    (store.path / "notes.md").write_text("mine")
    size = shard.stat().st_size
    assert maintenance.remove_stores([store.path]) == ([shard], size)
    assert [path.name for path in store.path.iterdir()] == ["notes.md"]
    (store.path / "notes.md").unlink()
    add(store, ["a"])
    maintenance.remove_stores([store.path])
    assert not store.path.exists()


def test_a_summary_counts_a_text_once_and_sums_the_shards(store):
    paths = [add(store, ["a", "b"]), add(store, ["b", "c"], {"last": (2,)})]
    summary = maintenance.store_summary(store.path)
    assert (summary["texts"], summary["shards"]) == (3, 2)
    assert summary["bytes"] == sum(path.stat().st_size for path in paths)
    assert summary["columns"] == {"last": [2], "mean": [0, 1]}
    assert (summary["backbone"], summary["identity"]) == ("model", IDENTITY.name)


def test_details_are_the_summary_with_identity_and_provenance(store):
    path = add(store, ["a", "b"])
    details = maintenance.store_details(store.path)
    assert details["identity"] == plain(IDENTITY)
    (shard,) = details["shards"]
    assert (shard["name"], shard["texts"], shard["provenance"]["host"]) == (path.name, 2, "h")


def test_the_peak_of_a_layer_is_the_largest_magnitude_in_any_shard(store):
    add(store, ["a", "b"], {"mean": (0, 2)})
    store.append(
        ragged_block(["c"], {"mean": (2,), "tokens": (1,)}, seed=1), {"backbone": "model", "host": "h", "layers": 99}
    )
    peaks = maintenance.store_details(store.path)["peaks"]
    tokens = store.read_tokens(["c"], [1]).states
    expected = {
        "mean": {0: np.abs(store.read(["a", "b"], "mean", [0])).max()}
        | {2: np.abs(store.read(["a", "b", "c"], "mean", [2])).max()},
        "tokens": {1: np.abs(tokens).max()},
    }
    assert peaks == {view: pytest.approx(values, rel=1e-5) for view, values in expected.items()}


def test_stores_are_picked_by_folder_or_by_the_beginning_of_their_identity(store, tmp_path):
    other = LatentStore.at(tmp_path, "model", OTHER)
    for each in (store, other):
        add(each, ["a"])
    both = sorted([store.path, other.path])
    assert maintenance.pick_stores(tmp_path, []) == maintenance.store_folders(tmp_path) == both
    assert maintenance.pick_stores(tmp_path, [str(store.path)]) == [store.path]
    assert maintenance.pick_stores(tmp_path, [OTHER.name[:6], IDENTITY.name]) == [other.path, store.path]
    with pytest.raises(StoreError, match="'' fits several stores"):
        maintenance.pick_stores(tmp_path, [""])
    with pytest.raises(StoreError, match=f"'{OTHER.name}x' is no store in .* Did you mean '{OTHER.name}'"):
        maintenance.pick_stores(tmp_path, [f"{OTHER.name}x"])


def test_a_store_whose_only_shard_was_set_aside_is_listed_but_not_intact(store, tmp_path):
    broken = add(store, ["a"])
    damage(broken)
    maintenance.repair([store.path])
    assert maintenance.store_folders(tmp_path) == [store.path]
    assert maintenance.stores_with_shards(tmp_path) == []


def test_an_empty_cache_has_no_stores(tmp_path):
    assert maintenance.store_folders(tmp_path / "none") == []
    assert maintenance.pick_stores(tmp_path, []) == []


def test_a_link_to_a_store_is_that_store_and_no_shard_of_it_is_misplaced(store, tmp_path):
    add(store, "a cat")
    (link := store.path.with_name("0" * 16)).symlink_to(store.path.name)
    assert maintenance.store_folders(tmp_path) == [store.path]
    assert maintenance.pick_stores(tmp_path, [str(link), store.path.name, str(store.path)]) == [link]
    assert [*maintenance.verify([link])] == []
    assert maintenance.repair([link, store.path]) == ([], [])
    assert len(store.shards) == 1


def test_a_cache_that_is_no_folder_is_told(tmp_path):
    os.mkfifo(tmp_path / "cache")
    with pytest.raises(StoreError, match="cache is no folder of stores"):
        maintenance.pick_stores(tmp_path / "cache", [])
