"""Batches: the rows of each task in every step of a training, and the order of tasks."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.probes.training.problem import TrainingProblem

TASK_ORDER_STREAM = 1 << 20
"""Second number, with a seed, of the generator that draws the order of tasks."""


class Batches:
    """Batches of every epoch, drawn from one generator for each task and seed, and one for the order of tasks."""

    def __init__(self, problem: TrainingProblem, seeds: Sequence[int]) -> None:
        self.objectives, self.order = problem.objectives, problem.order
        self.bounds = {task: objective.bounds for task, objective in problem.objectives.items()}
        counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        self.steps = max(counts.values()) if self.order == "joint" else sum(counts.values())
        """Number of steps of an epoch."""
        sizes = np.array(list(counts.values()), float) ** (1 / problem.temperature)
        self._probabilities = sizes / sizes.sum()
        distinct = sorted(set(seeds))
        self._row_generators = {
            task: [np.random.default_rng([seed, index] if index else seed) for seed in distinct]
            for index, task in enumerate(problem.objectives)
        }
        self._task_generator = np.random.default_rng([distinct[0], TASK_ORDER_STREAM])

    def epoch(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Yield for each step task -> rows, ``[order, row]``; a joint step has all tasks, any other one task."""
        streams = {task: self._stream(task) for task in self.objectives}
        if self.order == "joint":
            for _ in range(self.steps):
                yield {task: next(stream) for task, stream in streams.items()}
            return
        for task in self._task_order():
            yield {task: next(streams[task])}

    def _stream(self, task: str) -> Iterator[NDArray[np.int64]]:
        rows = self.objectives[task].rows
        while True:
            orders = np.stack([generator.permutation(rows) for generator in self._row_generators[task]])
            for start, end in self.bounds[task]:
                yield orders[:, start:end]

    def _task_order(self) -> list[str]:
        """Return the task of each step."""
        counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        if self.order == "round_robin":
            rounds = itertools.zip_longest(*([task] * count for task, count in counts.items()))
            return [task for tasks in rounds for task in tasks if task is not None]
        names = list(counts)
        if self.order == "proportional":
            repeated = np.repeat(np.arange(len(names)), list(counts.values()))
            return [names[index] for index in self._task_generator.permutation(repeated)]
        drawn = self._task_generator.choice(len(names), self.steps, p=self._probabilities)
        return [names[index] for index in drawn]

    def _generators(self) -> list[np.random.Generator]:
        return [*itertools.chain(*self._row_generators.values()), self._task_generator]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators; complete only between epochs."""
        return {"generators": [generator.bit_generator.state for generator in self._generators()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        for generator, saved in zip(self._generators(), state["generators"], strict=True):
            generator.bit_generator.state = saved


def order_indices(seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return ``[member]``, the index of each member's order of rows; members of one seed share an order."""
    return np.searchsorted(sorted(set(seeds)), seeds)
