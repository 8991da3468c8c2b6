"""Processes that begin in milliseconds, forked from one that has imported everything, and faults at a point of them."""

import errno
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

LIMIT = 120.0
"""Seconds after which a process is taken to hang."""

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.move")
"""Audit events of calls that change what a folder holds; those of ``open`` count if it may write."""

REFUSALS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
"""Error numbers of a full or broken disk, and of one without permission."""


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    code: int
    """Exit code; the negative signal, if it was killed by one."""

    said: str
    """What it wrote to stdout and stderr."""

    result: Any
    """What its function returned, as JSON gives it back; None if it did not."""

    seconds: float

    computed: float
    """Seconds of processor time, which other work on the machine lengthens little."""

    grown: int
    """Bytes by which its peak memory exceeds what it had from the start."""

    @property
    def was_killed(self) -> bool:
        """Whether it got SIGKILL."""
        return self.code == -signal.SIGKILL

    @property
    def is_one_line(self) -> bool:
        """Whether it refused something in a clear line: an exit code of the project's, and no traceback."""
        return self.code in (2, 3) and "Traceback" not in self.said


class Started:
    """A process that runs a function."""

    def __init__(self, work: Callable[[], Any], before: Callable[[], Any] | None = None) -> None:
        """Start it.

        Args:
            work: an int that it returns is the exit code, anything else the result.
            before: called first in the process, to plant a fault.
        """
        self._said, self._result = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        sys.stdout.flush()
        sys.stderr.flush()
        self._began = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            self._run(work, before)

    def _run(self, work: Callable[[], Any], before: Callable[[], Any] | None) -> None:
        code = 1
        try:
            os.setsid()
            sys.modules["__main__"] = ModuleType("__main__")  # or what it starts would import the campaign first
            for descriptor in (1, 2):
                os.dup2(self._said.fileno(), descriptor)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            if before:
                before()
            result = work()
            code = result if type(result) is int else 0
            self._result.write(json.dumps(None if type(result) is int else result).encode())
            self._result.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def kill(self) -> None:
        """Kill it, and what it has started."""
        with suppress(ProcessLookupError):  # it has ended, or has no group yet
            os.killpg(self.pid, signal.SIGKILL)
            return
        os.kill(self.pid, signal.SIGKILL)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for its end; what takes longer than ``limit`` is killed, and said to hang."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        hangs = False
        while not (waited := os.wait4(self.pid, os.WNOHANG))[0]:
            if time.monotonic() - self._began > limit and not hangs:
                hangs = True
                self.kill()
            time.sleep(0.002)
        seconds = time.monotonic() - self._began
        code = os.waitstatus_to_exitcode(waited[1])
        said, result = (self._read(file).decode(errors="replace") for file in (self._said, self._result))
        return Ended(
            1 if hangs else code,
            said + ("\nTraceback: it hangs" if hangs else ""),
            json.loads(result) if result else None,
            seconds,
            waited[2].ru_utime + waited[2].ru_stime,
            max(0, waited[2].ru_maxrss - before) * 1024,
        )

    @staticmethod
    def _read(file: Any) -> bytes:
        file.seek(0)
        content: bytes = file.read()
        file.close()
        return content


def in_process(work: Callable[[], Any], before: Callable[[], Any] | None = None, limit: float = LIMIT) -> Ended:
    """Run a function in a process of its own, to its end."""
    return Started(work, before).wait(limit)


def run_command(*words: str | Path) -> int:
    """Run a command of permafrost in this process; return its exit code."""
    from permafrost.cli.exit_codes import run_guarded
    from permafrost.cli.main import app

    return run_guarded(lambda: app([str(word) for word in words], standalone_mode=False))


def kill(path: str) -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int, path: str) -> None:
    """Fail as a call that the system refuses."""
    raise OSError(number, os.strerror(number), path)


class Injection:
    """Counts the calls that change files in a folder, those that sync included, and plants a fault in one of them."""

    def __init__(self, folder: Path, at: int = -1, fault: Callable[[str], None] = kill, lasting: bool = False) -> None:
        """Plant nothing yet.

        Args:
            at: number of the call, from 0; -1 plants nothing, and counts.
            fault: called with the path before the call.
            lasting: whether all later calls have the fault too.
        """
        self.folder, self.at, self.fault, self.lasting = str(folder.resolve()), at, fault, lasting
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
            self.fault(path)


def counted(folder: Path, work: Callable[[], Any]) -> list[str]:
    """Run work in this process; return the calls at which a fault can be planted."""
    injection = Injection(folder)
    injection.plant()
    work()
    return injection.calls
