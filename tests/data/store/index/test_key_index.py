"""The index of a store finds what the shards hold, whatever becomes of its files."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from permafrost.data import atomic
from permafrost.data.errors import MachineError
from permafrost.data.latents.maintenance import remove_stores
from permafrost.data.store import store as store_module
from permafrost.data.store.index import key_index, merge, segment, segment_files
from permafrost.data.store.index.segment import INDEX_SUFFIX, IndexedShard, Segment, SegmentError, write_segment
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, block_of

TEXTS = [f"text {number}" for number in range(60)]
COLUMN_SETS = [{"mean": (0, 1)}, {"mean": (1, 2), "last": (0,)}]
COLUMNS = [("mean", 0), ("mean", 1), ("mean", 2), ("last", 0), ("max", 0)]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index file from the third shard on, of a few entries a page; few shards stay open."""
    monkeypatch.setattr(key_index, "MOST_SHARDS", 2)
    monkeypatch.setattr(segment, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(segment, "PAGES_AT_ONCE", 3)
    monkeypatch.setattr(merge, "RANGE_ENTRIES", 8)
    monkeypatch.setattr(segment_files, "BATCH_TEXTS", 20)
    monkeypatch.setattr(store_module, "MOST_OPEN", 2)


@pytest.fixture
def store(tmp_path: Path) -> LatentStore:
    return LatentStore.at(tmp_path, "org/model", IDENTITY)


def add(store: LatentStore, texts: Sequence[str], columns: dict[str, tuple[int, ...]] | None = None) -> Path:
    seed = len(list(store.path.glob("*"))) + 1
    block = block_of(text_keys(texts), columns or COLUMN_SETS[0], seed=seed)
    return store.append(block, {"backbone": "org/model", "layers": 3})


def index_files(store: LatentStore) -> list[Path]:
    return sorted(store.path.glob(f"*{INDEX_SUFFIX}"))


def assert_reads_what_the_shards_hold(store: LatentStore) -> None:
    """Each text in each column is that of the first shard by name whose keys have it."""
    shards = [(shard, shard.keys.tolist()) for shard in map(Shard, sorted(store.path.glob("*.h5")))]
    keys = text_keys(TEXTS)
    for view, layer in COLUMNS:
        held = {}
        for text, key in zip(TEXTS, keys.tolist(), strict=True):
            for shard, stored in shards:
                if layer in shard.columns.get(view, ()) and key in stored:
                    held[text] = shard.layer(view, layer)[stored.index(key)]
                    break
        assert store.has_column(keys, view, layer).tolist() == [text in held for text in TEXTS]
        if held:
            np.testing.assert_array_equal(store.read(list(held), view, [layer])[0], list(held.values()))
    assert store.count_texts() == len({key for _, stored in shards for key in stored})


Steps = st.lists(
    st.tuples(st.sets(st.sampled_from(TEXTS), min_size=1, max_size=12), st.integers(0, 1), st.booleans()),
    min_size=1,
    max_size=9,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=Steps)
def test_a_store_with_an_index_reads_like_one_without(tmp_path_factory, steps):
    """Shards of two processes, of different columns, with texts in common; looked at now and then."""
    stores = [LatentStore.at(tmp_path_factory.mktemp("cache"), "org/model", IDENTITY)]
    stores.append(LatentStore(stores[0].path, IDENTITY))
    for number, (texts, columns, look) in enumerate(steps):
        add(stores[number % 2], sorted(texts), COLUMN_SETS[columns])
        if look:
            assert_reads_what_the_shards_hold(stores[number % 2])
    assert_reads_what_the_shards_hold(stores[0])
    assert_reads_what_the_shards_hold(LatentStore(stores[0].path, IDENTITY))
    assert len(list(stores[0].path.glob("*.h5"))) <= key_index.MOST_SHARDS or index_files(stores[0])


@pytest.fixture
def indexed(store: LatentStore) -> LatentStore:
    for start in range(0, 60, 6):
        add(store, TEXTS[start : start + 9])
    store.has_column(text_keys(TEXTS), "mean", 0)
    assert index_files(store)
    return LatentStore(store.path, IDENTITY)


def test_texts_of_an_indexed_store_are_found_without_opening_its_shards(indexed, monkeypatch):
    monkeypatch.setattr(store_module, "Shard", None)
    assert indexed.has_column(text_keys([*TEXTS, "another"]), "mean", 1).tolist() == [True] * 60 + [False]
    assert indexed.missing_columns(text_keys(TEXTS), {"mean": (0, 1)}) == []
    assert (indexed.count_texts(), indexed.columns()) == (60, {"mean": (0, 1)})


def test_files_are_merged_so_that_there_are_few(indexed):
    for start in range(0, 60, 2):
        add(indexed, TEXTS[start : start + 2], COLUMN_SETS[start % 4 // 2])
        indexed.has_column(text_keys(TEXTS), "mean", 0)
    for columns in COLUMN_SETS:
        segments = [found for found in map(Segment, index_files(indexed)) if found.columns == columns]
        sizes = sorted(found.entries for found in segments)
        assert all(size >= segment_files.RATIO * sum(sizes[:number]) for number, size in enumerate(sizes))
    assert_reads_what_the_shards_hold(indexed)


def test_a_small_store_has_no_index(store):
    add(store, TEXTS[:5])
    add(store, TEXTS[5:9])
    assert_reads_what_the_shards_hold(store)
    assert not index_files(store)


def damages(path: Path) -> Iterator[bytes]:
    """What may become of an index file: cut, emptied, a bit flipped in its pages, its head and its trailer."""
    content = path.read_bytes()
    yield from (content[:-1], content[: len(content) // 2], b"", content + b"\0", b"\0" * len(content))
    for place in (3, segment.ENTRY.itemsize - 1, len(content) // 2, len(content) - 20, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def test_damaged_index_files_are_made_again(indexed):
    (path,) = index_files(indexed)
    for content in damages(path):
        path.write_bytes(content)
        assert_reads_what_the_shards_hold(LatentStore(indexed.path, IDENTITY))
        assert index_files(indexed) == [path]
        Segment(path)


def test_a_page_that_is_damaged_while_the_file_is_open_is_not_believed(indexed):
    assert_reads_what_the_shards_hold(indexed)
    (path,) = index_files(indexed)
    with open(path, "r+b") as file:
        file.seek(16)
        file.write(b"\xff\xff")
    assert_reads_what_the_shards_hold(indexed)


def test_an_index_that_is_missing_is_made_again(indexed):
    (path,) = index_files(indexed)
    assert_reads_what_the_shards_hold(indexed)
    path.unlink()
    assert_reads_what_the_shards_hold(indexed)
    assert index_files(indexed) == [path]


@pytest.mark.parametrize("wrong", ["shards", "rows", "columns"])
def test_an_index_that_tells_other_places_is_not_believed(indexed, wrong):
    """Its checksums are right; only the shards tell that it is not."""
    (path,) = index_files(indexed)
    told = Segment(path)
    entries = told.between(b"", b"").copy()
    columns = told.columns
    if wrong == "shards":
        entries["shard"] = np.roll(entries["shard"], 7)
    elif wrong == "rows":
        entries["row"] = entries["row"][::-1] + 1
    else:
        columns = {"max": (0,)}
    path.unlink()
    write_segment(indexed.path / "new", columns, told.shards, [entries])
    fresh = LatentStore(indexed.path, IDENTITY)
    if wrong == "columns":
        with pytest.raises(MachineError, match="Remove the index files"):
            fresh.read(TEXTS, "max", [0])
    else:
        assert_reads_what_the_shards_hold(fresh)
        assert index_files(indexed) == [path]


def test_an_index_of_shards_that_are_gone_or_changed_is_not_used(indexed):
    first, *_, last = sorted(indexed.path.glob("*.h5"))
    first.unlink()
    assert_reads_what_the_shards_hold(indexed)
    (path,) = index_files(indexed)
    assert first.name not in Segment(path).names
    kept = last.read_bytes()
    last.write_bytes(kept + b"\0")
    LatentStore(indexed.path, IDENTITY).has_column(text_keys(TEXTS), "mean", 0)
    assert not path.exists()


def test_the_index_of_another_store_is_not_used(indexed, tmp_path):
    (path,) = index_files(indexed)
    other = LatentStore.at(tmp_path / "other", "org/model", IDENTITY)
    add(other, TEXTS[:3])
    shutil.copy(path, other.path)
    assert_reads_what_the_shards_hold(other)
    assert not index_files(other)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(store, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(segment_files, "write_segment", refuse)
    for start in range(0, 60, 6):
        add(store, TEXTS[start : start + 6])
    assert_reads_what_the_shards_hold(store)
    assert not index_files(store)


def test_a_store_is_removed_with_its_index(indexed):
    remove_stores([indexed.path])
    assert not indexed.path.exists()


def test_entries_are_found_by_key_wherever_pages_end(tmp_path):
    rng = random.Random(0)
    keys = text_keys([f"key {number}" for number in range(50)])
    for count in (0, 1, 3, 4, 5, 50):
        entries = merge.sort_entries(merge.entries_of([keys[:count]]))
        path = write_segment(tmp_path / "new", {"mean": (0,)}, [IndexedShard("0" * 32 + ".h5", 1, 0)], [entries])
        asked = keys[rng.sample(range(50), 30)]
        asked = asked[merge.key_order(asked)]
        shards, rows = Segment(path).find(asked)
        stored = {key: row for row, key in enumerate(keys[:count].tolist())}
        assert shards.tolist() == [0 if key in stored else -1 for key in asked.tolist()]
        assert [row for row, shard in zip(rows.tolist(), shards, strict=True) if shard == 0] == [
            stored[key] for key in asked.tolist() if key in stored
        ]


def test_what_a_killed_process_left_of_an_index_goes_with_the_next(store):
    for start in range(0, 60, 6):
        add(store, TEXTS[start : start + 6])
    left = store.path / f".{'0' * 32}.999999999-1@{atomic._host()}.tmp"
    left.write_bytes(b"pages")
    assert_reads_what_the_shards_hold(store)
    assert index_files(store)
    assert not left.exists()


def test_what_is_no_index_is_refused(tmp_path):
    path = tmp_path / f"{'0' * 32}{INDEX_SUFFIX}"
    for content in (b"", b"x" * 15, b"\xff" * 400, (1 << 60).to_bytes(8, "little") + segment.MAGIC):
        path.write_bytes(content)
        with pytest.raises(SegmentError):
            Segment(path)
