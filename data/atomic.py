"""Atomic writes of files and folders, and file locks.

A file or folder is written under a temporary name, synced, then renamed: a reader sees all of it or nothing.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write ``content`` to ``path`` atomically and durably: all of it or nothing, and a power cut does not undo it.

    Args:
        check: as of :func:`move_into_place`; if it raises, or the file cannot be written, nothing is left behind.
    """
    with temporary_path(path.parent) as temporary:
        temporary.write_bytes(content)
        move_into_place(temporary, path, check)


@contextlib.contextmanager
def temporary_path(folder: Path, prefix: str = "") -> Iterator[Path]:
    """Yield the path of a file or folder to be made in ``folder``; if it was not moved elsewhere, it is removed.

    Args:
        folder: created if it does not exist.
        prefix: beginning of the hidden name, for :func:`remove_leftovers`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{prefix}{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        yield temporary
    finally:
        _remove(temporary)


def move_into_place(temporary: Path, path: Path, check: Callable[[Path], None] | None = None) -> None:
    """Sync a file, or a folder with its files, and rename it to ``path`` in the same file system.

    Args:
        check: called with ``temporary`` once it is synced; if it raises, nothing is renamed.
    """
    for part in [temporary, *temporary.rglob("*")]:
        _sync(part)
    if check:
        check(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def remove_leftovers(folder: Path, prefix: str = "", seconds: float = 0.0) -> list[Path]:
    """Remove what processes that were killed have left of :func:`temporary_path` with this prefix; return the paths.

    Args:
        seconds: age from which a file belongs to no running process; 0 removes all.
    """
    leftovers = []
    for path in folder.glob(f".{escape(prefix)}*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # its process has just moved it into place
            if not seconds or time.time() - path.stat().st_mtime > seconds:
                _remove(path)
                leftovers.append(path)
    return leftovers


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Sync a file, or a folder, so that renames in it survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file ``path``; yield whether it is held.

    Args:
        wait: wait until another process releases the lock; else yield False if it is taken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):
                if wait:
                    raise
                yield False
                return
            if _is_at(file.fileno(), path):  # else the process that held it has removed it
                yield True
                return


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file is the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
