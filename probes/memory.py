"""Peak memory of this process while something runs, looked at often."""

import threading
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

EVERY_SECONDS = 0.05


class Peak:
    """``with Peak() as peak: ...`` leaves the largest resident size in ``peak.bytes``; pages of mapped files count."""

    def __init__(self) -> None:
        self._process, self._done = psutil.Process(), threading.Event()
        self.bytes: int = self._process.memory_info().rss

    def __enter__(self) -> Self:
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            self.bytes = max(self.bytes, self._process.memory_info().rss)
