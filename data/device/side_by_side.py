"""Work on a stream of items side by side: on threads that share the cores, where one item does not keep them busy."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_side_by_side(
    run: Callable[[Item], Result], items: Iterable[Item], threads: int, alone: Callable[[Item], bool]
) -> Generator[Result, None, None]:
    """Yield the results of items in their order; an error is raised in the place of its result.

    While one is yielded, as many run as there are threads, and one more may have run. On closing, whatever happened, no
    thread is left.

    Args:
        threads: they divide those that torch computes with here.
        alone: whether an item runs by itself, on the thread of the caller, with all threads of torch.
    """
    with _divided_threads(threads) as pool:
        started = deque[Future[Result]]()
        for item in items:
            is_alone = alone(item)
            while started and (is_alone or len(started) > threads):
                yield started.popleft().result()
            if is_alone:
                yield run(item)
            else:
                started.append(pool.submit(run, item))
        while started:
            yield started.popleft().result()


@contextmanager
def _divided_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads that have an equal part each of the threads that torch computes with."""
    every = torch.get_num_threads()
    all_here = Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # what is said before this first call is forgotten
        torch.set_num_threads(max(1, round(every / count)))  # of this thread, and of those that begin later
        all_here.wait()

    pool = ThreadPoolExecutor(count, "side by side", begin)
    try:
        for _ in range(count):
            pool.submit(int)
        all_here.wait()
        torch.set_num_threads(every)
        yield pool
    finally:
        all_here.abort()
        pool.shutdown(cancel_futures=True)
