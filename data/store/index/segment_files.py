"""The index files of one store: which of them describe its shards, new ones for more shards, merging of small ones."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from permafrost.data.store.index.folder import StoreFolder
from permafrost.data.store.index.locations import KeyedShard
from permafrost.data.store.index.merge import entries_of, merge, sort_entries
from permafrost.data.store.index.segment import (
    INDEX_SUFFIX,
    Entries,
    IndexedShard,
    Keys,
    Segment,
    SegmentError,
    write_segment,
)

BATCH_TEXTS = 1 << 18
"""Approximate number of texts that are sorted in memory for one file."""

RATIO = 1
"""A file stays as it is as long as it is this many times as large as all smaller ones together."""

Columns = tuple[tuple[str, tuple[int, ...]], ...]


class SegmentFiles:
    """Index files in the folder of a store. Every file can be removed at any time: it is made again."""

    suffix = INDEX_SUFFIX

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder
        self._segments: dict[str, Segment] = {}
        self._useless: set[str] = set()
        """Names of files that are damaged or describe shards that are gone."""

    def cover(self, names: Sequence[str], segment_names: Sequence[str]) -> list[Segment]:
        """Return segments that describe as many shards as the index files can.

        Args:
            names: of all shards.
            segment_names: of all index files.
        """
        self._segments = {name: self._segments[name] for name in segment_names if name in self._segments}
        for name in segment_names:
            if name not in self._segments and name not in self._useless:
                with contextlib.suppress(FileNotFoundError):  # another process has merged it
                    self._open(name)
        known, chosen, described = set(names), list[Segment](), set[str]()
        for segment in sorted(self._segments.values(), key=lambda segment: (-segment.entries, segment.path.name)):
            unknown = set(segment.names) - known
            if unknown and not unknown.issubset(self._folder.names()):
                self.discard(segment.path)
            elif not unknown and not described.issuperset(segment.names):  # else the list of shards is older
                chosen.append(segment)
                described.update(segment.names)
        return chosen

    def discard(self, path: Path) -> None:
        """Remove an index file that is of no use."""
        self._useless.add(path.name)
        self._segments.pop(path.name, None)
        with contextlib.suppress(Exception):  # then it is passed over
            self._folder.remove(path.name)

    def add(self, names: Sequence[str], open_shard: Callable[[str], KeyedShard]) -> bool:
        """Write index files for shards that have none; return False if the folder cannot be written."""
        try:
            for batch in self._batches(names, open_shard):
                self._write_new(batch)
            self._merge_small()
        except OSError:
            return False
        return True

    def _open(self, name: str) -> None:
        try:
            self._segments[name] = Segment(self._folder.fetch(name))
        except SegmentError as error:
            self.discard(error.path)

    def _batches(
        self, names: Sequence[str], open_shard: Callable[[str], KeyedShard]
    ) -> Iterator[dict[Columns, list[tuple[IndexedShard, Keys]]]]:
        """Yield shards with their keys, by columns, of about :data:`BATCH_TEXTS` texts at once."""
        batch: dict[Columns, list[tuple[IndexedShard, Keys]]] = {}
        texts = 0
        for name in sorted(names):
            shard = open_shard(name)
            keys = shard.keys
            about = IndexedShard(name, shard.bytes, shard.keys_offset)
            batch.setdefault(tuple(sorted(shard.columns.items())), []).append((about, keys))
            texts += len(keys)
            if texts >= BATCH_TEXTS:
                yield batch
                batch, texts = {}, 0
        if batch:
            yield batch

    def _write_new(self, batch: dict[Columns, list[tuple[IndexedShard, Keys]]]) -> None:
        for columns, group in batch.items():
            shards, keys = zip(*group, strict=True)
            self._write(dict(columns), shards, [sort_entries(entries_of(keys))])

    def _write(
        self, columns: dict[str, tuple[int, ...]], shards: Sequence[IndexedShard], chunks: Iterable[Entries]
    ) -> Path:
        with self._folder.temporary() as temporary:
            path = write_segment(temporary, columns, shards, chunks)
        try:
            self._folder.commit(path.name)
        except Exception as error:  # each storage has its own; one that may only be read is read all the same
            path.unlink(missing_ok=True)
            raise OSError(str(error)) from error
        self._useless.discard(path.name)  # it may have been damaged before
        return path

    def _merge_small(self) -> None:
        """Merge files of the same columns, so that there are few: each is as large as all smaller ones together."""
        names = self._folder.names()
        by_columns: dict[Columns, list[Segment]] = {}
        chosen = self.cover(names, [name for name in names if name.endswith(INDEX_SUFFIX)])
        for segment in set(self._segments.values()) - set(chosen):
            if set(segment.names) <= {name for other in chosen for name in other.names}:
                self.discard(segment.path)
        for segment in chosen:
            by_columns.setdefault(tuple(sorted(segment.columns.items())), []).append(segment)
        for columns, segments in by_columns.items():
            sizes = np.array([segment.entries for segment in segments])
            smaller = sizes.sum() - sizes.cumsum()
            to_merge = np.flatnonzero(sizes < RATIO * smaller)
            if len(to_merge):
                self._write_merged(dict(columns), segments[to_merge[0] :])

    def _write_merged(self, columns: dict[str, tuple[int, ...]], segments: Sequence[Segment]) -> None:
        shards = sorted({shard for segment in segments for shard in segment.shards})
        number_of = {shard.name: number for number, shard in enumerate(shards)}
        numbers = [np.array([number_of[name] for name in segment.names]) for segment in segments]
        try:
            merged = self._write(columns, shards, merge(segments, numbers))
        except SegmentError as error:
            self.discard(error.path)
            return
        for segment in segments:
            if segment.path != merged:
                self.discard(segment.path)
