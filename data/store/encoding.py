"""Stored forms of latents: what a shard holds of a vector in each stored dtype, and the numbers that it stands for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.store.bfloat16 import from_bits
from permafrost.data.store.int8 import dequantize, int8_vector, largest_number

VALUE_TYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4")
}  # fmt: skip
"""Stored dtype -> dtype of the bytes of each value, if values are stored one by one; numpy has no bfloat16."""


def decode(stored: NDArray[Any]) -> NDArray[Any]:
    """Return stored latents as numbers ``[..., width]``, of :func:`memory_dtype`; floats are not copied."""
    if stored.dtype.names:
        return dequantize(stored)
    return from_bits(stored) if stored.dtype == np.uint16 else stored


def memory_dtype(stored_dtype: str) -> np.dtype[Any]:
    """Return the dtype of the numbers that :func:`decode` returns: float32 if numpy lacks the stored dtype."""
    return np.dtype(stored_dtype if stored_dtype in ("float16", "float32") else "float32")


def is_stored_as(latents: NDArray[Any], stored_dtype: str) -> bool:
    """Return whether latents have the stored form of a dtype."""
    return latents.dtype.names is not None if stored_dtype == "int8" else latents.dtype == VALUE_TYPES[stored_dtype]


def vector_bytes(stored_dtype: str, width: int) -> int:
    """Return the bytes that a stored vector takes."""
    return int8_vector(width).itemsize if stored_dtype == "int8" else VALUE_TYPES[stored_dtype].itemsize * width


def empty_vectors(shape: tuple[int, ...], stored: str, width: int) -> NDArray[Any]:
    """Return an array for stored vectors of a dtype, whose content is undefined."""
    if stored == "int8":
        return np.empty(shape, int8_vector(width))
    return np.empty((*shape, width), VALUE_TYPES[stored])


def vectors_in(
    content: NDArray[np.uint8], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], stored: str, width: int
) -> NDArray[Any]:
    """Return stored vectors that lie among other bytes, without a copy.

    Args:
        offset: of the first one.
        shape, strides: numbers of vectors, and bytes from one to the next, on each axis.
        stored: their dtype.
    """
    if stored == "int8":
        return np.ndarray(shape, int8_vector(width), content, offset, strides)
    dtype = VALUE_TYPES[stored]
    return np.ndarray((*shape, width), dtype, content, offset, (*strides, dtype.itemsize))


def largest_magnitude(stored: NDArray[Any]) -> float:
    """Return the largest absolute value of finite latents; without the sign, floats are ordered as their bits are."""
    if stored.dtype.names:
        return largest_number(stored)
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    largest = (stored.view(unsigned) & (np.iinfo(unsigned).max >> 1)).max(keepdims=True)
    return float(decode(largest.view(stored.dtype)).item())
