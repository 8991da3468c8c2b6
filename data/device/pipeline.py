"""Pipeline: stages of work on a stream of items, each on a thread of its own, with a bounded queue before the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


class Pipeline:
    """Stages that run on threads, or one after another, item by item, where threads would not pay.

    Results and their order are the same. To be entered; on leaving it, whatever happened, no thread is left.
    """

    def __init__(self, threads: bool, most: int = 1) -> None:
        """Start nothing yet.

        Args:
            most: number of items that a stage may have made before the next one takes them.
        """
        self._threaded, self._most = threads, most
        self._changed, self._stopped = Condition(), False
        self._threads = list[Thread]()

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def stage(self, items: Iterable[Item]) -> Iterator[Item]:
        """Return items that are made ahead on a thread of this stage; an error of theirs is raised in their place."""
        if not self._threaded:
            return iter(items)
        made = deque[Any]()
        # a daemon: a second Ctrl-C, while threads are waited for, ends the process
        thread = Thread(target=self._make, args=(items, made), name=f"stage {len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._taken(made)

    def _make(self, items: Iterable[Any], made: deque[Any]) -> None:
        end = _End()
        try:
            for item in items:
                if not self._put(item, made):
                    return
                del item  # held by nobody while the next one is made
        except BaseException as error:
            end = _End(error)
        self._put(end, made)

    def _put(self, entry: Any, made: deque[Any]) -> bool:
        """Add an item or the end when there is room; return False if the pipeline has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(made) < self._most)
            made.append(entry)
            self._changed.notify_all()
            return not self._stopped

    def _taken(self, made: deque[Any]) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or made)
                entry = _End() if self._stopped else made.popleft()
                self._changed.notify_all()
            if isinstance(entry, _End):
                if entry.error:
                    raise entry.error
                return
            yield entry
            del entry
