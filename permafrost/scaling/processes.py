"""Extraction by several processes of this machine: each runs a shard of the same request.

A worker that dies loses what it had not committed; another goes on with its shard. At the end this process looks
through the whole request, and would run what was still missing.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from permafrost.data.errors import InputError, MachineError, PermafrostError, Terminated, terminate
from permafrost.data.machine import devices
from permafrost.data.plan.plan import ExtractSpec
from permafrost.data.progress import EventsOnly, Progress
from permafrost.data.spec import SpecError
from permafrost.extract.distributed.shards import Shard, ShardOfPacks
from permafrost.probes.search.workers import Event, Pipe, Worker, WorkerDied, WorkerPool, begin_worker
from permafrost.scaling.request import Extracted, Request

SECONDS_TO_END = 20.0
"""Time that a worker has after SIGTERM to commit its whole packs."""

MOST_TRIES = 3
"""Times that a shard is begun whose worker is killed."""

SECONDS_TO_TELL = 0.5
"""Time between two messages of a worker about the texts that it has run."""


@dataclass(frozen=True)
class Ran:
    """Message of a worker: number of texts that it has run since the last one."""

    texts: int


@dataclass(frozen=True)
class Note:
    """Message of a worker: a line to show."""

    text: str


@dataclass(frozen=True)
class Ended:
    """Message of a worker whose shard has ended."""

    texts_run: int
    error: PermafrostError | OSError | None = None


def extract_in_processes(request: Request, workers: int, progress: Progress) -> Extracted:
    """Extract what is not stored by several processes.

    Args:
        workers: number of processes; with several GPUs, each has the next of them.

    Raises:
        InputError: the recipe, the corpus or the backbone cannot be used.
        MachineError: as of :func:`permafrost.extract.extraction.extract`; or a worker died three times.
    """
    if workers < 1:
        raise SpecError(f"--workers must be at least 1, got {workers}.")
    started = time.monotonic()
    spec = request.check()
    request.prepare(progress)
    dealt = deal_devices(workers, devices(), spec)
    jobs = [
        (request.on_device(device) if device else request, (worker, workers)) for worker, device in enumerate(dealt)
    ]
    with (
        WorkerPool(run_worker, (), workers, SECONDS_TO_END) as pool,
        progress.bar(f"texts, by {workers} workers", None) as advance,
    ):
        texts_run = _run_shards(jobs, pool, progress, advance)
    whole = request.run(EventsOnly(progress.event))
    seconds = time.monotonic() - started
    progress.note(f"{texts_run + whole.texts_run:,} texts run by {workers} workers, {seconds:.2f} s; all are stored")
    return replace(whole, texts_run=texts_run + whole.texts_run, seconds=seconds)


def deal_devices(workers: int, found: Sequence[str], spec: ExtractSpec) -> list[str]:
    """Return the device of each worker, so that it has a GPU of its own, or shares the fewest with others.

    It is empty if the workers are to run on the device of the request.

    Args:
        found: devices of this machine, as :func:`permafrost.data.machine.devices` returns them.
        spec: settings of the extraction; if it names a device, or spreads the backbone, that is for all workers.
    """
    gpus = [device for device in found if device.startswith("cuda")]
    if spec.device not in ("auto", "cuda") or spec.device_map or not gpus:
        return [""] * workers
    return [gpus[worker % len(gpus)] for worker in range(workers)]


def _run_shards(
    jobs: Sequence[tuple[Request, Shard]],
    pool: WorkerPool,
    progress: Progress,
    advance: Callable[[int], None],
) -> int:
    """Run every shard; return the number of texts that ran."""
    queue, tries, texts_run = list(range(len(jobs))), [0] * len(jobs), 0
    while queue or pool.busy:
        while queue and (worker := pool.idle):
            tries[queue[0]] += 1
            pool.assign(worker, queue[0], jobs[queue.pop(0)])
        for worker, message in pool.messages():
            match message:
                case Ran():
                    advance(message.texts)
                case Note() if worker.job == 0:
                    progress.note(f"worker 0 of {len(jobs)}: {message.text}")
                case Event():
                    progress.event(message.name, worker=worker.job, **message.facts)
                case Ended():
                    if message.error:
                        raise message.error
                    texts_run += message.texts_run
                    worker.job = None
                case WorkerDied() if worker.job is not None:
                    number = _lost_shard(worker, message, tries[worker.job] < MOST_TRIES, progress)
                    queue.append(number)
    return texts_run


def _lost_shard(worker: Worker, died: WorkerDied, again: bool, progress: Progress) -> int:
    """Tell of a worker that died, and return the number of its shard.

    Raises:
        MachineError: it is not to be tried again.
    """
    number = worker.job
    assert number is not None
    cause = f"worker {number} died (exit code {died.code}), perhaps for want of memory"
    if not again:
        raise MachineError(f"{cause}, {MOST_TRIES} times; use fewer --workers. What was committed is kept.")
    progress.note(f"{cause}; what it had committed is kept, and another goes on with its part")
    return number


class PipeProgress:
    """Progress of a worker, sent over its pipe: notes until the first text has run, events, and texts that ran."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._texts, self._told, self._notes = pipe, 0, 0.0, True

    def note(self, message: str) -> None:
        """Send a note, unless texts have run: what follows is told by the parent."""
        if self._notes:
            self._pipe.send(Note(message))

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Yield a function that counts texts and sends their number now and then."""
        yield self._advance
        self._send()

    def event(self, name: str, **facts: Any) -> None:
        """Send an event."""
        self._pipe.send(Event(name, facts))

    def _advance(self, texts: int) -> None:
        self._notes = False
        self._texts += texts
        if time.monotonic() - self._told >= SECONDS_TO_TELL:
            self._send()

    def _send(self) -> None:
        if self._texts:
            self._pipe.send(Ran(self._texts))
        self._texts, self._told = 0, time.monotonic()


def run_worker(pipe: Pipe) -> None:
    """Run the shards that come over the pipe, until None comes or the parent ends; main function of a worker."""
    begin_worker()
    signal.signal(signal.SIGTERM, terminate)
    try:
        while (job := pipe.recv()) is not None:
            _, (request, shard) = job
            pipe.send(_end_of(request, shard, PipeProgress(pipe)))
    except (EOFError, BrokenPipeError, ConnectionResetError, Terminated):
        return  # the parent is gone, or ends all workers


def _end_of(request: Request, shard: Shard, progress: Progress) -> Ended:
    try:
        return Ended(request.run(progress, ShardOfPacks(shard)).texts_run)
    except InputError as error:
        return Ended(0, InputError(str(error)))  # one with fields of its own could not be sent
    except PermafrostError as error:
        return Ended(0, MachineError(str(error)))
    except OSError as error:
        return Ended(0, error)
