"""Look-up of texts in shards: a 16-byte key for each text, and the shard and row where each key is stored.

If several shards hold a text, the first one by name counts, for every reader.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.store.shard import Shard
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.text import Segments, Text

Keys = NDArray[np.bytes_]

SortedKeys = tuple[Keys, NDArray[np.int64], NDArray[np.int64]]
"""Sorted keys of several shards, and the shard and the row of each."""


@dataclass(frozen=True, eq=False)
class TextLocations:
    """Shard and row of each text."""

    shards: Sequence[Shard]

    shard_indices: NDArray[np.int64]
    """``[text]``: index into ``shards``; -1 if no shard holds the text."""

    rows: NDArray[np.int64]
    """``[text]``: row in that shard."""

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether a shard holds the text, ``[text]``."""
        return self.shard_indices >= 0


class KeyIndex:
    """Index of the keys in shards; the keys of each set of shards are sorted once and kept."""

    def __init__(self) -> None:
        self._sorted_keys = cache(_sorted_keys)

    def __reduce__(self) -> tuple[type["KeyIndex"], tuple[()]]:
        return KeyIndex, ()

    def locate(self, keys: Keys, shards: Sequence[Shard]) -> TextLocations:
        """Find the shard and row of each key, ``[text]``, in shards in order of their names."""
        if not shards:
            return TextLocations(shards, np.full(len(keys), -1), np.zeros(len(keys), np.int64))
        stored_keys, shard_indices, rows = self._sorted_keys(tuple(shards))
        positions = np.minimum(np.searchsorted(stored_keys, keys), len(stored_keys) - 1)
        found = stored_keys[positions] == keys
        return TextLocations(shards, np.where(found, shard_indices[positions], -1), rows[positions])

    def locate_columns(
        self, keys: Keys, shards: Sequence[Shard], columns: Sequence[tuple[str, int]]
    ) -> Iterator[TextLocations]:
        """Yield the locations of keys for each column, a view and a layer, like :meth:`locate`.

        Columns that the same shards hold share one object.
        """
        locate = cache(lambda candidates: self.locate(keys, candidates))
        for view, layer in columns:
            yield locate(tuple(shard for shard in shards if layer in shard.columns.get(view, ())))


def _sorted_keys(shards: tuple[Shard, ...]) -> SortedKeys:
    keys = np.concatenate([shard.keys for shard in shards])
    shard_indices = np.repeat(np.arange(len(shards)), [shard.texts for shard in shards])
    rows = np.concatenate([np.arange(shard.texts) for shard in shards])
    order = np.argsort(keys, kind="stable")
    return keys[order], shard_indices[order], rows[order]


def text_keys(texts: Sequence[Text], in_windows: bool = False) -> Keys:
    """Return a 16-byte key (xxh3) for each text, ``[text]``; the windows of two segments have different keys.

    Args:
        in_windows: whether the store is one of windows. There a text of one segment has a key of its own kind, because
            earlier versions cut such a text, and stored it under the same identity.
    """
    keys = [
        xxhash.xxh3_128_digest(
            text.encode("utf-8", "surrogatepass") if isinstance(text, str) and not in_windows else _list_bytes(text)
        )
        for text in texts
    ]
    return np.frombuffer(b"".join(keys), f"S{KEY_BYTES}")


def key_name(key: bytes) -> str:
    """Return a key as 32 hex digits; numpy leaves out the zero bytes at its end."""
    return key.ljust(KEY_BYTES, b"\0").hex()


def _list_bytes(text: Text) -> bytes:
    """Return bytes that are different for different texts, and no string's: byte 255 occurs in no UTF-8."""
    parts = [text.first, text.second, text.window] if isinstance(text, Segments) else [text]
    return b"\xff" + json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")
