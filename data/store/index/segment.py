"""Index segments: immutable files with the sorted keys of the texts in some shards, and the place of each text.

    pages     entries (key, number of the shard, row), sorted by key, PAGE_ENTRIES to a page
    head      JSON: columns, number of entries, shards; then the first key and the checksum (xxh3) of every page
    trailer   number of bytes of the head, and MAGIC

The name of a file is the digest of its head, and the head holds the checksums of the pages: only the head and the pages
that are needed are read. All shards of a segment have the same columns. A text that several of them hold has one entry,
that of the first shard by name.
"""

import json
import os
import re
import struct
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]
"""``[text]``, 16 bytes each."""

Entries = NDArray[np.void]
"""``[entry]`` of :data:`ENTRY`."""

ENTRY = np.dtype([("key", "S16"), ("shard", "<u4"), ("row", "<u4")])

PAGE_ENTRIES = 256

PAGES_AT_ONCE = 4096
"""Most pages in memory during a look-up, 25 MB."""

INDEX_SUFFIX = ".index"

INDEX_FORMAT = 1

MAGIC = b"pfindex\0"

_TRAILER = struct.Struct("<Q8s")

_SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")


class SegmentError(Exception):
    """An index file that is damaged or does not describe the shards; it is removed, and made again from the shards."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class IndexedShard(NamedTuple):
    """A shard of a segment, as it was when it was indexed."""

    name: str
    bytes: int
    keys_offset: int
    """Offset of the keys in the file."""


class Segment:
    """An index file, opened for look-ups; it stays readable if another process replaces it."""

    def __init__(self, path: Path) -> None:
        """Read the head.

        Raises:
            SegmentError: the file is damaged, or not an index.
            FileNotFoundError: another process has removed it.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait
            weakref.finalize(self, os.close, self._file)
            head, self.entries = self._read_head()
            about, _, arrays = head.partition(b"\n")
            pages = -(-self.entries // PAGE_ENTRIES)
            self._fences: Keys = np.frombuffer(arrays, "S16", pages)
            self._checksums = np.frombuffer(arrays, "<u8", pages, offset=pages * 16).tolist()
            described = json.loads(about)
            if described["format"] != INDEX_FORMAT:
                raise SegmentError(path, "another version wrote it")
            self.columns = {str(view): tuple(map(int, layers)) for view, layers in described["columns"].items()}
            self.shards = tuple(_indexed_shard(*shard) for shard in described["shards"])
        except (FileNotFoundError, SegmentError):
            raise
        except Exception as error:  # whatever a file that is no index makes of its bytes
            raise SegmentError(path, f"no index of a store ({error})") from error
        self.names = tuple(shard.name for shard in self.shards)

    def _read_head(self) -> tuple[bytes, int]:
        """Return the head, and the number of entries before it."""
        size = os.fstat(self._file).st_size
        length, magic = _TRAILER.unpack(os.pread(self._file, _TRAILER.size, size - _TRAILER.size))
        start = size - _TRAILER.size - length
        if magic != MAGIC or start < 0 or start % ENTRY.itemsize:
            raise SegmentError(self.path, "its size is not that of an index")
        head = os.pread(self._file, length, start)
        if xxhash.xxh3_128_hexdigest(head) != self.path.stem:
            raise SegmentError(self.path, "its head does not match its name")
        return head, start // ENTRY.itemsize

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Look up keys, which are sorted.

        Returns:
            the number of the shard of each key, -1 if the segment does not have it, and its row in that shard.

        Raises:
            SegmentError: a page is damaged.
        """
        shards, rows = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.int64)
        page_of_key = np.searchsorted(self._fences, keys, side="right") - 1
        starts = np.flatnonzero(np.diff(page_of_key, prepend=-1))  # of the keys of each page that is needed
        for first in range(0, len(starts), PAGES_AT_ONCE):
            last = first + PAGES_AT_ONCE
            part = slice(starts[first], starts[last] if last < len(starts) else len(keys))
            entries = self._read_pages(page_of_key[starts[first:last]])
            stored = np.ascontiguousarray(entries["key"])
            positions = np.minimum(np.searchsorted(stored, keys[part]), len(stored) - 1)
            found = stored[positions] == keys[part]
            shards[part] = np.where(found, entries["shard"][positions].astype(np.int64), -1)
            rows[part] = entries["row"][positions]
        if shards.max(initial=-1) >= len(self.shards):
            raise SegmentError(self.path, "it names a shard that it does not describe")
        return shards, rows

    def between(self, low: bytes, high: bytes) -> Entries:
        """Return the entries with ``low <= key < high``; an empty ``high`` is no limit."""
        first = max(0, int(np.searchsorted(self._fences, low, side="right")) - 1)
        end = int(np.searchsorted(self._fences, high, side="left")) if high else len(self._fences)
        entries = self._read_pages(np.arange(first, max(end, first)))
        return entries_between(entries, low, high)

    def _read_pages(self, pages: NDArray[np.int64]) -> Entries:
        """Return the entries of some pages, by ascending number; neighbours are read together."""
        size = PAGE_ENTRIES * ENTRY.itemsize
        content = bytearray()
        for run in np.split(pages, np.flatnonzero(np.diff(pages) > 1) + 1) if len(pages) else ():
            start, end = int(run[0]) * size, min((int(run[-1]) + 1) * size, self.entries * ENTRY.itemsize)
            part = os.pread(self._file, end - start, start)
            for number, page in enumerate(run.tolist()):
                if xxhash.xxh3_64_intdigest(part[number * size : (number + 1) * size]) != self._checksums[page]:
                    raise SegmentError(self.path, "a page does not match its checksum")
            content += part
        return np.frombuffer(content, ENTRY)


def _indexed_shard(name: str, size: int, keys_offset: int) -> IndexedShard:
    if not _SHARD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a shard")
    return IndexedShard(name, int(size), int(keys_offset))


def write_segment(
    temporary: Path,
    columns: Mapping[str, Sequence[int]],
    shards: Sequence[IndexedShard],
    chunks: Iterable[Entries],
) -> Path:
    """Write an index file, and return its path.

    Args:
        temporary: path that it is written at, before it is moved to its name in the same folder.
        columns: view -> layers, of every shard.
        shards: by name; entries have their numbers.
        chunks: all entries, sorted by key, each key once.

    Raises:
        OSError: the file cannot be written.
    """
    with open(temporary, "wb") as file:
        fences, checksums = _write_pages(file, chunks)
        about = {"format": INDEX_FORMAT, "columns": {view: list(layers) for view, layers in columns.items()}}
        head = json.dumps(about | {"shards": shards}, separators=(",", ":")).encode() + b"\n"
        head += np.array(fences, "S16").tobytes() + np.array(checksums, "<u8").tobytes()
        file.write(head + _TRAILER.pack(len(head), MAGIC))
    path = temporary.with_name(f"{xxhash.xxh3_128_hexdigest(head)}{INDEX_SUFFIX}")
    os.replace(temporary, path)  # not synced: what a power cut leaves of it is found to be damaged
    return path


def _write_pages(file: BinaryIO, chunks: Iterable[Entries]) -> tuple[list[bytes], list[int]]:
    """Write sorted entries; return the first key and the checksum of each page."""
    fences, checksums = list[bytes](), list[int]()

    def write(entries: Entries) -> None:
        for start in range(0, len(entries), PAGE_ENTRIES):
            page = entries[start : start + PAGE_ENTRIES].tobytes()
            fences.append(entries["key"][start])
            checksums.append(xxhash.xxh3_64_intdigest(page))
            file.write(page)

    rest = np.empty(0, ENTRY)
    for chunk in chunks:
        rest = np.concatenate([rest, chunk])
        whole = len(rest) // PAGE_ENTRIES * PAGE_ENTRIES
        write(rest[:whole])
        rest = rest[whole:]
    write(rest)
    return fences, checksums


def entries_between(entries: Entries, low: bytes, high: bytes) -> Entries:
    """Return those of some sorted entries with ``low <= key < high``; an empty ``high`` is no limit."""
    keys = np.ascontiguousarray(entries["key"])
    first = int(np.searchsorted(keys, low))
    return entries[first : int(np.searchsorted(keys, high)) if high else len(keys)]
