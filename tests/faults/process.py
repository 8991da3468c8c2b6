"""Processes forked from one that has imported everything, so that a trial begins in milliseconds, and can be killed."""

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
