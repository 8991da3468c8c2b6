"""Temporary file of records of one size, which are written and read by their index.

The file has lost its name when it is used, so that it goes with the process, however that ends.
"""

import os
import shutil
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from permafrost.data.atomic import remove_leftovers, temporary_path
from permafrost.data.errors import MachineError

PREFIX = "records-"
"""Beginning of the name that a file has until it is open."""

NEAR_RECORDS = 8
"""Distance of two records up to which those between them are read into the system's cache too."""

Bytes = NDArray[np.uint8]


class RecordFile:
    """Records of ``record_bytes`` bytes each, on disk; reads and writes may run in several threads."""

    def __init__(self, descriptor: int, record_bytes: int, records: int) -> None:
        self._descriptor, self.record_bytes, self.records = descriptor, record_bytes, records
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def create(cls, folder: Path, record_bytes: int, records: int, advice: str) -> Self:
        """Create a file without a name in ``folder``; its records are zeros.

        Args:
            advice: end of the message if there is no room for the file: what to do about it.

        Raises:
            MachineError: the disk has no room for it, or cannot be written.
        """
        size = record_bytes * records
        try:
            remove_leftovers(folder, PREFIX)
            with temporary_path(folder, PREFIX) as path:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            file = cls(descriptor, record_bytes, records)
            os.truncate(descriptor, size)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise MachineError(
                f"{folder}: a temporary file cannot be made there ({error.strerror}); {advice}"
            ) from error
        if free < size:
            raise MachineError(
                f"{folder}: a temporary file of {size:,} bytes is needed there, and {free:,} bytes are free; {advice}"
            )
        return file

    @classmethod
    def open(cls, path: Path, record_bytes: int) -> Self:
        """Open a file that :meth:`copy_to` has written, for reading."""
        descriptor = os.open(path, os.O_RDONLY)
        return cls(descriptor, record_bytes, os.fstat(descriptor).st_size // record_bytes)

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.record_bytes * self.records

    def close(self) -> None:
        """Close the file, which frees its space on disk; without it, that happens with the last reference."""
        self._close()

    def copy_to(self, path: Path) -> None:
        """Write the records to a file with a name; raise :class:`OSError` if that fails."""
        with open(path, "wb") as target:
            done, size = 0, self.bytes
            while done < size and (sent := os.sendfile(target.fileno(), self._descriptor, done, size - done)):
                done += sent

    def write(self, indices: NDArray[np.int64], values: Bytes, start: int = 0) -> None:
        """Write bytes ``[record, byte]`` of records from the byte ``start`` on.

        Args:
            indices: ``[record]``, ascending and different.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        for first, last, at in self._runs(indices, start, values.shape[1]):
            view = values[first:last].reshape(-1).data
            while view:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written

    def read(self, indices: NDArray[np.int64], start: int = 0, stop: int | None = None) -> Bytes:
        """Return the bytes from ``start`` to ``stop`` of records, ``[record, byte]``; neighbours are read at once.

        Args:
            indices: ``[record]``, ascending and different.

        Raises:
            MachineError: the disk cannot be read.
        """
        width = (self.record_bytes if stop is None else stop) - start
        values = np.empty((len(indices), width), np.uint8)
        flat = values.reshape(-1).data
        for first, last, at in self._runs(indices, start, width):
            view = flat[first * width : last * width]
            while view:
                try:
                    count = os.preadv(self._descriptor, [view], at)
                except OSError as error:
                    raise MachineError(f"a temporary file of latents cannot be read ({error.strerror}).") from error
                if not count:
                    raise MachineError("a temporary file of latents ended before its last record.")
                view, at = view[count:], at + count
        return values

    def will_need(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Have the system read ranges of records into its cache, in their order on disk; a hint, nothing is copied.

        Args:
            starts, ends: ``[range]``, at least one; the starts ascend, and so do the ends, which are excluded.
        """
        if advise := getattr(os, "posix_fadvise", None):  # Linux, FreeBSD
            breaks = np.flatnonzero(starts[1:] - ends[:-1] >= NEAR_RECORDS) + 1
            for first, last in pairwise([0, *breaks.tolist(), len(starts)]):
                at, end = int(starts[first]) * self.record_bytes, int(ends[last - 1]) * self.record_bytes
                advise(self._descriptor, at, end - at, os.POSIX_FADV_WILLNEED)

    def _runs(self, indices: NDArray[np.int64], start: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first, last (exclusive) position in ``indices``, offset in the file) of bytes without a gap."""
        if width == self.record_bytes:
            breaks = np.flatnonzero(np.diff(indices) != 1) + 1
            bounds: list[Any] = [0, *breaks.tolist(), len(indices)]
        else:
            bounds = list(range(len(indices) + 1))
        for first, last in pairwise(bounds):
            if first < last:
                yield first, last, int(indices[first]) * self.record_bytes + start
