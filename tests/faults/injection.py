"""Faults at every point at which a process changes files: it is killed there, or the system refuses the call."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.move")
"""Audit events of calls that change what a folder holds; those of ``open`` count if it may write."""

REFUSALS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)


class Injection:
    """Counts the calls that change files in a folder, those that sync included, and plants a fault in one of them."""

    def __init__(self, folder: Path, at: int = -1, refusal: int = 0, lasting: bool = False) -> None:
        """Plant nothing yet.

        Args:
            at: number of the call, from 0; -1 plants nothing, and counts.
            refusal: error number that the call fails with; 0 kills the process before the call.
            lasting: whether all later calls fail too.
        """
        self.folder, self.at, self.refusal, self.lasting = str(folder.resolve()), at, refusal, lasting
        self.calls = list[str]()

    def plant(self) -> None:
        """Watch this process from now on."""
        sys.addaudithook(self._audit)
        real = os.fsync

        def fsync(descriptor: int) -> None:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            self._call("fsync", path)
            real(descriptor)
            self._call("fsync done", path)

        os.fsync = fsync  # type: ignore[assignment]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._call(event, os.fsdecode(path))
        elif event in CHANGES and isinstance(arguments[0], (str, bytes, os.PathLike)):
            self._call(event, os.fsdecode(arguments[0]))

    def _call(self, event: str, path: str) -> None:
        if not str(Path(path).absolute()).startswith(self.folder):
            return
        number = len(self.calls)
        self.calls.append(f"{event} {Path(path).name}")
        if number == self.at or (self.lasting and number > self.at >= 0):
            if not self.refusal:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.refusal, os.strerror(self.refusal), path)


def counted(folder: Path, work: Callable[[], Any]) -> list[str]:
    """Run work in this process; return the calls at which a fault can be planted."""
    injection = Injection(folder)
    injection.plant()
    work()
    return injection.calls
