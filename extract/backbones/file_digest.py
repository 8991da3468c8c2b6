"""Digests of files by their bytes, and a memo of what took long to compute.

A small file is hashed on every start. A large one is known by device, inode, times, size and a sample of its bytes;
if any of them differs from what the memo holds, it is hashed again.
"""

import hashlib
import json
import os
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import InputError

SMALL_BYTES = 8 << 20
"""Files up to this size are hashed on every start."""

SAMPLE_BLOCKS, BLOCK_BYTES = 64, 4096
"""Blocks drawn from a large file, beside the first and the last one."""

SETTLED_NS = 100_000_000
"""A file that changed less than this before it was hashed is not remembered: file systems round their times."""


class FileChangedError(InputError):
    """A file that was replaced or written to while it was in use."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was being read; run the same command again.")


@dataclass(frozen=True)
class Stamp:
    """What the file system says of a file; ``ctime_ns`` is the one time that no program can set back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stamp_of(path: Path) -> Stamp:
    """The stamp of the file that ``path`` leads to now."""
    return _stamp(path.stat())


class Memo:
    """Remembered strings by key, in a small JSON file with a checksum over its content.

    A file that is missing, damaged or not ours is as good as an empty one: what it held is computed again. Of two
    processes that write at once, one may lose its entry, never the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str, compute: Callable[[], str]) -> str:
        """The string under ``key``, computed if it is not there yet."""
        known = self.read(key)
        if known is None:
            known = compute()
            self.write(key, known)
        return known

    def read(self, key: str) -> str | None:
        """The string under ``key``, or None."""
        return self._entries().get(key)

    def write(self, key: str, value: str) -> None:
        """Remember ``value``; a file that cannot be written is ignored.

        Raises:
            NotADirectoryError, FileExistsError: the folder it belongs into is a file.
        """
        entries = {**self._entries(), key: value}
        content = json.dumps({"checksum": _checksum(entries), "entries": entries}, indent=1, sort_keys=True)
        try:
            write_atomically(self.path, content.encode())
        except (NotADirectoryError, FileExistsError):
            raise
        except OSError:
            return

    def _entries(self) -> dict[str, str]:
        try:
            content = json.loads(self.path.read_text("utf-8"))
            entries = content["entries"]
            sound = content["checksum"] == _checksum(entries)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}
        if not sound or not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
            return {}
        return entries


def cached_digest(path: Path, memo: Memo) -> str:
    """The sha256 of a file's bytes, as hex digits.

    Raises:
        OSError: the file cannot be read.
        FileChangedError: it changed meanwhile.
    """
    with open(path, "rb", buffering=0) as file:
        stamp = _stamp(os.fstat(file.fileno()))
        if stamp.size <= SMALL_BYTES:
            return _settled(path, file, stamp, _sha256(file))
        key = f"file {path.resolve()}"
        known = _Entry.parse(memo.read(key))
        if known and known.stamp == asdict(stamp) and known.sample == _sample(file, stamp.size, known.seed):
            return _settled(path, file, stamp, known.digest)
        digest, seed = _sha256(file), secrets.token_hex(16)
        entry = _Entry(asdict(stamp), seed, _sample(file, stamp.size, seed), digest)
        _settled(path, file, stamp, digest)
        if time.time_ns() - stamp.ctime_ns > SETTLED_NS:
            memo.write(key, json.dumps(asdict(entry)))
        return digest


def sample_of(path: Path, seed: str = "") -> str:
    """Digest of a file's size and of a sample of its bytes, which another file hardly shares."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return f"{size} {_sample(file, size, seed)}"


def sha256_of(*parts: bytes) -> str:
    """Hex digest of several byte strings, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Entry:
    """What the memo holds of a large file."""

    stamp: dict[str, int]
    seed: str
    sample: str
    digest: str

    @classmethod
    def parse(cls, text: str | None) -> "_Entry | None":
        """Read back an entry; None if it is none."""
        try:
            return cls(**json.loads(text or "null"))
        except (ValueError, TypeError):
            return None


def _settled(path: Path, file: BinaryIO, stamp: Stamp, digest: str) -> str:
    """The digest, if the file is still what it was when its stamp was taken."""
    if _stamp(os.fstat(file.fileno())) != stamp:
        raise FileChangedError(path)
    return digest


def _sample(file: BinaryIO, size: int, seed: str) -> str:
    """Digest of the first block, the last one, and those drawn by ``seed``."""
    draws = random.Random(seed)  # noqa: S311
    last = max(0, size - BLOCK_BYTES)
    running = hashlib.sha256()
    for place in (0, last, *(draws.randint(0, last) for _ in range(SAMPLE_BLOCKS))):
        file.seek(place)
        running.update(file.read(BLOCK_BYTES))
    return running.hexdigest()


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _checksum(entries: object) -> str:
    return sha256_of(json.dumps(entries, sort_keys=True).encode())
