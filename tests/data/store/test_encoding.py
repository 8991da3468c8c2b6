"""Stored forms: how near each is to what was stored, and that the bytes of a vector depend on it alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from permafrost.data.latents import maintenance
from permafrost.data.store import int8
from permafrost.data.store.block import Block
from permafrost.data.store.encoding import decode, largest_magnitude, memory_dtype, vector_bytes
from permafrost.data.store.errors import ShardError
from permafrost.data.store.identity import STORED_DTYPES
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.extract.capture.rounding import LARGEST, encode
from tests.support.blocks import IDENTITY

WIDTHS = (1, 4, 63, 64, 70, 192)


def drawn(rng: np.random.Generator, vectors: int, width: int) -> np.ndarray:
    """Vectors of all sizes, some with dimensions that are thousands of times as large as the others, some all zeros."""
    values = rng.normal(size=(vectors, width)) * 10.0 ** rng.integers(-3, 3, (vectors, 1))
    values[rng.random((vectors, width)) < 0.02] *= 3_000
    values[rng.random((vectors, width)) < 0.1] = 0
    values[::5] = 0
    return np.clip(values, -60_000, 60_000).astype(np.float32)


def largest_error(values: np.ndarray, dtype: str) -> np.ndarray:
    """Half the distance of neighbouring numbers of a dtype; in int8, computed from the values by its definition."""
    if dtype == "float32":
        return np.zeros(values.shape)
    if dtype in ("float16", "bfloat16"):
        digits, smallest = (11, 2.0**-25) if dtype == "float16" else (8, 2.0**-134)
        return np.maximum(np.abs(values) * 2.0**-digits, smallest)
    bounds = np.empty(values.shape)
    for start in range(0, values.shape[1], int8.GROUP):
        group = np.abs(values[:, start : start + int8.GROUP].astype(float))
        largest = np.sort(group, axis=1)
        others = largest[:, -2:-1] if group.shape[1] > 1 else np.zeros((len(group), 1))
        step = np.maximum(others / 127 * (1 + 2.0**-8), 2.0**-126)
        bounds[:, start : start + int8.GROUP] = np.where(group == largest[:, -1:], group * 2.0**-8, step / 2)
    return np.maximum(bounds, 2.0**-127)


@pytest.mark.parametrize("dtype", STORED_DTYPES)
@given(seed=st.integers(0, 1 << 16), width=st.sampled_from(WIDTHS))
@settings(max_examples=30)
def test_what_is_read_is_within_half_a_step_of_what_was_stored_and_zeros_are_exact(dtype, seed, width):
    values = drawn(np.random.default_rng(seed), 12, width)
    stored = encode(values, dtype)
    found = decode(stored)
    assert (found.dtype, found.shape) == (memory_dtype(dtype), values.shape)
    assert stored.nbytes == 12 * vector_bytes(dtype, width)
    error = np.abs(found.astype(float) - values)
    assert (error <= largest_error(values, dtype)).all()
    np.testing.assert_array_equal(found[values == 0], 0)
    assert largest_magnitude(stored) == pytest.approx(np.abs(found).max(), rel=1e-6, abs=1e-30)
    if dtype == "int8":
        assert (error <= int8.largest_errors(stored)).all()


@given(bits=st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=200))
@settings(max_examples=100)
@example(bits=[0x00000001, 0x80000001, 0x00800000, 0x007FFFFF])  # the smallest floats
@example(bits=[0x7F000000, 0xFF000000, 0x7F000000, 0x42FE0000])  # the largest that may be stored, of both signs
def test_eight_bits_hold_any_float_within_what_they_say_of_themselves(bits):
    values = np.nan_to_num(np.array([bits], np.uint32).view(np.float32))
    values = np.clip(values, -LARGEST["int8"], LARGEST["int8"])
    stored = int8.quantize(values)
    error = np.abs(int8.dequantize(stored).astype(float) - values)
    assert (error <= int8.largest_errors(stored).astype(float)).all()


def test_a_massive_activation_costs_the_other_dimensions_no_digits():
    values = np.random.default_rng(0).normal(size=(50, 128)).astype(np.float32)
    errors = [np.abs(decode(encode(values, "int8")) - values)]
    values[:, 3] = 3_000
    errors.append(np.abs(decode(encode(values, "int8")) - values))
    others = np.arange(128) != 3  # their step is that of the largest of them, before of the second largest
    assert errors[1][:, others].mean() <= errors[0][:, others].mean() * 1.2


@pytest.mark.parametrize("dtype", STORED_DTYPES)
def test_the_bytes_of_a_text_depend_on_neither_its_neighbours_nor_its_shard(dtype, tmp_path, monkeypatch):
    values = drawn(np.random.default_rng(1), 8, 70)[None]
    texts = [str(text) for text in range(8)]

    def stored(folder: str, *parts: list[int]) -> list[bytes]:
        store = LatentStore.at(tmp_path / folder, "m", replace(IDENTITY, stored_dtype=dtype))
        for part in parts:
            latents = {"mean": encode(np.ascontiguousarray(values[:, part]), dtype)}
            keys, lengths = text_keys([texts[text] for text in part]), np.ones(len(part), np.int32)
            store.append(Block(keys=keys, lengths=lengths, columns={"mean": (0,)}, latents=latents), {"layers": 1})
        rows = {key: row for shard in store.shards for key, row in zip(shard.keys, shard.layer("mean", 0), strict=True)}
        np.testing.assert_array_equal(store.read(texts, "mean", [0]), decode(encode(values, dtype)))
        return [rows[key].tobytes() for key in text_keys(texts)]

    together = stored("together", list(range(8)))
    monkeypatch.setattr(int8, "CHUNK", 1)
    assert stored("alone", *([text] for text in range(8))) == together
    assert stored("reversed", [7, 6, 5, 4], [0, 1, 2, 3]) == together


@pytest.mark.parametrize("part", [int8.VALUES, int8.SCALES, int8.OUTLIERS])
def test_a_damaged_scale_is_refused_as_any_byte_is(part, tmp_path):
    store = LatentStore.at(tmp_path, "m", replace(IDENTITY, stored_dtype="int8"))
    latents = {"mean": encode(drawn(np.random.default_rng(2), 6, 70)[None], "int8")}
    keys = text_keys(list("abcdef"))
    block = Block(keys=keys, lengths=np.ones(6, np.int32), columns={"mean": (0,)}, latents=latents)
    path = store.append(block, {"layers": 1})
    with h5py.File(path) as file:
        offset = file["latents/mean"].id.get_offset() + 3 * latents["mean"].dtype.itemsize
    damage(path, offset + latents["mean"].dtype.fields[part][1])
    with pytest.raises(ShardError, match=r"latents/mean\[0\] does not match its checksum"):
        LatentStore.open(store.path).read(list("abcdef"), "mean", [0])
    (finding,) = maintenance.verify([store.path])
    assert "latents/mean[0] does not match its checksum" in finding.problems


def damage(path: Path, offset: int) -> None:
    content: Any = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
