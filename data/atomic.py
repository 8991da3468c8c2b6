"""Atomic writes of files and folders, and file locks.

A file or folder is written under a temporary name, synced, then renamed: a reader sees all of it or nothing.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

from permafrost.data.errors import MachineError

TEMPORARY_SUFFIX = ".tmp"

TEMPORARY_NAME = re.compile(
    r"\.(?P<prefix>.*)[0-9a-f]{32}(\.(?P<pid>\d+)-(?P<started>\d+)@(?P<host>[\w-]*))?\.tmp", re.DOTALL
)
"""Name of :func:`temporary_path`: prefix, random digits, and the process that writes it."""

LARGEST_JSON = 1 << 26
"""Bytes of the largest file of :func:`read_json`."""

SECONDS_OF_OTHERS = 3600.0
"""Age from which a temporary file of another host, or of an earlier version, belongs to no running process."""


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
    owner = f"{os.getpid()}-{_start_of(os.getpid())}@{_host()}"
    temporary = folder / f".{prefix}{uuid.uuid4().hex}.{owner}{TEMPORARY_SUFFIX}"
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


def remove_leftovers(folder: Path, prefix: str = "", alone: bool = False) -> list[Path]:
    """Remove what processes that were killed have left of :func:`temporary_path`; return the paths.

    What a running process of this host writes stays.

    Args:
        prefix: beginning of the names to remove.
        alone: whether the caller holds a lock under which no other process writes names with this prefix.
    """
    leftovers = []
    for path in sorted(folder.glob(f".*{TEMPORARY_SUFFIX}")):
        name = TEMPORARY_NAME.fullmatch(path.name)
        if name and name["prefix"].startswith(prefix):
            with contextlib.suppress(OSError):  # its process has just moved it, or we may not remove what is another's
                if alone or _is_left(name, path):
                    _remove(path)
                    leftovers.append(path)
    return leftovers


def _is_left(name: re.Match[str], path: Path) -> bool:
    """Return whether the process that wrote a temporary file has ended."""
    if name["host"] != _host():
        return time.time() - path.stat().st_mtime > SECONDS_OF_OTHERS
    try:
        os.kill(int(name["pid"]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return name["started"] != _start_of(int(name["pid"]))


def _start_of(pid: int) -> str:
    """Return when a process began, in ticks since the start of Linux; "0" where that is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


@cache
def _host() -> str:
    return re.sub(r"[^\w-]", "_", platform.node(), flags=re.ASCII)[:40]


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


def open_regular(path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
    """Open a regular file for bytes; nothing waits for the other end of a pipe, or reads a device.

    Raises:
        MachineError: it is a folder, a pipe, a device or a link to itself.
        OSError: it cannot be opened.
    """

    def opened(name: str, flags: int) -> int:
        handle = os.open(name, flags | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
        return handle

    try:
        return open(path, mode, buffering, opener=opened)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP):
            raise MachineError(f"{path} is no regular file; move it away.") from error
        raise


def read_json(path: Path) -> Any:
    """Return what a small JSON file holds; None if it is not there, or cannot be read as JSON.

    Raises:
        MachineError: as of :func:`open_regular`.
    """
    try:
        with open_regular(path, "rb") as file:
            return json.loads(file.read(LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return None


@contextlib.contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on the file ``path``; yield whether it is held.

    Args:
        wait: wait until another process releases the lock; else yield False if it is taken.

    Raises:
        MachineError: something else than a regular file is at the path.
    """
    while True:
        with contextlib.ExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(open_regular(path, "ab"))
            except (FileNotFoundError, FileExistsError):
                if _is_no_folder(path.parent):
                    raise
                continue  # another process has just removed the empty folder
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


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Hold an exclusive lock on a folder, which ends with the process; yield False if another process holds it.

    Nothing is put in the folder, which is created if it does not exist, and removed if it is empty then. Where it
    cannot be locked, no process is taken to hold it.
    """
    with contextlib.ExitStack() as stack:
        is_free = True
        try:
            if not folder.exists():
                stack.callback(_remove_if_empty, folder)
                folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        except OSError:
            pass
        yield is_free


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_no_folder(path: Path) -> bool:
    """Return whether something else than a folder is at a path."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_at(handle: int, path: Path) -> bool:
    """Return whether an open file is the one at ``path``."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False
