"""Batches: which rows of which tasks each step of a training takes, and how the batches of several tasks follow."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.training.problem import TrainingProblem

DRAWS = 1 << 20
"""Beside a seed, what draws the order of tasks."""


class Batches:
    """The steps of every epoch: which rows of which tasks each takes."""

    def __init__(self, problem: TrainingProblem, seeds: Sequence[int]) -> None:
        self.lessons, self.order = problem.objectives, problem.order
        self.bounds = {task: objective.bounds for task, objective in problem.objectives.items()}
        counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        self.steps = max(counts.values()) if self.order == "joint" else sum(counts.values())
        """Of an epoch."""
        sizes = np.array(list(counts.values()), float) ** (1 / problem.temperature)
        self._chances = sizes / sizes.sum()
        distinct = sorted(set(seeds))
        self._shufflers = {
            task: [np.random.default_rng([seed, place] if place else seed) for seed in distinct]
            for place, task in enumerate(problem.objectives)
        }
        self._chooser = np.random.default_rng([distinct[0], DRAWS])

    def epoch(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Task -> its rows in the step, ``[order, row]``; of joint steps all tasks, of the others one."""
        streams = {task: self._stream(task) for task in self.lessons}
        if self.order == "joint":
            for _ in range(self.steps):
                yield {task: next(stream) for task, stream in streams.items()}
            return
        for task in self._turns():
            yield {task: next(streams[task])}

    def _stream(self, task: str) -> Iterator[NDArray[np.int64]]:
        while True:
            orders = np.stack([one.permutation(self.lessons[task].rows) for one in self._shufflers[task]])
            for start, end in self.bounds[task]:
                yield orders[:, start:end]

    def _turns(self) -> list[str]:
        """The task of each step."""
        counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        if self.order == "round_robin":
            rounds = itertools.zip_longest(*([task] * count for task, count in counts.items()))
            return [task for one in rounds for task in one if task is not None]
        tasks = list(counts)
        if self.order == "proportional":
            every = np.repeat(np.arange(len(tasks)), list(counts.values()))
            return [tasks[place] for place in self._chooser.permutation(every)]
        return [tasks[place] for place in self._chooser.choice(len(tasks), self.steps, p=self._chances)]

    def state_dict(self) -> dict[str, Any]:
        """What draws the rest, as an epoch begins."""
        generators = [one for some in self._shufflers.values() for one in some]
        return {"generators": [one.bit_generator.state for one in (*generators, self._chooser)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as when :meth:`state` was asked."""
        generators = [one for some in self._shufflers.values() for one in some]
        for one, saved in zip((*generators, self._chooser), state["generators"], strict=True):
            one.bit_generator.state = saved


def orders_of(seeds: Sequence[int]) -> NDArray[np.int64]:
    """``[member]``: which order of rows each member takes; those of one seed take the same."""
    return np.searchsorted(sorted(set(seeds)), seeds)
