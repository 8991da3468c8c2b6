"""Execution of the runs of a batch: one after another, or in worker processes; a failure does not stop the others."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from permafrost.batches.outcome import NamedProgress, Outcome, run_item
from permafrost.batches.plan import BatchItem
from permafrost.data.errors import Terminated, terminate
from permafrost.data.progress import Progress
from permafrost.probes.search.workers import Event, Pipe, Worker, WorkerDied, WorkerPool, begin_worker

SECONDS_TO_END = 20.0
"""Time that a worker has after SIGTERM to remove what is half written."""

MOST_TRIES = 2
"""Times that a run is begun whose worker is killed; a training goes on from its checkpoint."""


@dataclass(frozen=True)
class Note:
    """Message of a worker: a line to show."""

    text: str


def execute(
    items: Sequence[BatchItem],
    folder: Path,
    workers: int,
    progress: Progress,
    ended: Callable[[BatchItem, Outcome], None],
) -> None:
    """Run all items.

    Args:
        folder: folder of the run folders.
        workers: number of processes; one runs everything in this process.
        ended: called with each run that has ended.
    """
    with progress.bar("runs", len(items)) as advance:

        def tell(item: BatchItem, outcome: Outcome) -> None:
            advance(1)
            ended(item, outcome)

        if workers > 1 and len(items) > 1:
            with WorkerPool(run_worker, (folder,), min(workers, len(items)), SECONDS_TO_END) as pool:
                _run_in_pool(items, pool, progress, tell)
            return
        for item in items:
            named = NamedProgress(item.name, progress.note, lambda name, facts: progress.event(name, **facts))
            tell(item, run_item(item, folder, named))


def _run_in_pool(
    items: Sequence[BatchItem], pool: WorkerPool, progress: Progress, ended: Callable[[BatchItem, Outcome], None]
) -> None:
    queue, tries = list(range(len(items))), [0] * len(items)
    while queue or pool.busy:
        while queue and (worker := pool.idle):
            tries[queue[0]] += 1
            pool.assign(worker, queue[0], items[queue.pop(0)])
        for worker, message in pool.messages():
            match message:
                case Note():
                    progress.note(message.text)
                case Event():
                    progress.event(message.name, **message.facts)
                case Outcome():
                    ended(items[_end_job(worker)], message)
                case WorkerDied() if worker.job is not None:
                    number = _end_job(worker)
                    cause = f"its worker died (exit code {message.code}), perhaps for want of memory"
                    if tries[number] < MOST_TRIES:
                        progress.note(f"{items[number].name}: {cause}; it is tried again")
                        queue.append(number)
                    else:
                        ended(items[number], Outcome(f"MachineError: {cause}; use fewer --workers", 3))


def _end_job(worker: Worker) -> int:
    number, worker.job = worker.job, None
    assert number is not None
    return number


def run_worker(pipe: Pipe, folder: Path) -> None:
    """Run the items that come over the pipe, until None comes or the parent ends; main function of a worker."""
    begin_worker()
    signal.signal(signal.SIGTERM, terminate)

    def event(name: str, facts: dict[str, Any]) -> None:
        pipe.send(Event(name, facts))

    try:
        while (job := pipe.recv()) is not None:
            _, item = job
            pipe.send(run_item(item, folder, NamedProgress(item.name, lambda text: pipe.send(Note(text)), event)))
    except (EOFError, BrokenPipeError, ConnectionResetError, Terminated):
        return  # the parent is gone, or ends all workers
