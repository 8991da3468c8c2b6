"""Locations of texts: the shard and the row of each text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from permafrost.data.store.index.segment import Keys

Indices = NDArray[np.int64]


class KeyedShard(Protocol):
    """What the index reads of a shard."""

    columns: dict[str, tuple[int, ...]]

    @property
    def keys(self) -> Keys:
        """``[text]``, in the order of the latents."""

    @property
    def keys_offset(self) -> int:
        """Offset of the keys in the file."""

    @property
    def bytes(self) -> int:
        """Size of the file."""

    def check_keys(self, keys: Keys, rows: Indices) -> None:
        """Raise a :class:`MachineError` if some rows have other keys."""


S = TypeVar("S", bound=KeyedShard)


@dataclass(frozen=True, eq=False)
class TextLocations(Generic[S]):
    """Shard and row of each text; a shard is opened when it is read."""

    keys: Keys
    """``[text]``."""

    names: Sequence[str]
    """Names of the shards."""

    shard_indices: Indices
    """``[text]``: index into ``names``; -1 if no shard holds the text."""

    rows: Indices
    """``[text]``: row in that shard."""

    open: Callable[[str], S]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether a shard holds the text, ``[text]``."""
        return self.shard_indices >= 0

    def by_shard(self) -> Iterator[tuple[S, Indices, Indices]]:
        """Yield each shard that holds some of the texts, with the indices of these and their rows.

        Raises:
            MachineError: a shard does not hold the texts that an index file says.
        """
        for shard_index, texts in group_by(self.shard_indices):
            if shard_index >= 0:
                shard, rows = self.open(self.names[shard_index]), self.rows[texts]
                shard.check_keys(self.keys[texts], rows)
                yield shard, texts, rows


def group_by(values: Indices) -> Iterator[tuple[int, Indices]]:
    """Yield each distinct value, ascending, with the ascending indices where it stands."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    for start, indices in zip(starts, np.split(order, starts[1:]), strict=False):
        yield int(ordered[start]), indices
