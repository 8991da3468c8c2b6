"""Selection of a part of an array by numpy's rules of indexing, so that only that part need be read.

The layers and texts that an index names are read once each; the index is then applied to what was read.
"""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.spec import SpecError


@dataclass(frozen=True)
class Selection:
    """Positions to read on the first two axes, and the index to apply to the array of them."""

    layers: NDArray[np.int64]
    texts: NDArray[np.int64]
    index: tuple[Any, ...]


def select(key: Any, shape: tuple[int, int, int]) -> Selection:
    """Return what an index selects of an array ``[layer, text, width]``.

    Args:
        key: integers, slices, ``...``, None, and lists or arrays of integers or truth values, as numpy takes them.

    Raises:
        IndexError: an integer is out of range, or there are too many indices.
    """
    parts = _whole(key, shape)
    axis, index, read = 0, list[Any](), [np.arange(size) for size in shape[:2]]
    for part in parts:
        if part is None:
            index.append(None)
            continue
        if axis == len(shape):
            raise IndexError(f"too many indices for an array of {len(shape)} axes: layer, text and width.")
        if axis < len(read):
            read[axis], part = _positions(part, shape[axis], axis)
        index.append(part)
        axis += 1
    return Selection(read[0], read[1], tuple(index))


def _whole(key: Any, shape: Sequence[int]) -> list[Any]:
    """Return one index for each axis: truth values of several axes become integers, ``...`` becomes slices."""
    given = [
        part if part is None or part is Ellipsis or isinstance(part, slice) else np.asarray(part)
        for part in (key if isinstance(key, tuple) else (key,))
    ]
    axis, rest, parts = 0, len(shape) - sum(map(_axes, given)), list[Any]()
    for part in given:
        if isinstance(part, np.ndarray) and _axes(part) > 1:
            if part.shape != (expected := tuple(shape[axis : axis + part.ndim])):
                raise IndexError(f"a mask of shape {part.shape} does not fit axes of the shape {expected}.")
            parts += np.nonzero(part)
        else:
            parts.append(np.asarray(part, np.int64) if isinstance(part, np.ndarray) and not part.size else part)
        axis += rest if part is Ellipsis else _axes(part)
    axes = sum(part is not None and part is not Ellipsis for part in parts)
    places = [place for place, part in enumerate(parts) if part is Ellipsis]
    if len(places) > 1:
        raise IndexError("an index can only have a single ellipsis ('...').")
    for place in places:
        parts[place : place + 1] = [slice(None)] * (3 - axes)
    return parts


def _axes(part: Any) -> int:
    """Return the number of axes that a part of an index takes; ``...`` takes those that are left."""
    if isinstance(part, np.ndarray) and part.dtype == bool:
        return max(1, part.ndim)
    return int(part is not None and part is not Ellipsis)


def _positions(part: Any, size: int, axis: int) -> tuple[NDArray[np.int64], Any]:
    """Return the positions on an axis to read, and the index that selects from them what ``part`` does of all."""
    name = ("layers", "texts")[axis]
    if not isinstance(part, slice) and part.dtype == bool and part.shape != (size,):
        raise IndexError(f"a mask of {len(part) if part.ndim else 'no'} truth values does not fit {size:,} {name}.")
    try:
        chosen = np.arange(size)[part]
    except IndexError as error:
        raise IndexError(f"{name}: {error}; there are {size:,}, counted from 0.") from None
    if isinstance(part, slice):
        return chosen, slice(None)
    distinct, inverse = np.unique(chosen, return_inverse=True)
    inverse = inverse.reshape(chosen.shape)
    return distinct, int(inverse) if chosen.ndim == 0 else inverse


def layer_list(layers: Iterable[int] | int | str) -> list[int] | str:
    """Return a selection of layers as a plan has it, from one number, or from numbers of any library.

    Raises:
        SpecError: one is no whole number.
    """
    if isinstance(layers, str):
        return layers
    try:
        return list(map(operator.index, layers if isinstance(layers, Iterable) else [layers]))
    except TypeError as error:
        raise SpecError(f"layers must be whole numbers, all, or a range as 1..-1, got {layers!r}.") from error
