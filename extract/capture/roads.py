"""Roads: the ways in which texts can share a forward pass, and which of them a kind of model may allow.

Whether a road is exact for a model is proven, not assumed: see :mod:`permafrost.extract.proofs.proof`.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from permafrost.extract.architecture.architecture import Architecture


class Road(StrEnum):
    """A way in which several texts go through a model together."""

    TREE = "tree"
    """Rows that hold a prefix tree, each token with its ancestors as context: no shared prefix is computed twice."""

    WINDOWED_TREE = "tree, windowed"
    """As :attr:`TREE`; a token sees the ancestors in its window or chunk, measured in positions."""

    TYPED_TREE = "tree, by type of layer"
    """As :attr:`TREE`, with a mask for each type of layer: with or without a window or chunk."""

    UNMASKED = "padded, unmasked"
    """One text a row, padding on the right, and no mask: a causal model sees nothing of it."""

    ROWS = "back to back"
    """One row that holds all texts without padding; attention is kept within each, by a kernel of a GPU."""

    PADDED = "padded"
    """One text a row, padding on the right, masked."""

    EQUAL = "equal lengths"
    """One text a row, texts of one length together."""

    @property
    def is_tree(self) -> bool:
        """Whether rows hold prefix trees."""
        return self in (Road.TREE, Road.WINDOWED_TREE, Road.TYPED_TREE)

    @property
    def is_one_row(self) -> bool:
        """Whether all texts of a forward pass are in one row."""
        return self is Road.ROWS


def candidate_roads(architecture: Architecture, rows: bool = False) -> list[Road]:
    """Return the roads that may be exact for a model, the fastest first.

    Args:
        rows: whether the device has a kernel for attention within texts that lie back to back.
    """
    if not architecture.causal:
        back_to_back = [Road.ROWS] if rows and architecture.attention == "sdpa" else []  # others know no other one
        return [*back_to_back, Road.PADDED, Road.EQUAL]
    limited = architecture.window or architecture.chunk
    trees = [Road.TREE] + [Road.WINDOWED_TREE] * bool(limited) + [Road.TYPED_TREE] * bool(architecture.layer_types)
    return [*trees, Road.UNMASKED, Road.EQUAL]


def tree_masks(
    road: Road, architecture: Architecture, ancestors: NDArray[np.bool_], positions: NDArray[np.int64]
) -> dict[str, NDArray[np.bool_]]:
    """Return type of layer -> ``[row, query, key]``, True if a token attends to another; one type, "", if all do alike.

    Args:
        ancestors: ``[row, query, key]``, True for a token's ancestors and itself.
        positions: ``[row, token]``.
    """
    query, key = positions[:, :, None], positions[:, None]
    window, chunk = architecture.window, architecture.chunk
    windowed = ancestors & (query - key < window) if window else ancestors
    chunked = ancestors & (query // chunk == key // chunk) if chunk else ancestors
    if road is Road.TREE:
        return {"": ancestors}
    if road is Road.WINDOWED_TREE:
        return {"": windowed & chunked}
    return {
        name: windowed if "sliding" in name else chunked if "chunk" in name else ancestors
        for name in architecture.layer_types
    }
