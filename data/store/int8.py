"""8 bits a value: groups of adjacent dimensions, each with a scale, and with its largest value apart.

In a few dimensions, language models have values hundreds of times as large as elsewhere. Under a scale that had to
reach these, the others would lose their digits. What is stored follows from the vector alone: no sample of texts
decides, and no other text of its shard.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.store.bfloat16 import bits_of, from_bits

GROUP = 64
"""Number of adjacent dimensions that share a scale; the last group of a vector may have fewer."""

STEPS = 127
"""Number of steps of a scale on either side of zero."""

OUTLIER = -128
"""Code of a value that is the outlier of its group: the one of the largest magnitude, of equal ones the positive."""

SMALLEST_SCALE = np.finfo(np.float32).tiny
"""Smallest scale of a group that is not all zeros; below it, floats lose digits."""

LARGEST_OF_INT8 = 2.0**127
"""Largest magnitude that can be stored: any code times its scale is then a float."""

ROUNDING, SMALLEST_ROUNDING = 2.0**-8, 2.0**-134
"""Largest error of rounding to bfloat16, as a share of the result; and that of the smallest numbers."""

CHUNK = 1 << 16
"""Number of values that are converted at once, which fit the processor's cache."""

VALUES, SCALES, OUTLIERS = "values", "scales", "outliers"
"""Parts of a stored vector: codes ``[width]``, and bfloat16 ``[group]``; a code times its scale is exact in float32."""

Vectors = NDArray[np.void]
"""Array of :func:`int8_vector`."""


def int8_vector(width: int) -> np.dtype[np.void]:
    """Return the dtype of a stored vector."""
    groups = -(-width // GROUP)
    return np.dtype([(VALUES, "i1", (width,)), (SCALES, "<u2", (groups,)), (OUTLIERS, "<u2", (groups,))])


def quantize(values: NDArray[np.float32]) -> Vectors:
    """Return vectors ``[..., width]`` in 8 bits, ``[...]``.

    Args:
        values: none larger than :data:`LARGEST_OF_INT8`, or NaN.
    """
    width = values.shape[-1]
    stored, vectors = np.empty(values.shape[:-1], int8_vector(width)), values.reshape(-1, width)
    for part in _chunks(len(vectors), width):
        _quantize(vectors[part], stored.reshape(-1)[part])
    return stored


def _quantize(values: NDArray[np.float32], target: Vectors) -> None:
    groups = _in_groups(values)
    high, low = groups.max(-1), groups.min(-1)
    outliers = np.where(high >= -low, high, low)
    is_outlier = groups == outliers[..., None]
    codes = np.where(is_outlier, np.float32(0), groups)
    largest = np.maximum(codes.max(-1), -codes.min(-1))
    scales = bits_of(np.where(largest > 0, np.maximum(largest / np.float32(STEPS), SMALLEST_SCALE), 0))
    steps = from_bits(scales)[..., None]
    codes /= np.where(steps > 0, steps, 1)
    np.copyto(np.rint(codes, out=codes), np.float32(OUTLIER), where=is_outlier)
    target[VALUES] = _without_groups(codes, values.shape[-1])
    target[SCALES], target[OUTLIERS] = scales, bits_of(outliers)


def dequantize(stored: Vectors) -> NDArray[np.float32]:
    """Return the numbers ``[..., width]`` that stored vectors ``[...]`` stand for."""
    width, vectors = stored.dtype[VALUES].shape[0], stored.reshape(-1)
    values = np.empty((len(vectors), width), np.float32)
    for part in _chunks(len(vectors), width):
        codes = _in_groups(vectors[part][VALUES])
        numbers = codes.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale, which whoever reads a file looks for
            numbers *= from_bits(vectors[part][SCALES])[..., None]
        np.copyto(numbers, from_bits(vectors[part][OUTLIERS])[..., None], where=codes == OUTLIER)
        values[part] = _without_groups(numbers, width)
    return values.reshape(*stored.shape, width)


def largest_errors(stored: Vectors) -> NDArray[np.float32]:
    """Return by how much each number may differ from the value that was stored, ``[..., width]``.

    It is half a step of its group, or half a step of bfloat16 if it is the outlier.
    """
    codes = _in_groups(stored[VALUES])
    steps = from_bits(stored[SCALES])[..., None] / 2
    outliers = np.maximum(np.abs(from_bits(stored[OUTLIERS])) * np.float32(ROUNDING), np.float32(SMALLEST_ROUNDING))
    errors = np.where(codes == OUTLIER, outliers[..., None], steps)
    return _without_groups(errors, stored.dtype[VALUES].shape[0])


def largest_number(stored: Vectors) -> float:
    """Return the largest absolute value of numbers that :func:`quantize` has stored."""
    return float(max(np.abs(from_bits(stored[OUTLIERS])).max(), from_bits(stored[SCALES]).max() * STEPS))


def _chunks(vectors: int, width: int) -> list[slice]:
    size = max(1, CHUNK // width)
    return [slice(start, start + size) for start in range(0, vectors, size)]


def _in_groups(values: NDArray[Any]) -> NDArray[Any]:
    """Return ``[..., width]`` as ``[..., group, GROUP]``; what the last group lacks are zeros."""
    missing = -values.shape[-1] % GROUP
    if missing:
        values = np.pad(values, [*([(0, 0)] * (values.ndim - 1)), (0, missing)])
    return values.reshape(*values.shape[:-1], -1, GROUP)


def _without_groups(groups: NDArray[Any], width: int) -> NDArray[Any]:
    return groups.reshape(*groups.shape[:-2], -1)[..., :width]
