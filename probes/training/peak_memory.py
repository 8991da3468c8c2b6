"""Memory that something takes while it runs: by how much the process grows, looked at often."""

import ctypes
import gc
import threading
from types import TracebackType
from typing import Self

import psutil

EVERY_SECONDS = 0.05


class Peak:
    """``with Peak() as peak: ...`` leaves in ``peak.bytes`` by how much the resident size grew at most.

    What the process held before does not count: a training costs the same whatever was trained before it. Nor do pages
    of mapped files where the system tells them apart, as Linux does: who read them first would pay for all.
    """

    def __init__(self) -> None:
        self._process, self._done = psutil.Process(), threading.Event()
        self._seen = 0
        self.known = 0
        """What it had grown by in a process before this one, which was killed."""

    @property
    def bytes(self) -> int:
        """By how much it has grown at most so far."""
        return max(self.known, self._seen)

    def __enter__(self) -> Self:
        _give_back()
        self._before = self._resident()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._look()
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self._seen = max(self._seen, self._resident() - self._before)

    def _resident(self) -> int:
        found = self._process.memory_info()
        return int(found.rss - getattr(found, "shared", 0))


def _give_back() -> None:
    """Have freed memory go back to the machine; what stays with the process would be used again, and not be seen."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc alone has it
        trim(0)
