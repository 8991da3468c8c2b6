"""Key index of a store: finds the shard and row of each text, through index files where there are many shards.

The shards are the store, and the index is made of them: a shard that no index file describes is opened and its keys
are read; when these become many, an index file is written. A file that is missing, damaged or describes other shards is
made again. What a file says of a text is believed only if the shard has the key of the text in that place.

If several shards hold a text, the first one by name counts, for every reader.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Generic

import numpy as np

from permafrost.data.store.index.folder import StoreFolder
from permafrost.data.store.index.locations import Indices, KeyedShard, S, TextLocations, group_by
from permafrost.data.store.index.merge import entries_of, key_order, merge, sort_entries
from permafrost.data.store.index.segment import Entries, Keys, Segment, SegmentError, entries_between
from permafrost.data.store.index.segment_files import SegmentFiles

MOST_SHARDS = 16
"""Number of shards without an index file from which one is written: to open a shard takes 2 ms."""

MOST_TEXTS = 1 << 16
"""Number of texts without an index file from which one is written: their sorted keys are in memory."""

Column = tuple[str, int]
"""View and layer."""


class KeyIndex(Generic[S]):
    """Index of the keys in the shards of a folder.

    Args:
        suffix: of the names of shards.
        open_shard: opens a shard by its name.
        only: name of the one file that is looked at; empty looks at every shard.
    """

    def __init__(self, folder: StoreFolder, suffix: str, open_shard: Callable[[str], S], only: str = "") -> None:
        self._folder, self._suffix, self._open, self._only = folder, suffix, open_shard, only
        self._files = SegmentFiles(folder)
        self._unindexed: dict[tuple[str, ...], list[_Unindexed]] = {}
        """The shards without an index file at the last look -> their keys."""

    def names(self) -> list[str]:
        """Return the name of every committed shard, sorted; other processes may add some at any time."""
        return self._listing()[0]

    def locate_columns(self, keys: Keys, columns: Sequence[Column]) -> list[TextLocations[S]]:
        """Find the shard and row of each key for each column; columns that the same shards hold share one object."""
        return self._locate(keys, columns)

    def locate(self, keys: Keys, view: str = "") -> TextLocations[S]:
        """Find the shard and row of each key, in shards of any column, or of any layer of a view."""
        return self._locate(keys, [(view, None)])[0]

    def add(self, name: str) -> None:
        """Write an index file for a shard that has none."""
        self._files.add([name], self._open)

    def columns(self) -> list[tuple[dict[str, tuple[int, ...]], str]]:
        """Return the columns, view -> layers, that shards have, and the name of one that has them."""
        return [(part.columns, part.names[0]) for part in self._parts()[1]]

    def count(self) -> int:
        """Return the number of distinct texts."""
        while True:
            _, parts = self._parts()
            try:
                if len(parts) <= 1:
                    return sum(part.entries for part in parts)
                same = [np.zeros(len(part.names), np.int64) for part in parts]
                return sum(map(len, merge(parts, same)))
            except SegmentError as error:
                self._files.discard(error.path)

    def _locate(self, keys: Keys, columns: Sequence[tuple[str, int | None]]) -> list[TextLocations[S]]:
        keys = np.ascontiguousarray(keys)
        order = key_order(keys)
        while True:
            names, parts = self._parts()
            try:
                return self._locate_in(parts, names, keys, order, columns)
            except SegmentError as error:
                self._files.discard(error.path)

    def _locate_in(
        self,
        parts: Sequence["Segment | _Unindexed"],
        names: Sequence[str],
        keys: Keys,
        order: Indices,
        columns: Sequence[tuple[str, int | None]],
    ) -> list[TextLocations[S]]:
        rank_of = {name: rank for rank, name in enumerate(names)}
        sorted_keys = keys[order]

        @cache
        def ranks_and_rows(number: int) -> tuple[Indices, Indices]:
            part = parts[number]
            shards, rows = part.find(sorted_keys)
            if isinstance(part, Segment):
                self._check_places(part, sorted_keys, shards, rows)
            ranks = np.array([*(rank_of[name] for name in part.names), len(names)])
            return ranks[shards], rows  # -1, for a key that the part lacks, is the last

        @cache
        def combine(numbers: tuple[int, ...]) -> TextLocations[S]:
            best, best_rows = np.full(len(keys), len(names)), np.zeros(len(keys), np.int64)
            for number in numbers:
                ranks, rows = ranks_and_rows(number)
                best, best_rows = np.minimum(ranks, best), np.where(ranks < best, rows, best_rows)
            shard_indices, rows = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
            shard_indices[order], rows[order] = np.where(best < len(names), best, -1), best_rows
            return TextLocations(keys, names, shard_indices, rows, self._open)

        return [
            combine(tuple(number for number, part in enumerate(parts) if _holds(part.columns, *column)))
            for column in columns
        ]

    def _check_places(self, segment: Segment, keys: Keys, shards: Indices, rows: Indices) -> None:
        """Raise a :class:`SegmentError` if a shard does not have the key of a text in the place that a segment says."""
        for number, texts in group_by(shards):
            if number < 0 or self._folder.remote:  # a shard that is fetched is checked when it is read
                continue
            shard, places = segment.shards[number], rows[texts]
            first, count = int(places.min()), int(np.ptp(places)) + 1
            path, start = self._folder.fetch(shard.name), shard.keys_offset + first * keys.itemsize
            try:
                size = path.stat().st_size
                stored = np.fromfile(path, keys.dtype, count, offset=start)
            except FileNotFoundError:
                raise SegmentError(segment.path, f"{shard.name} is gone") from None
            if size != shard.bytes or len(stored) < count or (stored[places - first] != keys[texts]).any():
                raise SegmentError(segment.path, f"{shard.name} has other texts")

    def _parts(self) -> tuple[list[str], list["Segment | _Unindexed"]]:
        """Return the names of all shards, and the segments and keys in memory that together describe them."""
        names, segments, unindexed = self._look()
        if unindexed not in self._unindexed and self._are_many(unindexed) and self._files.add(unindexed, self._open):
            names, segments, unindexed = self._look()
        return names, [*segments, *self._in_memory(unindexed)]

    def _look(self) -> tuple[list[str], list[Segment], tuple[str, ...]]:
        """Return the names of all shards, segments, and the names of the shards that no segment describes."""
        names, segment_names = self._listing()
        segments = self._files.cover(names, segment_names)
        described = {name for segment in segments for name in segment.names}
        return names, segments, tuple(name for name in names if name not in described)

    def _are_many(self, unindexed: tuple[str, ...]) -> bool:
        """Return whether an index file is to be written for some shards."""
        if self._only or not unindexed:
            return False
        if self._folder.remote or len(unindexed) > MOST_SHARDS:
            return True
        return sum(part.entries for part in self._in_memory(unindexed)) > MOST_TEXTS

    def _in_memory(self, unindexed: tuple[str, ...]) -> list["_Unindexed"]:
        if unindexed not in self._unindexed:
            self._unindexed = {unindexed: _sort_keys({name: self._open(name) for name in unindexed})}
        return self._unindexed[unindexed]

    def _listing(self) -> tuple[list[str], list[str]]:
        """Return the sorted names of the shards, and the names of the index files."""
        if self._only:
            return [self._only], []
        names = self._folder.names()
        shards = [name for name in names if name.endswith(self._suffix)]
        return sorted(shards), [name for name in names if name.endswith(self._files.suffix)]


class _Unindexed:
    """Sorted entries of shards that no index file describes, in memory; all have the same columns."""

    def __init__(self, columns: dict[str, tuple[int, ...]], shards: Mapping[str, KeyedShard]) -> None:
        self.columns, self.names = columns, tuple(shards)
        self._sorted = sort_entries(entries_of([shard.keys for shard in shards.values()]))
        self._keys = np.ascontiguousarray(self._sorted["key"])
        self.entries = len(self._keys)

    def find(self, keys: Keys) -> tuple[Indices, Indices]:
        """As :meth:`Segment.find`."""
        positions = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found = self._sorted[positions]
        shards = np.where(self._keys[positions] == keys, found["shard"].astype(np.int64), -1)
        return shards, found["row"].astype(np.int64)

    def between(self, low: bytes, high: bytes) -> Entries:
        """As :meth:`Segment.between`."""
        return entries_between(self._sorted, low, high)


def _sort_keys(shards: Mapping[str, KeyedShard]) -> list[_Unindexed]:
    by_columns: dict[tuple[tuple[str, tuple[int, ...]], ...], dict[str, KeyedShard]] = {}
    for name, shard in shards.items():
        by_columns.setdefault(tuple(sorted(shard.columns.items())), {})[name] = shard
    return [_Unindexed(dict(columns), group) for columns, group in by_columns.items()]


def _holds(columns: Mapping[str, tuple[int, ...]], view: str, layer: int | None) -> bool:
    """Return whether columns have a layer of a view; any layer if it is None, any view if that is empty."""
    return not view or (view in columns if layer is None else layer in columns.get(view, ()))
