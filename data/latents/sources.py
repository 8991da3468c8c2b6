"""Sources of the values of a lazy array of latents: a latent store, or an array in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from permafrost.data.store.block import Latents
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.store import LatentStore

Indices = NDArray[np.int64]


class LatentSource(Protocol):
    """Values of some layers of one view of some texts, read on demand."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of layers and texts, and the width."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values that :meth:`read` returns."""

    @property
    def origin(self) -> str:
        """Where the values are, for :func:`repr`."""

    def read(self, layers: Indices, texts: Indices) -> Latents:
        """Return a new array of some layers and texts by their positions, ``[layer, text, width]``."""


@dataclass(frozen=True, eq=False)
class StoreSource:
    """Latents of texts in a store; each read goes to the shards."""

    store: LatentStore
    keys: Keys
    """``[text]``; a text may occur several times."""

    view: str
    layers: Sequence[int]

    @cached_property
    def _example(self) -> tuple[int, np.dtype[Any]]:
        shard = self.store.shard_with(self.view)
        return shard.width(self.view), shard.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """As :attr:`LatentSource.shape`."""
        return len(self.layers), len(self.keys), self._example[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As :attr:`LatentSource.dtype`: float32 if bfloat16 is stored."""
        return self._example[1]

    @property
    def origin(self) -> str:
        """The folder of the store."""
        return str(self.store.path)

    def read(self, layers: Indices, texts: Indices) -> Latents:
        """As :meth:`LatentSource.read`.

        Raises:
            StoreError: a text or a layer is no longer in the store.
            ShardError: a shard is damaged.
        """
        return self.store.read_keys(self.keys[texts], self.view, [self.layers[layer] for layer in layers])


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Latents of distinct texts in memory, and which of them each text is."""

    values: Latents
    """``[layer, distinct text, width]``."""

    order: Indices
    """``[text]``: index of the distinct text."""

    origin: str = "memory"

    @property
    def shape(self) -> tuple[int, int, int]:
        """As :attr:`LatentSource.shape`."""
        return self.values.shape[0], len(self.order), self.values.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """As :attr:`LatentSource.dtype`."""
        return self.values.dtype

    def read(self, layers: Indices, texts: Indices) -> Latents:
        """As :meth:`LatentSource.read`."""
        return self.values[layers[:, None], self.order[texts]]
