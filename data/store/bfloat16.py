"""bfloat16 without a numpy dtype: latents are float32 in memory, and their upper 16 bits, as ``uint16``, in a shard.

A bfloat16 is a float32 without its lower 16 bits, so a shift of bits converts exactly in both directions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(values: NDArray[Any], stored_dtype: str) -> NDArray[Any]:
    """Return latents as a shard stores them: bfloat16 as ``uint16``, others as they are.

    Args:
        values: latents whose dtype is ``stored_dtype``, or float32 that bfloat16 represents exactly.

    Raises:
        ValueError: latents of another dtype, or float32 that must be rounded to bfloat16 first.
    """
    if values.dtype != memory_dtype(stored_dtype):
        raise ValueError(f"latents of dtype {values.dtype} cannot be stored as {stored_dtype}.")
    if stored_dtype != "bfloat16":
        return values
    bits = values.view(np.uint32)
    if np.bitwise_or.reduce(bits, axis=None) & 0xFFFF:
        raise ValueError("latents must be rounded to bfloat16 before they are stored.")
    return (bits >> 16).astype("<u2")


def decode(stored: NDArray[Any]) -> NDArray[Any]:
    """Return stored latents as numbers: ``uint16`` as float32, other dtypes as they are, without a copy."""
    if stored.dtype != np.uint16:
        return stored
    values = np.zeros(stored.shape, np.float32)
    values.view("<u2")[..., 1::2] = stored
    return values


def memory_dtype(stored_dtype: str) -> np.dtype[Any]:
    """Return the dtype that latents of a stored dtype have in memory: float32 if it is bfloat16."""
    return np.dtype("float32" if stored_dtype == "bfloat16" else stored_dtype)


def largest_magnitude(values: NDArray[Any]) -> float:
    """Return the largest absolute value of finite floats; without the sign, floats are ordered as their bits are."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    largest = (values.view(unsigned) & (np.iinfo(unsigned).max >> 1)).max(keepdims=True)
    return float(largest.view(values.dtype).item())
