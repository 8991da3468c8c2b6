"""Journal file for Optuna's journal storage, safe against crashes and flipped bits.

Every record ends with a field that Optuna ignores: a checksum of the record and of the checksum before it, so no record
can be changed, added, removed or moved unnoticed. Appending holds a kernel lock, which ends with the process. An
incomplete last line, left by a crash or a full disk, is cut before the next append; a complete line that is damaged
raises an error and is never cut. Independent of Optuna.
"""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from permafrost.data.atomic import open_regular
from permafrost.data.errors import MachineError

MARK, END = b',"checksum":"', b'"}'
"""The bytes of a line between the record and its checksum, and after the checksum."""

REMEDY = "put a copy of the file back or give the study another name"
"""Advice in the messages about damaged files."""


class Journal:
    """A file of records, one JSON object per line; several processes may append and read concurrently."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends = [0]
        """Byte offset of the end of each record read so far, after 0 for the start of the file."""

        self._checksums = [b""]
        """Checksum of each record read so far, after the empty one before the first record."""

        path.parent.mkdir(parents=True, exist_ok=True)
        with open_regular(path, "ab"):
            pass

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records; all are on disk when this returns, and none if it raises.

        Raises:
            MachineError: the records could not be written (earlier ones are safe), or a line of the file is damaged.
        """
        with open_regular(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read(file, len(self._ends) - 1)
            lines, end = b"", self._ends[-1]
            checksum = self._checksums[-1]
            for log in logs:
                body = json.dumps(log, separators=(",", ":")).encode()[:-1]
                checksum = _checksum(body, checksum)
                lines += body + MARK + checksum + END + b"\n"
            file.truncate(end)  # the incomplete line of an interrupted append
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
        """Return the records from a number on, in order; an incomplete last line is no record.

        Raises:
            MachineError: a line differs from what was written.
        """
        with open_regular(self._path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            records = self._read(file, log_number_from)
        yield from records

    def _read(self, file: Any, since: int) -> list[dict[str, Any]]:
        """Return the records of an open file from a number on, and remember the offsets of new ones."""
        first = min(since, len(self._ends) - 1)
        if file.seek(0, os.SEEK_END) < self._ends[-1]:
            raise MachineError(f"{self._path} is shorter than it was while it was read; {REMEDY}.")
        file.seek(self._ends[first])
        *lines, tail = file.read().split(b"\n")
        records = []
        for number, line in enumerate(lines, first):
            body = _verified_body(line, self._checksums[number])
            if body is None:
                raise self._damage_error(line, number)
            if number + 1 == len(self._ends):
                self._ends.append(self._ends[number] + len(line) + 1)
                self._checksums.append(_checksum(body, self._checksums[number]))
            if number >= since:
                records.append(json.loads(body + b"}"))
        if _verified_body(tail[:-1], self._checksums[-1]) is not None:  # a complete record without its newline
            raise self._damage_error(tail, len(self._ends) - 1)
        return records

    def _damage_error(self, line: bytes, number: int) -> MachineError:
        damage = "is not as it was written, or does not follow the line before it"
        if MARK not in line:
            damage = "has no checksum: it is damaged, or written by Optuna itself or another version of permafrost"
        return MachineError(
            f"{self._path}:{number + 1} {damage}; {REMEDY}, or go on with the {number:,} records before it after "
            f"'truncate -s {self._ends[number]} {shlex.quote(str(self._path))}'."
        )


def _verified_body(line: bytes, checksum_before: bytes) -> bytes | None:
    """Return the part of a line before its checksum, or None if the checksum is wrong."""
    body, _, checksum = line.rpartition(MARK)
    return body if checksum == _checksum(body, checksum_before) + END else None


def _checksum(body: bytes, checksum_before: bytes) -> bytes:
    """Return the checksum of a record, chained to that of the record before it."""
    return xxhash.xxh3_128_hexdigest(checksum_before + body).encode()
