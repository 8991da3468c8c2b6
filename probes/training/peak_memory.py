"""Peak memory: the largest growth of the process while a block of code runs, sampled in a thread."""

import ctypes
import gc
import threading
from typing import Self

import psutil

EVERY_SECONDS = 0.05
"""Seconds between two samples."""


class PeakMemory:
    """Context manager that measures the largest growth of the resident memory, in ``bytes``.

    Memory that the process held before does not count: a training costs the same whatever was trained before it. Nor do
    pages of mapped files, on systems that report them separately (Linux): only their first reader would pay for them.
    """

    def __init__(self) -> None:
        self._process, self._done = psutil.Process(), threading.Event()
        self._largest = 0
        self.previous_bytes = 0
        """Largest growth in an earlier process that was killed."""

    @property
    def bytes(self) -> int:
        """Largest growth so far, in bytes."""
        return max(self.previous_bytes, self._largest)

    def __enter__(self) -> Self:
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
            trim(0)  # freed memory goes back to the system; otherwise its reuse would not show as growth
        self._before = self._resident()
        self._thread = threading.Thread(target=self._sample_until_done, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sample()
        self._done.set()
        self._thread.join()

    def _sample_until_done(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self._largest = max(self._largest, self._resident() - self._before)

    def _resident(self) -> int:
        memory = self._process.memory_info()
        return int(memory.rss - getattr(memory, "shared", 0))
