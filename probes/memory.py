"""Memory that something takes while it runs: by how much the process grows, looked at often."""

import ctypes
import gc
import threading
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

EVERY_SECONDS = 0.05


class Peak:
    """``with Peak() as peak: ...`` leaves in ``peak.bytes`` by how much the resident size grew at most.

    What the process held before does not count: a training costs the same whatever was trained before it. Pages of
    mapped files do.
    """

    def __init__(self) -> None:
        self._process, self._done = psutil.Process(), threading.Event()
        self.bytes = 0

    def __enter__(self) -> Self:
        _give_back()
        self._before: int = self._process.memory_info().rss
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
        self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)


def _give_back() -> None:
    """Have freed memory go back to the machine; what stays with the process would be used again, and not be seen."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc alone has it
        trim(0)
