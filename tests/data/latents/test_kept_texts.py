"""Texts kept in a store: read back with their latents, looked after like shards, and no part of any identity."""

import json

import numpy as np
import pandas as pd
import pytest

from permafrost import inspection
from permafrost.data.errors import MachineError
from permafrost.data.latents import kept_texts, maintenance
from permafrost.data.latents.reader import open_store
from permafrost.data.spec import SpecError
from permafrost.data.store.errors import ShardError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Segments
from tests.support.bench import Bench
from tests.support.blocks import block_of

TEXTS = ["a dog", "it sleeps", "snow"]


def store_of(folder, identity, texts) -> LatentStore:
    store = LatentStore.at(folder, "tiny", identity)
    store.append(block_of(text_keys(texts), {"mean": (0, 1)}), {"backbone": "tiny", "layers": 2})
    return store


def test_texts_of_every_kind_are_read_back(tmp_path, identity, monkeypatch):
    texts = [*TEXTS, Segments("who?", "a dog"), Segments("who?", "a dog", 1)]
    store = store_of(tmp_path, identity, texts)
    assert open_store(store.path).texts is None
    monkeypatch.setattr(kept_texts, "FILE_TEXTS", 2)
    assert kept_texts.keep_texts(store, [*texts[:2], texts[0]]) == 2
    assert kept_texts.keep_texts(store, texts) == 3
    assert kept_texts.keep_texts(store, texts) == 0
    assert len(kept_texts.text_files(store.path)) == 3
    reader = open_store(store.path)
    assert dict(zip(reader.keys, reader.texts, strict=True)) == dict(zip(text_keys(texts), texts, strict=True))
    every = reader.latents()
    assert every.texts == reader.texts
    np.testing.assert_array_equal(every, store.read(reader.texts, "mean", [0, 1]))
    table = pd.concat(map(pd.read_parquet, kept_texts.text_files(store.path)))
    assert set(table["text"]) == {*TEXTS, "who?"}


def test_how_many_are_unknown_is_told(tmp_path, identity):
    store = store_of(tmp_path, identity, TEXTS)
    kept_texts.keep_texts(store, TEXTS[1:])
    reader = open_store(store.path)
    assert (reader.texts_unknown, sorted(filter(None, reader.texts))) == (1, TEXTS[1:])
    assert reader.latents().texts is None
    details = maintenance.store_details(store.path)
    assert (details["texts"], details["texts_kept"], details["texts_unknown"]) == (3, 2, 1)


def test_a_damaged_file_is_found_set_aside_and_written_again(tmp_path, identity):
    store = store_of(tmp_path, identity, TEXTS)
    kept_texts.keep_texts(store, TEXTS)
    (path,) = kept_texts.text_files(store.path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match="cache repair"):
        _ = open_store(store.path).texts
    (finding,) = maintenance.verify([store.path])
    assert (finding.path, finding.other_version) == (path, False)
    assert maintenance.repair([store.path])[0] == [path.with_name(path.name + ".damaged")]
    assert open_store(store.path).texts is None
    assert kept_texts.keep_texts(store, TEXTS) == 3
    assert list(maintenance.verify([store.path])) == []
    assert len(maintenance.prune([store.path])[0]) == 1
    maintenance.remove_stores([store.path])
    assert not store.path.exists()


def test_a_full_disk_is_told_in_a_line(tmp_path, identity, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_texts, "write_atomically", full)
    with pytest.raises(MachineError, match="The latents are safe; free space"):
        kept_texts.keep_texts(store_of(tmp_path, identity, TEXTS), TEXTS)


def test_the_setting_keeps_texts_that_are_stored_already(tiny, tmp_path):
    bench = Bench(tmp_path, tiny("bert"))
    asked = {"backbone": str(tiny("bert")), "cache": tmp_path / "cache"}
    inspection.latents(TEXTS, **asked)
    shards = sorted(path.name for path in (tmp_path / "cache").rglob("*.h5"))
    reader = inspection.open_store(tmp_path / "cache")
    assert reader.texts is None
    inspection.latents(TEXTS, **asked, keep_texts=True)
    again = inspection.open_store(tmp_path / "cache")
    assert (sorted(again.texts), again.identity) == (TEXTS, reader.identity)
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.h5")) == shards
    with pytest.raises(SpecError, match="cache is None"):
        inspection.latents(TEXTS, str(tiny("bert")), cache=None, keep_texts=True)
    code, out, err = bench.command("extract", "pairs", "--json", settings=bench.of_pairs("extract.keep_texts=true"))
    assert code == 0, err
    (folder,) = json.loads(out)["stores"]
    code, out, _ = bench.command("cache", "show", folder, "--cache", str(tmp_path / "cache"), "--json")
    (shown,) = json.loads(out)["stores"]
    assert (shown["texts_kept"], shown["texts_unknown"]) == (shown["texts"], 0)
