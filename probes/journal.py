"""A journal file as Optuna's journal storage writes and reads it, safe against crashes. Knows nothing of Optuna.

The lock is the kernel's and ends with its holder, however that ends. A record counts once its line is whole: what a
crash or a full disk left behind the last whole line is cut, under the lock, before anything is appended.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from data.errors import MachineError

CHUNK = 1 << 16


@contextlib.contextmanager
def held(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock ``path``; yields False where another process has it and we do not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if wait or error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            yield False
            return
        yield True


class Journal:
    """Records, one JSON object a line; any number of processes may append and read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts = [0]
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records; all are on disk when this returns, or none is.

        Raises:
            MachineError: they could not be written; what was there before still is.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _cut_torn_tail(file)
            try:
                file.seek(end)
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:]) or 0
                os.fsync(file.fileno())
            except BaseException as error:
                file.truncate(end)
                if isinstance(error, OSError):
                    raise MachineError(
                        f"{self._path}: {error.strerror}; every finished trial in it is safe: "
                        "make room and run the same command again."
                    ) from error
                raise

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Records from a number on; a torn tail is no record.

        Raises:
            MachineError: a line in the middle is damaged.
        """
        number = min(log_number_from, len(self._starts) - 1)
        with open(self._path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            file.seek(self._starts[number])
            lines = file.read().splitlines(keepends=True)
        for index, line in enumerate(lines):
            record = _record(line)
            if record is None:
                if not any(map(_record, lines[index:])):
                    return
                raise MachineError(
                    f"{self._path}:{number + 1}: damaged, and records follow it; "
                    "give the study another name, or put a copy of the file back."
                )
            if number + 1 == len(self._starts):
                self._starts.append(self._starts[number] + len(line))
            number += 1
            if number > log_number_from:
                yield record


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _cut_torn_tail(file: Any) -> int:
    """Cut what follows the last whole record; returns where the file ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = _line_start(file, end)
        file.seek(start)
        if _record(file.read(end - start)) is not None:
            break
        end = start
    file.truncate(end)
    return int(end)


def _line_start(file: BinaryIO, end: int) -> int:
    """Where the line begins that ends at ``end``, its own newline not looked at."""
    position = end - 1
    while position > 0:
        start = max(0, position - CHUNK)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
