"""A journal file as Optuna's journal storage writes and reads it, safe against crashes and flipped bits.

Every record ends with a field that Optuna's replay passes over: a checksum of the record and of the checksum before it,
so that none can change, come, go or change places unseen. The lock is the kernel's and ends with its holder, however
that ends. What a crash or a full disk left behind the last newline is cut, under the lock, before anything is appended;
a whole line that is wrong is told and never cut. Knows nothing of Optuna.
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from permafrost.data.errors import MachineError

MARK, END = b',"checksum":"', b'"}'
"""What stands in every line between a record and its checksum, and after it."""

REMEDY = "put a copy of the file back or give the study another name"


class Journal:
    """Records, one JSON object a line; any number of processes may append and read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends = [0]
        """Where the known records end, the beginning first."""

        self._checksums = [b""]
        """Of the known records, and of what is before them."""

        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records; all are on disk when this returns, and none if it raises.

        Raises:
            MachineError: they could not be written, what was there before still is; or a line there is damaged.
        """
        with open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read(file, len(self._ends) - 1)
            lines, end = b"", self._ends[-1]
            checksum = self._checksums[-1]
            for log in logs:
                body = json.dumps(log, separators=(",", ":")).encode()[:-1]
                checksum = _checksum(body, checksum)
                lines += body + MARK + checksum + END + b"\n"
            file.truncate(end)  # what an append that was cut has left
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
        """Records from a number on, as they were added; what follows the last newline is no record.

        Raises:
            MachineError: a line is not as it was written.
        """
        with open(self._path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            found = self._read(file, log_number_from)
        yield from found

    def _read(self, file: Any, since: int) -> list[dict[str, Any]]:
        """Records of an open file from a number on; those that are new become known."""
        first = min(since, len(self._ends) - 1)
        if file.seek(0, os.SEEK_END) < self._ends[-1]:
            raise MachineError(f"{self._path} is shorter than it was while it was read; {REMEDY}.")
        file.seek(self._ends[first])
        *lines, tail = file.read().split(b"\n")
        records = []
        for number, line in enumerate(lines, first):
            body = _body(line, self._checksums[number])
            if body is None:
                raise self._damaged(line, number)
            if number + 1 == len(self._ends):
                self._ends.append(self._ends[number] + len(line) + 1)
                self._checksums.append(_checksum(body, self._checksums[number]))
            if number >= since:
                records.append(json.loads(body + b"}"))
        if _body(tail[:-1], self._checksums[-1]) is not None:  # whole, and then something else than a newline
            raise self._damaged(tail, len(self._ends) - 1)
        return records

    def _damaged(self, line: bytes, number: int) -> MachineError:
        what = "is not as it was written, or does not follow the line before it"
        if MARK not in line:
            what = "has no checksum: it is damaged, or written by Optuna itself or another version of permafrost"
        return MachineError(
            f"{self._path}:{number + 1} {what}; {REMEDY}, or go on with the {number:,} records before it after "
            f"'truncate -s {self._ends[number]} {shlex.quote(str(self._path))}'."
        )


def _body(line: bytes, before: bytes) -> bytes | None:
    """What is in front of a line's checksum, where that is right."""
    body, _, checksum = line.rpartition(MARK)
    return body if checksum == _checksum(body, before) + END else None


def _checksum(body: bytes, before: bytes) -> bytes:
    """Of a record, and through the checksum before it of all records before it."""
    return xxhash.xxh3_128_hexdigest(before + body).encode()
