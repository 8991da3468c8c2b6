"""Capacity: the bytes, files and requests that latents take, by arithmetic from a few numbers."""

import math
from dataclasses import dataclass

import numpy as np

from permafrost.data.plan.plan import TOKENS, Columns, ExtractSpec
from permafrost.data.store.encoding import vector_bytes
from permafrost.data.store.shard_layout import KEY_BYTES

INT32, INT64 = np.dtype(np.int32).itemsize, np.dtype(np.int64).itemsize


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Size of the latents of some texts on disk."""

    texts: int
    tokens: int
    """Number of tokens that the views see, of all texts."""

    columns: Columns
    width: int
    stored_dtype: str
    shard_bytes: int = ExtractSpec.shard_bytes

    @property
    def bytes_by_view(self) -> dict[str, int]:
        """View -> bytes of its latents; of ``tokens``, with ids and character spans."""
        state = vector_bytes(self.stored_dtype, self.width)
        sizes = {view: len(layers) * state * self.texts for view, layers in self.columns.items()}
        if TOKENS in sizes:
            sizes[TOKENS] = len(self.columns[TOKENS]) * state * self.tokens
            sizes[TOKENS] += self.tokens * 3 * INT32 + (self.texts + 1) * INT64
        return sizes

    @property
    def bytes(self) -> int:
        """Bytes of all views and of keys and lengths, except for a few kB a shard."""
        return sum(self.bytes_by_view.values()) + self.texts * (KEY_BYTES + INT32)

    @property
    def shards(self) -> int:
        """Number of shards, at least: one is committed after ``extract.shard_seconds`` too."""
        return math.ceil(self.bytes / self.shard_bytes)

    @property
    def requests(self) -> int:
        """Number of objects that are put on an object storage, about: a shard, its index file, and after about every
        second one an index file that takes the place of earlier ones.
        """
        return math.ceil(self.shards * 2.5)


def hours(tokens: int, rate: float, workers: int = 1) -> float:
    """Return the hours that tokens take at a rate of tokens a second of each worker."""
    return tokens / rate / workers / 3600
