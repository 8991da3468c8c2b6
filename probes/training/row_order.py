"""Order of the training rows of an epoch: shuffled within blocks of neighbouring rows if there are many.

Up to :data:`BLOCK_ROWS` rows are one permutation. More are cut into pieces of neighbouring rows, which are shuffled and
put together to blocks, and the rows of each block are shuffled: a block can be read from disk piece by piece.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 1 << 16
"""Minimum number of rows of a block."""

PIECE_ROWS = 1 << 10
"""Minimum number of neighbouring rows of a piece."""

NO_ROW = -1


def row_blocks(rows: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Draw the order of the rows of an epoch, block after block."""
    if rows <= BLOCK_ROWS:
        return [generator.permutation(rows)]
    count = rows // PIECE_ROWS
    bounds = np.arange(count + 1) * rows // count
    pieces = np.array_split(generator.permutation(count), max(1, count // (BLOCK_ROWS // PIECE_ROWS)))
    blocks = [np.concatenate([np.arange(bounds[piece], bounds[piece + 1]) for piece in block]) for block in pieces]
    return [generator.permutation(block) for block in blocks]


def rows_to_come(orders: Sequence[Sequence[NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return ``[order, row]``: beside each row of an order, a row of its next block, ascending within that block.

    Rows of the last block have :data:`NO_ROW` beside them. If all rows beside those of a batch are read with it, the
    next block has been read when it begins, piece by piece.

    Args:
        orders: ``[order]``, the blocks of :func:`row_blocks`.
    """
    return np.stack([_rows_to_come(blocks) for blocks in orders])


def _rows_to_come(blocks: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    coming = [
        np.sort(following)[np.arange(len(block)) * len(following) // len(block)]
        for block, following in pairwise(blocks)
    ]
    return np.concatenate([*coming, np.full(len(blocks[-1]), NO_ROW)])
