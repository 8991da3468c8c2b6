"""The campaign: trials of every kind of fault, seeded and resumable, and the table of what was held."""

import json
import os
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from tests.faults.process import Started
from tests.faults.workspace import Workspace

Item = TypeVar("Item")

NUMBER = 4
"""Bytes of the number of a trial in the pipe that processes take theirs from; a read of a pipe is not divided."""


@dataclass(frozen=True)
class Outcome:
    """What became of one trial."""

    held: bool
    """Whether everything is as is promised."""

    lost: int = 0
    """Texts or trials that had been committed, and are not there any more or ran again."""

    wrong: int = 0
    """Numbers that were served and are not those of a run without the fault."""

    note: str = ""
    """What was tried, and what is wrong if it was not held."""


class Draws(random.Random):
    """Random draws of one trial."""

    def __init__(self, kind: str, number: int) -> None:
        """Seed the draws.

        Args:
            kind: seed of the campaign and name of the fault.
            number: of the trial, among those of its kind.
        """
        super().__init__(f"{kind} {number}")
        self._kind, self._number = kind, number

    def __new__(cls, kind: str, number: int) -> "Draws":
        return super().__new__(cls)

    def deal(self, items: Sequence[Item]) -> Item:
        """Return the item of this trial; trials of a kind get all of them before one comes again."""
        return random.Random(self._kind).sample(items, len(items))[self._number % len(items)]


Trial = Callable[[Workspace, Draws, Path], Outcome]
"""Tries one fault, which it draws, in an empty folder of its own."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    trials: int
    """How many a whole campaign has."""

    attempt: Trial


@dataclass(frozen=True)
class Line:
    """Trials of a kind of fault, added up."""

    fault: str
    tried: int
    held: int
    committed_work_lost: int
    wrong_numbers_served: int


class Campaign:
    """Trials in a folder, in which those that are done are remembered."""

    def __init__(self, faults: Iterable[Fault], folder: Path, seed: int = 0) -> None:
        """Read what was done before; nothing is tried yet."""
        self._faults, self._seed, self._folder = {fault.name: fault for fault in faults}, seed, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"trials-{seed}.jsonl"
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self.done: dict[str, dict[int, Outcome]] = {name: {} for name in self._faults}
        for line in map(json.loads, lines):
            if line["fault"] in self.done:
                self.done[line["fault"]][line["number"]] = Outcome(**line["outcome"])

    def run(self, seconds: float, share: float = 1.0, processes: int = 1) -> Iterator[tuple[str, int, Outcome]]:
        """Yield trials as they are done, kinds in turn, until all are, or the time is up.

        Args:
            share: of the trials of a whole campaign.
            processes: how many trials are done at once.

        Raises:
            RuntimeError: a process that does trials has failed.
        """
        end = time.monotonic() + seconds
        left = [(name, number) for name, number in self._order(share) if number not in self.done[name]]
        with Workspace.made(self._folder / "workspace") as workspace, self._log.open("ab+", buffering=0) as log:
            log.seek(0, os.SEEK_END)
            numbers, put = os.pipe()
            os.write(put, b"".join(place.to_bytes(NUMBER) for place in range(len(left))))
            os.close(put)
            parent = os.getpid()
            work = partial(self._work, workspace, left, numbers, end, parent)
            workers = [Started(work) for _ in range(processes)]
            os.close(numbers)
            try:
                while True:
                    are_running = any(worker.is_running for worker in workers)
                    yield from self._new(log)
                    if not are_running:
                        break
                    time.sleep(0.05)
            finally:
                for worker in workers:
                    worker.kill()
            if failed := [ended.said for ended in [worker.wait() for worker in workers] if ended.code]:
                raise RuntimeError(failed[0])

    def _work(
        self, workspace: Workspace, left: Sequence[tuple[str, int]], numbers: int, end: float, parent: int
    ) -> None:
        """Do one trial after the other, of those that no other process has taken, and log each as a line."""
        while time.monotonic() < end and os.getppid() == parent and (place := os.read(numbers, NUMBER)):
            name, number = left[int.from_bytes(place)]
            began = time.monotonic()
            outcome = self.attempt(workspace, name, number)
            seconds = round(time.monotonic() - began, 2)
            line = {"fault": name, "number": number, "outcome": asdict(outcome), "seconds": seconds}
            with self._log.open("ab", buffering=0) as log:
                log.write(json.dumps(line).encode() + b"\n")

    def _new(self, log: IO[bytes]) -> Iterator[tuple[str, int, Outcome]]:
        for line in map(json.loads, log.read().splitlines()):
            outcome = self.done[line["fault"]][line["number"]] = Outcome(**line["outcome"])
            yield line["fault"], line["number"], outcome

    def attempt(self, workspace: Workspace, name: str, number: int) -> Outcome:
        """Do one trial; what it raises is a trial that did not hold."""
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="trial-"))
        try:
            return self._faults[name].attempt(workspace, Draws(f"{self._seed} {name}", number), folder)
        except Exception:
            return Outcome(held=False, note=traceback.format_exc())
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def table(self) -> list[Line]:
        """Return a line a kind of fault."""
        return [_line(name, outcomes) for name, outcomes in self.done.items()]

    def _order(self, share: float) -> list[tuple[str, int]]:
        """Kinds in turn, so that a short campaign has some of each, in proportion."""
        wanted = {name: max(1, round(share * fault.trials)) for name, fault in self._faults.items()}
        places = [((number + 0.5) / count, name, number) for name, count in wanted.items() for number in range(count)]
        return [(name, number) for _, name, number in sorted(places)]


def _line(name: str, outcomes: Mapping[int, Outcome]) -> Line:
    values = outcomes.values()
    held, lost, wrong = (sum(getattr(one, key) for one in values) for key in ("held", "lost", "wrong"))
    return Line(name, len(values), held, lost, wrong)
