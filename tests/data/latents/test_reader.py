"""A store that is opened by its folder tells what it holds, and its latents are those that it was given."""

from pathlib import Path

import numpy as np
import pytest

from permafrost import inspection
from permafrost.data.latents.reader import open_store
from permafrost.data.spec import SpecError
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.errors import StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore

TEXTS = ["a dog", "it sleeps", "snow"]
VALUES = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def fill(cache: Path, identity: Identity) -> Path:
    """Three texts with one view of two layers, and the first of them with another view; the folder of the store."""
    folder = cache / "tiny" / identity.name
    lengths = np.array([4, 5, 6], np.int32)
    block = Block(keys=text_keys(TEXTS), lengths=lengths, columns={"mean": (0, 3)}, latents={"mean": VALUES})
    write_shard(folder, identity, {"layers": 4, "backbone": "tiny"}, block)
    other = {"mean": (1,), "cls": (3,)}
    values = {"mean": VALUES[:1, :1] + 1, "cls": VALUES[1:, :1] + 2}
    block = Block(keys=text_keys(TEXTS[:1]), lengths=lengths[:1], columns=other, latents=values)
    write_shard(folder, identity, {"layers": 4, "backbone": "tiny"}, block)
    return folder


def test_it_tells_what_the_store_holds(tmp_path, identity):
    folder = fill(tmp_path, identity)
    for path in (folder, folder.parent, tmp_path):
        reader = open_store(path)
        assert (reader.path, reader.identity, reader.backbone, len(reader)) == (folder, identity, "tiny", 3)
        assert reader.columns == {"cls": (3,), "mean": (0, 1, 3)}
        assert dict(zip(reader.keys, reader.lengths, strict=True)) == dict(
            zip(text_keys(TEXTS), (4, 5, 6), strict=True)
        )
        assert reader.peaks["mean"][3] == pytest.approx(np.abs(VALUES[1]).max(), rel=1e-5)
    assert repr(reader) == f"StoreReader({folder}: tiny, 3 texts; cls 1 layers; mean 3 layers)"


def test_its_latents_are_read_by_text_or_all_at_once(tmp_path, identity):
    reader = open_store(fill(tmp_path, identity))
    asked = reader.latents([*TEXTS[::-1], TEXTS[0]], "mean", [0, 3])
    np.testing.assert_array_equal(asked, VALUES[:, [2, 1, 0, 0]])
    assert asked.texts == [*TEXTS[::-1], TEXTS[0]]
    every = reader.latents(view="mean", layers=-1)
    assert (every.shape, every.texts, every.layers) == ((1, 3, 5), None, (3,))
    np.testing.assert_array_equal(every, LatentStore.open(reader.path).read_keys(reader.keys, "mean", [3]))
    assert list(every.dataframe().index) == [key.ljust(16, b"\0").hex() for key in reader.keys]
    assert reader.latents(view="mean").shape == (3, 1, 5)  # one text has all layers


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "several views: set view to one of cls, mean"),
        ({"view": "meen"}, "Did you mean 'mean'"),
        ({"view": "tokens"}, "read_tokens"),
        ({"view": "mean", "layers": [2]}, "layer 2 is out of range: there are layers 0, 1, 3"),
        ({"view": "mean", "layers": []}, "must name at least one"),
        ({"view": "cls", "texts": ["a dog", "a cat"]}, "1 of 2 texts have no latent of view cls, layer 3.*'a cat'"),
        ({"view": "mean", "texts": TEXTS}, "2 of 3 texts have no latent of view mean, layer 1"),
    ],
)
def test_what_it_does_not_hold_is_refused(asked, message, tmp_path, identity):
    with pytest.raises((StoreError, SpecError), match=message):
        open_store(fill(tmp_path, identity)).latents(**asked)


def test_a_folder_without_a_store_or_with_several_is_refused(tmp_path, identity):
    with pytest.raises(StoreError, match="there is no such folder"):
        open_store(tmp_path / "none")
    with pytest.raises(StoreError, match="holds no store"):
        open_store(tmp_path)
    first = fill(tmp_path, identity)
    second = fill(tmp_path, Identity(**vars(identity) | {"template": "so {text}"}))
    with pytest.raises(StoreError, match="holds 2 stores") as refused:
        open_store(tmp_path)
    assert all(str(folder) in str(refused.value) for folder in (first, second))


def test_the_interface_opens_what_it_wrote(tiny, tmp_path):
    texts = ["the small dog", "it sleeps", "the small dog"]
    found = inspection.latents(texts, str(tiny("bert")), ("mean", "cls"), cache=tmp_path)["cls"]
    reader = inspection.open_store(tmp_path)
    np.testing.assert_array_equal(reader.latents(texts, "cls"), found)
    assert len(reader) == 2
