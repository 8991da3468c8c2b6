"""bfloat16 without a numpy dtype: the upper 16 bits of a float32, as ``uint16``."""

import numpy as np
from numpy.typing import NDArray


def bits_of(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bfloat16 next to each value, of two the even one; values are no NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 as float32, which holds it exactly."""
    values = np.zeros(bits.shape, np.float32)
    values.view("<u2")[..., 1::2] = bits
    return values
