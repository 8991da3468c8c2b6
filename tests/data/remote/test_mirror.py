"""A store on object storage reads like one in a folder, from any machine; what is damaged there is refused."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from permafrost.data.errors import MachineError
from permafrost.data.remote.mirror import files_below, local_cache
from permafrost.data.spec import SpecError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, block_of

TEXTS = [f"text {number}" for number in range(50)]
URL = "memory://bucket/latents/"


@pytest.fixture(autouse=True)
def mirrors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty object storage, and a folder for mirrors."""
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    yield
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


def store_at(url: str = URL) -> LatentStore:
    return LatentStore.at(local_cache(url), "org/model", IDENTITY)


def written(url: str = URL) -> LatentStore:
    store = store_at(url)
    for start in range(0, 50, 10):
        store.append(block_of(text_keys(TEXTS[start : start + 10]), {"mean": (0, 1)}, seed=start), {"layers": 2})
    return store


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str = "there") -> LatentStore:
    """The same store as another machine sees it, which has read nothing of it yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    return store_at()


def test_another_machine_reads_what_one_has_written_and_copies_no_more_than_it_reads(monkeypatch, tmp_path):
    here = written()
    expected = here.read(TEXTS, "mean", [1, 0])
    there = elsewhere(monkeypatch, tmp_path)
    assert there.has_column(text_keys([*TEXTS, "another"]), "mean", 1).tolist() == [True] * 50 + [False]
    assert there.count_texts() == 50
    assert not list(there.path.glob("*.h5"))
    np.testing.assert_array_equal(there.read(TEXTS[:10], "mean", [1, 0]), expected[:, :10])
    assert len(list(there.path.glob("*.h5"))) <= 2  # the second tells the width
    np.testing.assert_array_equal(there.read(TEXTS, "mean", [1, 0]), expected)
    there.append(block_of(text_keys(["another"]), {"mean": (0, 1)}), {"layers": 2})
    assert here.has_column(text_keys(["another"]), "mean", 0).all()
    opened = LatentStore.open(there.path)
    assert (opened.identity, opened.layers) == (IDENTITY, 2)
    assert len(files_below(local_cache(URL), [".h5"])) == 6


def test_a_mirror_that_was_removed_is_made_again(monkeypatch, tmp_path):
    expected = written().read(TEXTS, "mean", [0])
    there = elsewhere(monkeypatch, tmp_path)
    there.read(TEXTS, "mean", [0])
    for path in there.path.iterdir():
        path.unlink()
    np.testing.assert_array_equal(elsewhere(monkeypatch, tmp_path).read(TEXTS, "mean", [0]), expected)


def objects(store: LatentStore, suffix: str) -> list[str]:
    import fsspec

    return sorted(name for name in fsspec.filesystem("memory").find("/bucket") if name.endswith(suffix))


@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_a_damaged_object_is_refused(monkeypatch, tmp_path, place):
    import fsspec

    storage = fsspec.filesystem("memory")
    for name in objects(written(), ".h5"):
        content = bytearray(storage.cat_file(name))
        content[int(place * len(content)) if place >= 0 else -1] ^= 4
        storage.pipe_file(name, bytes(content))
    there = elsewhere(monkeypatch, tmp_path)
    with pytest.raises(MachineError, match=r"memory://bucket/latents/.*not those its name was made from"):
        there.read(TEXTS, "mean", [0])
    assert not list(there.path.glob("*.h5"))


def test_a_damaged_or_missing_index_is_made_again(monkeypatch, tmp_path):
    import fsspec

    storage = fsspec.filesystem("memory")
    expected = written().read(TEXTS, "mean", [0])
    for damage in (b"", b"x" * 100, None):
        for name in objects(store_at(), ".index"):
            storage.rm_file(name) if damage is None else storage.pipe_file(name, damage)
        there = elsewhere(monkeypatch, tmp_path, f"there {damage!r:.4}")
        np.testing.assert_array_equal(there.read(TEXTS, "mean", [0]), expected)
        assert objects(there, ".index")


def test_what_the_storage_says_is_one_line(monkeypatch):
    import fsspec

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied\nand more")

    store = store_at()
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(MachineError, match=r"cannot be written: permission denied \(Access Denied\).*is safe"):
        store.append(block_of(text_keys(["a"]), {"mean": (0,)}), {"layers": 99})
    with pytest.raises(SpecError, match="nonsense://bucket"):
        store_at("nonsense://bucket/x").count_texts()


def test_a_storage_that_may_only_be_read_is_read_without_an_index(monkeypatch, tmp_path):
    import fsspec

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    storage = fsspec.filesystem("memory")
    expected = written().read(TEXTS, "mean", [0])
    for name in objects(store_at(), ".index"):
        storage.rm_file(name)
    monkeypatch.setattr(type(storage), "pipe_file", refuse)
    np.testing.assert_array_equal(elsewhere(monkeypatch, tmp_path).read(TEXTS, "mean", [0]), expected)


def test_a_folder_is_a_cache_of_this_machine():
    assert local_cache("cache") == Path("cache")
    assert local_cache("/a folder/b") == Path("/a folder/b")
    assert os.environ["XDG_CACHE_HOME"] in str(local_cache("s3://bucket/prefix"))
    assert local_cache("s3://bucket/prefix") == local_cache("s3://bucket/prefix/")
    assert local_cache("s3://bucket/prefix") != local_cache("s3://bucket/prefix2")
