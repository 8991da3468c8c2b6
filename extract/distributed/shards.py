"""Shards of a request: the packs that worker i of n runs, balanced by tokens."""

import heapq
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from permafrost.data.spec import SpecError
from permafrost.extract.distributed.claims import Missing
from permafrost.extract.distributed.distribution import Distribution, Packs
from permafrost.extract.tokenization.token_batch import TokenBatch

Shard = tuple[int, int]
"""Number of a worker, from 0, and number of workers."""

AUTO = "auto"

ENVIRONMENTS = (
    ("RANK", "WORLD_SIZE", "", ""),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
)
"""Variables with the number of a worker, the number of workers, the number of the first one, and the step from one to
the next: of torchrun, of a SLURM array, of the tasks of a SLURM job. The first that are set count."""


class ShardOfPacks(Distribution):
    """The packs of one worker of several that have the same request."""

    def __init__(self, shard: Shard) -> None:
        """Start before the first block."""
        super().__init__()
        self.index, self.count = shard
        self.share = 1 / self.count

    def own(self, packs: Packs, tokens: TokenBatch, missing: Missing) -> Missing:
        """Return the part of what a block lacks that is in packs of this worker."""
        lengths, is_own = tokens.run_lengths, np.zeros(len(tokens.uncut), bool)
        members_of_packs = [np.concatenate(list(pack)) for pack in packs]
        sizes = [int(lengths[members].sum()) for members in members_of_packs]
        for worker, members in zip(deal(sizes, self.count, self.block), members_of_packs, strict=True):
            is_own[members] = worker == self.index
        parts = [(columns, members[is_own[members]]) for columns, members in missing]
        return [(columns, members) for columns, members in parts if len(members)]


def deal(sizes: Sequence[int], workers: int, first: int) -> list[int]:
    """Deal the packs of a block to workers, ``[pack]``: each pack to the worker that has the fewest tokens so far.

    A worker never has more tokens than another by more than one pack. Ties go to the lowest number from ``first`` on,
    which is the number of the block: blocks of few packs do not all go to the first workers, and a block that is
    stored need not be tokenized to know those after it.
    """
    heap = [(0, (worker - first) % workers, worker) for worker in range(workers)]
    heapq.heapify(heap)
    dealt = list[int]()
    for size in sizes:
        tokens, order, worker = heap[0]
        heapq.heapreplace(heap, (tokens + size, order, worker))
        dealt.append(worker)
    return dealt


def parse_shard(value: str | Shard, environment: Mapping[str, str] | None = None) -> Shard:
    """Return the number of a worker and of all workers, of ``"i/n"``, of a pair, or of ``"auto"``.

    Args:
        environment: where "auto" finds them; None takes that of this process.

    Raises:
        SpecError: there is no such shard, or the environment does not tell.
    """
    if value == AUTO:
        return _of_environment(os.environ if environment is None else environment)
    shown = value if isinstance(value, str) else "/".join(map(str, value))
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shown.strip())
    if not match:
        raise SpecError(f"--shard {shown!r}: expected I/N, for example 0/3 for the first of three workers, or auto.")
    index, count = int(match[1]), int(match[2])
    if index >= count:
        workers = f"the workers of {count:,} are 0 to {count - 1:,}" if count else "there must be at least one worker"
        raise SpecError(f"--shard {shown}: {workers}, counted from 0.")
    return index, count


def _of_environment(environment: Mapping[str, str]) -> Shard:
    for index, count, first, step in ENVIRONMENTS:
        if environment.get(index) and environment.get(count):
            values = environment[index], environment[count], environment.get(first, "0"), environment.get(step, "1")
            if not all(value.isdecimal() for value in values) or values[3].strip("0") == "":
                raise SpecError(f"--shard auto: {index} = {values[0]!r} and {count} = {values[1]!r} tell no shard.")
            number, workers, lowest, distance = map(int, values)
            return parse_shard(((number - lowest) // distance, workers))
    names = "; ".join(f"{index} and {count}" for index, count, *_ in ENVIRONMENTS)
    raise SpecError(
        f"--shard auto: none of these are set, which torchrun, SLURM arrays and SLURM tasks set: {names}. Give I/N."
    )
