"""Extraction on a Ray cluster: this process lays out packs, and actors run units of them and commit them.

Plain actors, and not a pipeline of Ray Data: the store is the checkpoint, so there is nothing to pipe back; a unit
must go to another actor if one fails, and only a unit that fails three times is given up; and readers of Ray Data would
compete for the processors of the actors.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from permafrost.data.errors import MachineError
from permafrost.data.progress import Progress
from permafrost.extract.capacity import Capacity
from permafrost.extract.distributed.distribution import BlockWork, Distribution, Finished
from permafrost.scaling.ray_address import connect
from permafrost.scaling.request import Extracted, Request
from permafrost.scaling.unit_worker import Unit, UnitAnswer, UnitWorker, WorkerSettings

UNIT_SECONDS = 15.0
"""Time that a unit is to take, by the rate of those before it."""

FIRST_PACKS = 16
"""Number of packs of a unit before a rate is known."""

UNITS_OF_ACTOR = 2
"""Units that an actor has at once: one that runs, and one that waits."""

MOST_TRIES = 3
"""Times that a unit is tried."""


def extract_on_ray(
    request: Request, address: str, workers: int, progress: Progress, worker: type[UnitWorker] = UnitWorker
) -> Extracted:
    """Extract what is not stored by actors of a Ray cluster, which must see the cache under the same path.

    Args:
        address: ``host:port`` of a cluster, ``auto`` for the one of this machine, or ``local`` to start Ray here.
        workers: number of actors; 0 takes one for each GPU, or for each machine.
        worker: class of the actors.

    Raises:
        InputError: the recipe, the corpus or the backbone cannot be used, or nothing answers at the address.
        MachineError: no unit could be run.
    """
    request.check()  # is refused before anything starts
    with connect(address) as ray, progress.bar("texts, by actors", None) as advance:
        pool = RayPool(ray, workers, progress, worker)
        pool.advance = advance
        return request.run(progress, pool)


@dataclass
class _Flight:
    """A unit that an actor has."""

    unit: Unit
    actor: Any
    tries: int


class RayPool(Distribution):
    """A pool of actors that are handed whole packs."""

    def __init__(self, ray: Any, workers: int, progress: Progress, worker: type[UnitWorker]) -> None:
        """Start no actor yet."""
        super().__init__()
        self._ray, self._workers, self._progress, self._class = ray, workers, progress, worker
        self.advance: Callable[[int], None] = lambda texts: None
        self._settings: WorkerSettings | None = None
        self._make: Any = None
        self._actors, self._in_flight = list[Any](), dict[Any, _Flight]()
        self._units, self._done, self._failures = 0, 0, 0
        self._unit_tokens = 0.0
        self._texts_run = self._truncated = self._bytes = 0
        self.shards = list[str]()
        """Names of the shards that were committed, as the answers tell."""

    def hand_out(self, work: BlockWork) -> bool:
        """Hand the packs of a block out; returns when all of them are under way, and most are done."""
        self._prepare(work)
        for unit, truncated in self._units_of(work):
            self._collect(UNITS_OF_ACTOR * len(self._actors) - 1)
            self._submit(unit, 1)
            self._truncated += truncated
        return True

    def finish(self) -> Finished:
        """Wait for all units."""
        self._collect(0)
        finished = Finished(self._texts_run, self._truncated)
        self._texts_run = self._truncated = 0
        return finished

    def what_is_left(self, texts: int) -> str:
        """Return a sentence on texts that are not stored at the end of a request."""
        return f"{texts:,} texts of the request are not stored: their units failed. The same command tries them again"

    def _units_of(self, work: BlockWork) -> Iterator[tuple[Unit, int]]:
        """Yield units of a block's packs, and how many of their texts are cut."""
        lengths, limit = work.tokens.run_lengths, work.store.identity.max_tokens
        for columns, members in work.missing:
            is_member = np.zeros(len(work.texts), bool)
            is_member[members] = True
            packs, size = list[list[Any]](), 0
            for pack in work.packs:
                rows = [kept for row in pack if len(kept := row[is_member[row]])]
                if not rows:
                    continue
                packs.append(rows)
                size += int(lengths[np.concatenate(rows)].sum())
                if self._is_full(work, columns, packs, size):
                    yield self._unit(work, columns, packs, size, limit)
                    packs, size = [], 0
            if packs:
                yield self._unit(work, columns, packs, size, limit)

    def _is_full(self, work: BlockWork, columns: Mapping[str, tuple[int, ...]], packs: list[Any], size: int) -> bool:
        """Return whether packs take the time of a unit, or fill a shard."""
        runner = work.runner
        capacity = Capacity(
            texts=sum(len(row) for pack in packs for row in pack),
            tokens=size,
            columns=columns,
            width=runner.source.width,
            stored_dtype=runner.identity.stored_dtype,
        )
        full = size >= self._unit_tokens if self._unit_tokens else len(packs) >= FIRST_PACKS
        return full or capacity.bytes >= runner.spec.shard_bytes

    def _unit(
        self, work: BlockWork, columns: Mapping[str, tuple[int, ...]], packs: list[Any], size: int, limit: int
    ) -> tuple[Unit, int]:
        """Return a unit with texts of its own, and how many of them are cut."""
        members = np.concatenate([row for pack in packs for row in pack])
        ends = np.cumsum([len(row) for pack in packs for row in pack])
        rows = iter(np.split(np.arange(len(members)), ends[:-1]))
        own = [tuple(next(rows) for _ in pack) for pack in packs]
        self._units += 1
        cut = 0 if work.store.identity.in_windows else int((work.tokens.uncut[members] > limit).sum())
        return Unit(self._units, [work.texts[index] for index in members], own, columns, size), cut

    def _prepare(self, work: BlockWork) -> None:
        """Start the actors of a plan, unless they run; those of another plan end first."""
        spec = work.runner.spec
        device = work.runner.backbone.device.type
        settings = WorkerSettings(
            asked=work.asked,
            spec=replace(spec, device=device, device_map=""),
            store=work.store.path.absolute(),
            identity=work.store.identity,
            folder=str(Path.cwd()),
        )
        if settings == self._settings:
            return
        self._collect(0)
        for actor in self._actors:
            self._ray.kill(actor)
        self._settings = settings
        options = self._options(device == "cuda")
        self._make = self._ray.remote(**options)(self._class)
        self._actors = [self._make.remote(settings) for _ in range(self._workers)]

    def _options(self, gpu: bool) -> dict[str, Any]:
        """Return the options of an actor, and settle how many there are."""
        resources = self._ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
        machines = sum(node["Alive"] for node in self._ray.nodes())
        self._workers = self._workers or (int(gpus) if gpu and gpus else machines)
        options: dict[str, Any] = {"num_cpus": round(min(1.0, 0.9 * cpus / self._workers), 2)}
        if gpu and gpus:
            options["num_gpus"] = min(1.0, gpus / self._workers)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, int(cpus / self._workers)))
        options |= {"scheduling_strategy": "SPREAD", "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads}}}
        return options

    def _submit(self, unit: Unit, tries: int, avoid: Any = None) -> None:
        """Hand a unit to the actor that has the fewest, if there is a choice not to ``avoid``."""
        loads = [sum(flight.actor is actor for flight in self._in_flight.values()) for actor in self._actors]
        order = sorted(range(len(loads)), key=lambda index: (self._actors[index] is avoid, loads[index]))
        actor = self._actors[order[0]]
        self._in_flight[actor.run.remote(unit)] = _Flight(unit, actor, tries)

    def _collect(self, most: int) -> None:
        """Take answers until at most ``most`` units are under way."""
        while len(self._in_flight) > max(0, most):
            ready, _ = self._ray.wait(list(self._in_flight), num_returns=1, timeout=10.0)
            for reference in ready:
                flight = self._in_flight.pop(reference)
                try:
                    answer: UnitAnswer = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    answer = UnitAnswer(error=f"its actor died ({type(error).__name__})")
                    self._replace(flight.actor)
                self._take(flight, answer)

    def _replace(self, actor: Any) -> None:
        """Start an actor in the place of one that died."""
        if any(actor is known for known in self._actors):
            self._actors = [known for known in self._actors if known is not actor]
            self._actors.append(self._make.remote(self._settings))

    def _take(self, flight: _Flight, answer: UnitAnswer) -> None:
        unit = flight.unit
        if not answer.error:
            self._done += 1
            self._texts_run += len(unit.texts)
            self._bytes += answer.bytes
            self.shards += answer.shards
            self.advance(len(unit.texts))
            if answer.texts == len(unit.texts):
                self._unit_tokens = max(1.0, unit.tokens / answer.seconds * UNIT_SECONDS)
            facts = {"unit": unit.number, "texts": len(unit.texts), "seconds": round(answer.seconds, 3)}
            self._progress.event("unit", **facts, shards=list(answer.shards), bytes=answer.bytes)
            return
        self._failures += 1
        if not self._done and self._failures >= MOST_TRIES * max(2, len(self._actors)):
            raise MachineError(f"no actor could run a unit: {answer.error}. Nothing was stored.")
        if flight.tries < MOST_TRIES:
            self._progress.note(f"unit {unit.number} failed, and is tried elsewhere: {answer.error}")
            self._submit(unit, flight.tries + 1, flight.actor)
            return
        self._progress.note(
            f"unit {unit.number}, {len(unit.texts):,} texts, failed {MOST_TRIES} times; others go on: {answer.error}"
        )
