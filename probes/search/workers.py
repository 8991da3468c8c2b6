"""Worker processes of a study: each trains the trials it is handed and reports over a pipe; none outlives its parent.

Workers know nothing of Optuna and write nothing down, so one that is killed leaves nothing half written.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from permafrost.data.errors import PermafrostError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Scalar
from permafrost.probes.search.trials import MakeEvaluate, TrialResult, attempt

Assignment = tuple[int, Mapping[str, Scalar]]

Pipe = connection.Connection


@dataclass(frozen=True)
class EpochReport:
    """A worker finished an epoch and waits to hear whether to go on."""

    step: int
    value: float


@dataclass(frozen=True)
class WorkerDied:
    """A worker ended without being asked to; ``code`` is the signal, negative, or its exit code."""

    code: int | None


@dataclass(frozen=True)
class WorkerFailed:
    """A worker met an error that no other trial would be spared."""

    error: PermafrostError | OSError | None
    trace: str


@dataclass(eq=False)
class Worker:
    """One process, as its parent sees it."""

    process: SpawnProcess
    pipe: Pipe
    trial: int | None = None
    """The trial it is at."""


class WorkerPool:
    """A number of workers; as a context, none is left behind it."""

    def __init__(self, recipe: Recipe, folder: Path, make_evaluate: MakeEvaluate, size: int) -> None:
        self._job = recipe, folder, make_evaluate
        self.size = size
        self._workers: list[Worker] = []

    def __enter__(self) -> Self:
        try:
            while len(self._workers) < self.size:
                self._spawn()
        except BaseException:
            self._terminate()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            for worker in self._workers:
                _send(worker.pipe, None)
            for worker in self._workers:
                worker.process.join(timeout=5)
        self._terminate()

    @property
    def busy(self) -> int:
        """Workers that are at a trial."""
        return sum(worker.trial is not None for worker in self._workers)

    @property
    def idle(self) -> Worker | None:
        """A worker without a trial."""
        return next((worker for worker in self._workers if worker.trial is None), None)

    def assign(self, worker: Worker, assignment: Assignment) -> None:
        """Hand a trial to a worker."""
        worker.trial = assignment[0]
        _send(worker.pipe, assignment)

    def answer(self, worker: Worker, stop: bool) -> None:
        """Say whether the trial that reported an epoch ends here."""
        _send(worker.pipe, stop)

    def messages(self) -> Iterator[tuple[Worker, EpochReport | TrialResult | WorkerFailed | WorkerDied]]:
        """What the workers have to say; waits until there is something. A dead one is replaced."""
        ready = connection.wait([worker.pipe for worker in self._workers])
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
        ours, theirs = multiprocessing.Pipe()
        with theirs, _inherited(self.size):
            process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs, *self._job), daemon=True)
            process.start()
        self._workers.append(Worker(process, ours))

    def _terminate(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=2)
            worker.process.kill()
            worker.process.join()
            _close(worker)
        self._workers = []


def work(pipe: Pipe, recipe: Recipe, folder: Path, make_evaluate: MakeEvaluate) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(step: int, value: float) -> bool:
        pipe.send(EpochReport(step, value))
        return bool(pipe.recv())

    try:
        evaluate = make_evaluate(recipe, folder)
        while (assignment := pipe.recv()) is not None:
            number, params = assignment
            pipe.send(attempt(evaluate, recipe, number, params, report))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone
    except Exception as error:
        known = error if isinstance(error, (PermafrostError, OSError)) else None
        pipe.send(WorkerFailed(known, traceback.format_exc()))
        pipe.recv()  # the parent ends us


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _inherited(workers: int) -> Iterator[None]:
    """Children start with their share of the cores, and deaf to Ctrl-C."""
    share = max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 1
    resource_tracker.ensure_running()  # starting it lets Ctrl-C through again, so not in between
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


def _send(pipe: Pipe, message: object) -> None:
    with suppress(OSError):  # it died; its pipe says so at the next wait
        pipe.send(message)


def _close(worker: Worker) -> None:
    worker.pipe.close()
    worker.process.close()
