"""Copies of latents that several shards hold are made one, and what is read stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from permafrost.data.latents import duplicates
from permafrost.data.latents.duplicates import columns_of, remove_duplicates
from permafrost.data.latents.maintenance import verify
from permafrost.data.store.block import write_shard
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from tests.support.blocks import IDENTITY, lengths_of, ragged_block

COLUMNS = [{"mean": (0, 1)}, {"mean": (1,), "last": (2,)}, {"mean": (0,), "tokens": (1, 2)}]

shards = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True), st.sampled_from(COLUMNS)),
    min_size=1,
    max_size=6,
)


def content(store: LatentStore) -> dict[tuple[str, bytes], bytes]:
    """View, layer and key -> bytes of the latent that a store has, which all of its copies share."""
    found: dict[tuple[str, bytes], bytes] = {}
    for shard in store.shards:
        for view, layer in columns_of(shard):
            for row, key in enumerate(shard.keys.tolist()):
                tokens = slice(*shard.offsets[row : row + 2]) if view == "tokens" else slice(row, row + 1)
                value = shard.layer(view, layer)[tokens].tobytes()
                value += (shard.ids[tokens].tobytes() + shard.spans[tokens].tobytes()) if view == "tokens" else b""
                assert found.setdefault((f"{view} {layer}", key), value) == value
    return found


@example([(["a"], COLUMNS[0]), (["a", "b"], COLUMNS[0]), (["b"], COLUMNS[0])])
@settings(deadline=None, max_examples=10)
@given(shards)
def test_one_copy_of_each_latent_stays(tmp_path_factory, written):
    store = LatentStore.at(tmp_path_factory.mktemp("store"), "model", IDENTITY)
    for texts, columns in written:
        block = replace(ragged_block(texts, columns), lengths=lengths_of(texts).astype(np.int32))
        for values in block.latents.values():  # equal texts have equal latents
            values[:] = np.array([ord(text) for text in texts])[:, None]
        if block.tokens:
            block.tokens.states[:] = np.repeat([ord(text) for text in texts], np.diff(block.tokens.offsets))[:, None]
        store.append(block, {"layers": 9})
    before, texts_before = content(LatentStore.open(store.path)), store.count_texts()
    remove_duplicates([store.path])
    after = LatentStore.open(store.path)
    assert content(after) == before
    assert after.count_texts() == texts_before
    assert not list(verify([store.path]))
    assert remove_duplicates([store.path]) == 0
    if all(columns == written[0][1] for _, columns in written):
        assert sum(shard.texts for shard in after.shards) == texts_before


def test_a_stop_in_the_middle_loses_nothing(tmp_path, monkeypatch):
    def interrupted(*given: object) -> Path:
        write_shard(*given)
        raise KeyboardInterrupt

    store = LatentStore.at(tmp_path, "model", IDENTITY)
    for texts in ("ab", "bc"):
        store.append(ragged_block(list(texts), {"mean": (0,)}), {"layers": 9})
    monkeypatch.setattr(duplicates, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove_duplicates([store.path])
    monkeypatch.undo()
    remove_duplicates([store.path])
    after = LatentStore.open(store.path)
    assert sorted(key for shard in after.shards for key in shard.keys.tolist()) == sorted(
        text_keys(list("abc")).tolist()
    )
