"""What is exported: vectors of rows, block by block, and the columns beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 16 << 20
"""Bytes of vectors that are read at once."""

LEAST_ROWS, MOST_ROWS = 256, 65_536
"""Bounds of the number of rows that are read at once."""

Bits = Literal["float16", "bfloat16", "float32"]

SIZES: dict[Bits, int] = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Precision of a vector -> bytes of a value."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Vectors of all rows under one name: ``[layer, row, width]``, or ``[row, width]`` if there are no layers."""

    name: str
    layers: tuple[int, ...] | None
    rows: int
    width: int
    bits: Bits
    """Precision of the values; those of bfloat16 are float32 in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        return (self.rows, self.width) if self.layers is None else (len(self.layers), self.rows, self.width)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory, in all layers."""
        return len(self.layers or (0,)) * self.width * (2 if self.bits == "float16" else 4)


class VectorSource(Protocol):
    """Vectors of rows, and columns of what else is known of the rows."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors, each of the same number of rows."""

    def read(self, start: int, stop: int) -> Mapping[str, NDArray[np.floating[Any]]]:
        """Return the rows ``start`` to ``stop`` of each tensor, name -> ``[layer, row, width]`` (one layer if none)."""

    @property
    def schema(self) -> Any:
        """Schema of the columns, a ``pyarrow.Schema``."""

    def columns(self, start: int, stop: int) -> Any:
        """Return the columns of the rows ``start`` to ``stop``, a ``pyarrow.Table``."""


def block_rows(tensors: Sequence[Tensor]) -> int:
    """Return how many rows are read at once."""
    row_bytes = sum(tensor.row_bytes for tensor in tensors)
    return min(max(BLOCK_BYTES // row_bytes, LEAST_ROWS), MOST_ROWS)
