"""Lazy arrays: they index as numpy does, read no more than is asked, and become arrays of other libraries."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.latents.array import LatentArray
from permafrost.data.latents.sources import MemorySource, StoreSource
from permafrost.data.spec import SpecError
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore

TEXTS = ["a dog", "it sleeps", "a dog", "snow"]
LAYERS = (0, 2, 5)
VALUES = np.random.default_rng(0).normal(size=(3, 3, 5)).astype(np.float32)
ORDER = np.array([0, 1, 0, 2])


def in_memory() -> LatentArray:
    return LatentArray(MemorySource(VALUES, ORDER), "mean", LAYERS, TEXTS)


def in_store(folder: Path, identity: Identity) -> LatentArray:
    """The same values in two shards, each of which has a part of the texts."""
    distinct = list(dict.fromkeys(TEXTS))
    for part in (slice(0, 2), slice(2, 3)):
        keys, values = text_keys(distinct[part]), np.ascontiguousarray(VALUES[:, part])
        lengths = np.full(len(keys), 3, np.int32)
        block = Block(keys=keys, lengths=lengths, columns={"mean": LAYERS}, latents={"mean": values})
        write_shard(folder / identity.name, identity, {"layers": 6, "backbone": "tiny"}, block)
    store = LatentStore.open(folder / identity.name)
    return LatentArray(StoreSource(store, text_keys(TEXTS), "mean", LAYERS), "mean", LAYERS, TEXTS)


def index_of(size: int) -> st.SearchStrategy[Any]:
    integers = st.integers(-size, size - 1)
    return st.one_of(
        integers,
        st.slices(size),
        st.lists(integers, max_size=4),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
        st.lists(integers, min_size=2, max_size=2).map(lambda pair: np.array(pair)[:, None]),
    )


KEYS = st.one_of(
    st.tuples(index_of(3)),
    st.tuples(index_of(3), index_of(4)),
    st.tuples(index_of(3), index_of(4), index_of(5)),
    st.tuples(st.just(...), index_of(5)),
    st.tuples(index_of(3), st.just(...), st.none()),
    st.lists(st.booleans(), min_size=12, max_size=12).map(lambda bits: (np.array(bits).reshape(3, 4),)),
)


@given(KEYS)
def test_every_index_gives_what_numpy_gives(key):
    whole, lazy = VALUES[:, ORDER], in_memory()
    try:
        wanted = whole[key]
    except IndexError:
        with pytest.raises(IndexError):
            lazy[key]
        return
    given = lazy[key]
    np.testing.assert_array_equal(given, wanted)
    assert np.shape(given) == np.shape(wanted)


@pytest.mark.parametrize("key", [3, (0, 4), (slice(None), [0, 9]), ([True],), (0, 0, 0, 0), (..., ...), "layer"])
def test_an_index_out_of_range_is_refused(key):
    with pytest.raises(IndexError):
        in_memory()[key]


def test_only_the_layers_and_texts_that_are_asked_are_read(tmp_path, identity, monkeypatch):
    lazy = in_store(tmp_path, identity)
    read = list[tuple[int, int]]()
    layer_of = Shard.layer

    def watched(shard: Shard, view: str, layer: int) -> Any:
        read.append((shard.texts, layer))
        return layer_of(shard, view, layer)

    monkeypatch.setattr(Shard, "layer", watched)
    assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size, len(lazy)) == ((3, 4, 5), np.float32, 3, 60, 3)
    assert repr(lazy) == f"LatentArray(mean: 3 layers, 4 texts, width 5; float32, {tmp_path / identity.name})"
    assert read == []
    np.testing.assert_array_equal(lazy[1, [3]], VALUES[1, [2]])
    assert read == [(1, 2)]
    np.testing.assert_array_equal(np.stack(list(lazy)), VALUES[:, ORDER])


def test_it_becomes_an_array_of_other_libraries(tmp_path, identity):
    whole = VALUES[:, ORDER]
    for lazy in (in_store(tmp_path, identity), in_memory()):
        np.testing.assert_array_equal(np.asarray(lazy, np.float64), whole.astype(np.float64))
        np.testing.assert_array_equal(np.from_dlpack(lazy), whole)
        assert torch.equal(torch.from_dlpack(lazy), torch.from_numpy(whole))
        np.testing.assert_array_equal(2 * lazy - 1, 2 * whole - 1)
        np.testing.assert_array_equal(lazy.mean(1), whole.mean(1))
        assert lazy.tobytes() == whole.tobytes()
        assert (lazy == whole).all()
        with pytest.raises(ValueError, match="copy=False"):
            np.asarray(lazy, copy=False)
        assert not hasattr(lazy, "__array_interface__")  # the memory of a copy that nobody holds


def test_tables_name_layers_and_texts():
    lazy = in_memory()
    table = lazy.dataframe(layer=2)
    assert list(table.index) == TEXTS
    assert (table.index.name, table.columns.name, list(table.columns)) == ("text", "dimension", [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(table.to_numpy(), VALUES[1, ORDER])
    np.testing.assert_array_equal(lazy.dataframe(-1).to_numpy(), VALUES[2, ORDER])
    with pytest.raises(SpecError, match="set layer to one of 0, 2, 5"):
        lazy.dataframe()
    with pytest.raises(SpecError, match="there is no layer 1: set layer to one of 0, 2, 5"):
        lazy.dataframe(layer=1)
    array = pytest.importorskip("xarray") and lazy.xarray()
    assert (array.dims, list(array.layer), list(array.text)) == (("layer", "text", "dimension"), list(LAYERS), TEXTS)
    np.testing.assert_array_equal(array.sel(layer=5, text="snow"), VALUES[2, 2])


@pytest.mark.parametrize(
    "mask", [np.eye(3, 3, dtype=bool), np.zeros((2, 4), bool), np.ones((3, 4, 1), bool), (..., np.ones((4, 4), bool))]
)
def test_a_mask_of_several_axes_that_does_not_fit_is_refused_as_numpy_refuses_it(mask):
    array = in_memory()
    with pytest.raises(IndexError):
        np.asarray(array)[mask]
    with pytest.raises(IndexError):
        array[mask]


@pytest.mark.parametrize("kind", ["memory", "store", "names found later"])
def test_a_lazy_array_goes_to_another_process_by_its_place_and_not_by_its_values(tmp_path, identity, kind):
    array = in_memory() if kind == "memory" else in_store(tmp_path, identity)
    if kind == "names found later":
        array = LatentArray(array._source, "mean", LAYERS, lambda: TEXTS)
    expected = np.asarray(array)  # shards are mapped by now
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(np.asarray(again), expected)
    assert (again.layers, again.texts, again.view) == (array.layers, array.texts, array.view)
