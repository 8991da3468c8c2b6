"""Worker processes: each does the jobs that it receives over a pipe, and ends with its parent; and those of a study.

Workers of a study do not use Optuna and write no files, so a killed worker leaves nothing half written.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Self

from permafrost.data.errors import PermafrostError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.search.trials import MakeEvaluate, run_trial

Pipe = connection.Connection


@dataclass(frozen=True)
class EpochReport:
    """Message of a worker that finished an epoch and waits for the answer whether to stop."""

    step: int
    value: float


@dataclass(frozen=True)
class Event:
    """Message of a worker: an event, as of :meth:`permafrost.data.progress.Progress.event`."""

    name: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class WorkerDied:
    """Unexpected end of a worker."""

    code: int | None
    """Exit code, or the negative number of the signal that ended it."""


@dataclass(frozen=True)
class WorkerFailed:
    """Message of a worker that met an error which ends the study."""

    error: PermafrostError | OSError | None
    """The error to raise; None if it is of another type."""

    trace: str
    """Its traceback."""


@dataclass(eq=False)
class Worker:
    """A worker process, as its parent sees it."""

    process: SpawnProcess
    pipe: Pipe
    job: int | None = None
    """Number of the job that it does: of a study, the trial that it trains."""


class WorkerPool:
    """A pool of worker processes; a context that ends all of them."""

    def __init__(
        self, main: Callable[..., None], arguments: Sequence[Any], size: int, seconds_to_end: float = 2.0
    ) -> None:
        """Start nothing yet.

        Args:
            main: main function of a worker: called with a pipe and ``arguments``, it receives jobs, as
                ``(number, what)``, until it receives None.
            size: number of workers.
            seconds_to_end: time that a worker has to end after SIGTERM, before it is killed.
        """
        self._main, self._arguments = main, arguments
        self.size, self._seconds_to_end = size, seconds_to_end
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        try:
            while len(self._workers) < self.size:
                self._spawn()
        except BaseException:
            self._terminate()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for worker in self._workers:
                _send(worker.pipe, None)
            for worker in self._workers:
                worker.process.join(timeout=5)
        self._terminate()

    @property
    def busy(self) -> int:
        """Number of workers that do a job."""
        return sum(worker.job is not None for worker in self._workers)

    @property
    def idle(self) -> Worker | None:
        """A worker without a job, or None if all are busy."""
        return next((worker for worker in self._workers if worker.job is None), None)

    def assign(self, worker: Worker, number: int, what: Any) -> None:
        """Send a job to a worker: its number and what it is, of a study the values of a trial."""
        worker.job = number
        _send(worker.pipe, (number, what))

    def answer(self, worker: Worker, stop: bool) -> None:
        """Answer the report of an epoch: whether to stop the trial."""
        _send(worker.pipe, stop)

    def messages(self, seconds: float | None = None) -> Iterator[tuple[Worker, Any]]:
        """Wait for messages, and yield them; a worker that died is replaced, and :class:`WorkerDied` its message.

        Args:
            seconds: time after which to wait no longer; None waits for ever.
        """
        ready = connection.wait([worker.pipe for worker in self._workers], seconds)
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                yield worker, self._reap(worker)
            else:
                yield worker, message

    def _reap(self, worker: Worker) -> WorkerDied:
        worker.process.join(timeout=5)
        worker.process.kill()  # it closed its pipe: nothing more can come of it
        worker.process.join()
        code = worker.process.exitcode
        self._workers.remove(worker)
        _close(worker)
        self._spawn()
        return WorkerDied(code)

    def _spawn(self) -> None:
        parent_end, worker_end = multiprocessing.Pipe()
        with worker_end, _worker_environment(self.size):
            process = multiprocessing.get_context("spawn").Process(
                target=self._main, args=(worker_end, *self._arguments), daemon=True
            )
            process.start()
        self._workers.append(Worker(process, parent_end))

    def _terminate(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=self._seconds_to_end)
            worker.process.kill()
            worker.process.join()
            _close(worker)
        self._workers = []


def begin_worker() -> None:
    """Let the parent decide on Ctrl-C, which reaches every process of the terminal, and end with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def run_worker(pipe: Pipe, recipe: Recipe, folder: Path, make_evaluate: MakeEvaluate) -> None:
    """Train trials until the parent sends None or ends; the main function of a worker process."""
    begin_worker()

    def report(step: int, value: float) -> bool:
        pipe.send(EpochReport(step, value))
        return bool(pipe.recv())

    try:
        evaluate = make_evaluate(recipe, folder, lambda name, **facts: pipe.send(Event(name, facts)))
        while (assignment := pipe.recv()) is not None:
            number, params = assignment
            pipe.send(run_trial(evaluate, recipe, number, params, report))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except Exception as error:
        reported = error if isinstance(error, (PermafrostError, OSError)) else None
        pipe.send(WorkerFailed(reported, traceback.format_exc()))
        pipe.recv()  # until the parent ends this process


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _worker_environment(workers: int) -> Iterator[None]:
    """Let processes that start in this context have their share of the cores, and ignore Ctrl-C from the start."""
    share = max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1
    resource_tracker.ensure_running()  # its start unblocks Ctrl-C, so it must come first
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)


def _send(pipe: Pipe, message: object) -> None:
    with suppress(OSError):  # the worker died, which the next wait reports
        pipe.send(message)


def _close(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.close()
