"""Reading ahead: a thread reads what is asked for next while the training computes."""

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class ReadAhead:
    """Reads that a thread does one after another; each is taken once, by its key.

    The thread runs from the first read until :meth:`close`. What a read returns does not depend on it.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._pending: dict[Hashable, Future[Any]] = {}

    def start(self, read: Callable[[], object], key: Hashable | None = None) -> None:
        """Queue a read; without a key, its result is dropped."""
        if key is not None and key in self._pending:
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "read-ahead")
        future = self._executor.submit(read)
        if key is not None:
            self._pending[key] = future

    def take(self, key: Hashable) -> Any:
        """Return the result of a queued read, None if there is none; an error of the read is raised here."""
        future = self._pending.pop(key, None)
        return None if future is None else future.result()

    def close(self) -> None:
        """Drop what was not taken, and end the thread."""
        self._pending.clear()
        if self._executor:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
