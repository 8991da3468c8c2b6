"""File digests by content; those that are slow to compute are remembered.

A small file is hashed on every start. A large file is recognised by device, inode, times, size and a sample of its
bytes; if any of them differs from the memo's entry, the file is hashed again.
"""

import json
import os
import random
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from permafrost.data.digests import digest_of_stream, file_digest
from permafrost.data.errors import InputError
from permafrost.data.memo import Memo

MEMO = "digests.json"
"""File of the remembered digests, in the cache."""

SMALL_BYTES = 8 << 20
"""Files up to this size are hashed on every start."""

SAMPLE_BLOCKS, BLOCK_BYTES = 64, 4096
"""Number of blocks sampled from a large file besides the first and the last, and bytes per block."""

SETTLED_NS = 100_000_000
"""Minimum age of a file, in nanoseconds, to be remembered: file systems round their times."""


class FileChangedError(InputError):
    """File that was replaced or written to while it was in use."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was being read; run the same command again.")


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """File status by which a change is noticed; ``ctime_ns`` is the one time that no program can set back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file of this status."""
    return Stamp(
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def cached_digest(path: Path, memo: Memo) -> str:
    """Return the SHA-256 of a file's bytes as hex digits, from the memo if the file is unchanged.

    Raises:
        OSError: the file cannot be read.
        FileChangedError: the file changed meanwhile.
    """
    with open(path, "rb", buffering=0) as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        key, large = f"file {path.resolve()}", stamp.size > SMALL_BYTES
        known, new = _Entry.parse(memo.read(key)) if large else None, None
        if known and known.stamp == asdict(stamp) and known.sample == _sample(file, stamp.size, known.seed):
            digest = known.digest
        else:
            digest, seed = file_digest(file), secrets.token_hex(16)
            new = _Entry(asdict(stamp), seed, _sample(file, stamp.size, seed), digest) if large else None
        if stamp_of(os.fstat(file.fileno())) != stamp:
            raise FileChangedError(path)
    if new and time.time_ns() - stamp.ctime_ns > SETTLED_NS:
        memo.write(key, json.dumps(asdict(new)))
    return digest


def sample_of(path: Path) -> str:
    """Return a digest of a file's size and of a sample of its bytes, which hardly any other file shares."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return f"{size} {_sample(file, size, seed='')}"


@dataclass(frozen=True)
class _Entry:
    """Memo entry of a large file."""

    stamp: dict[str, int]
    seed: str
    sample: str
    digest: str

    @classmethod
    def parse(cls, text: str | None) -> "_Entry | None":
        """Return the entry that a memo string holds; None if it holds none."""
        try:
            return cls(**json.loads(text or "null"))
        except (ValueError, TypeError):
            return None


def _sample(file: BinaryIO, size: int, seed: str) -> str:
    """Return the digest of the first block, the last block, and blocks drawn by ``seed``."""
    draws = random.Random(seed)  # noqa: S311
    last = max(0, size - BLOCK_BYTES)
    offsets = (0, last, *(draws.randint(0, last) for _ in range(SAMPLE_BLOCKS)))
    return digest_of_stream(os.pread(file.fileno(), BLOCK_BYTES, offset) for offset in offsets)
