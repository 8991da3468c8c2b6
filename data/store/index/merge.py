"""Sorting of keys, and merging of sorted entries range by range, in memory that does not grow with their number."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from permafrost.data.store.index.segment import ENTRY, Entries, Keys

RANGE_ENTRIES = 1 << 16
"""Approximate number of entries that are merged at once; keys are digests, which are spread evenly."""


class SortedEntries(Protocol):
    """Entries sorted by key, a segment or in memory."""

    entries: int
    """Number of entries."""

    def between(self, low: bytes, high: bytes) -> Entries:
        """Return the entries with ``low <= key < high``; an empty ``high`` is no limit."""


def key_order(keys: Keys, ranks: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """Return the indices that sort keys; of equal keys, the lowest rank comes first, or else the first."""
    halves = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)  # sorts faster than bytes do
    order = np.argsort(halves[:, 0], kind="stable")
    ordered = halves[order, 0]
    if (ordered[1:] == ordered[:-1]).any():  # keys that occur twice, or begin alike
        return np.lexsort([*(() if ranks is None else (ranks,)), halves[:, 1], halves[:, 0]])
    return order


def entries_of(keys_of_shards: Sequence[Keys]) -> Entries:
    """Return the entries of the texts of some shards, in their order."""
    entries = np.empty(sum(map(len, keys_of_shards)), ENTRY)
    entries["key"] = np.concatenate(keys_of_shards)
    entries["shard"] = np.repeat(np.arange(len(keys_of_shards)), [len(keys) for keys in keys_of_shards])
    entries["row"] = np.concatenate([np.arange(len(keys)) for keys in keys_of_shards])
    return entries


def sort_entries(entries: Entries) -> Entries:
    """Sort entries by key; of equal keys, only the entry of the first shard stays."""
    ordered = entries[key_order(entries["key"], entries["shard"])]
    keys = np.ascontiguousarray(ordered["key"])
    return ordered[np.append(True, keys[1:] != keys[:-1])] if len(keys) else ordered


def merge(parts: Sequence[SortedEntries], numbers: Sequence[NDArray[np.int64]]) -> Iterator[Entries]:
    """Yield the entries of several parts as those of one, in sorted chunks, each key once.

    Args:
        numbers: for each part, the new number of each of its shards.
    """
    ranges = max(1, sum(part.entries for part in parts) // RANGE_ENTRIES)
    bounds = [b"", *(((number << 128) // ranges).to_bytes(16, "big") for number in range(1, ranges)), b""]
    for low, high in pairwise(bounds):
        chunks = []
        for part, new_numbers in zip(parts, numbers, strict=True):
            chunk = part.between(low, high).astype(ENTRY)
            chunk["shard"] = new_numbers[chunk["shard"]]
            chunks.append(chunk)
        yield sort_entries(np.concatenate(chunks))
