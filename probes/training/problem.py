"""Training objectives: a TaskObjective for each task, the TrainingProblem that fit() optimises, and its batches."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer
from permafrost.probes.inputs.disk import ReadingAhead
from permafrost.probes.training.row_order import row_blocks, rows_to_come

Order = Literal["joint", "round_robin", "proportional", "temperature"]
"""Order of the batches of several tasks."""

TASK_ORDER_STREAM = 1 << 20
"""Second number, with a seed, of the generator that draws the order of tasks."""


AHEAD = 2
"""Number of batches that are read before they are trained on."""


@dataclass(frozen=True, kw_only=True)
class TaskObjective:
    """Loss, validation metrics and batch size of one task."""

    loss: Callable[[NDArray[np.int64]], Tensor]
    """Loss of training rows ``[order, row]``, one order for each distinct seed -> ``[member]``."""

    validate: Callable[[], Mapping[str, NDArray[np.floating]]]
    """Validation metrics, metric name -> ``[member]``; NaN if undefined. The first is the selection metric (higher is
    better)."""

    rows: int
    """Number of training rows."""

    batch_rows: int
    smallest_batch: int = 1
    """Minimum batch size for which the loss is defined (2 for log-variance); a smaller last batch is merged into the
    one before."""

    ahead: ReadingAhead | None = None
    """How batches are read ahead; None if that gains nothing."""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and end of each batch of an epoch."""
        starts = list(range(0, self.rows, max(self.batch_rows, self.smallest_batch)))
        if len(starts) > 1 and self.rows - starts[-1] < self.smallest_batch:
            starts.pop()
        return list(itertools.pairwise([*starts, self.rows]))


@dataclass(frozen=True, kw_only=True)
class TrainingProblem:
    """Modules, objectives and balancer of one training."""

    modules: Mapping[str, nn.Module]
    """Component -> module; names of parameters begin with the component: ``backbone.blocks``, ``topic.head.weight``."""

    member_of: Mapping[str, Tensor]
    """Parameter -> ``[first axis]``, the member that each index belongs to; other parameters are not trained."""

    objectives: Mapping[str, TaskObjective]
    """Task -> objective; with several tasks there is one member."""

    order: Order = "joint"
    temperature: float = 1.0
    """Of the order ``temperature``: a task is drawn in proportion to its number of batches to the power of ``1 /
    temperature``."""

    balancer: Balancer | None = None
    """Combines the losses of a step; None sums them."""

    shared: tuple[str, ...] = ()
    """Components that more than one task uses."""

    absent: tuple[str, ...] = ()
    """Components of the recipe that this training does not have: settings may name them."""

    private: bool = True
    """Whether each task has its own best state of the shared components; otherwise all have the one that is best by the
    mean of the tasks' metrics."""

    @property
    def device(self) -> torch.device:
        """Device of the trained parameters."""
        return next(iter(self.named_parameters().values())).device

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return {
            full_name: parameter
            for component, module in self.modules.items()
            for name, parameter in module.named_parameters()
            if (full_name := f"{component}.{name}") in self.member_of
        }

    def owned_parameters(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Return each trained parameter, and its :attr:`member_of` on its device."""
        named = self.named_parameters().items()
        return [(parameter, self.member_of[name].to(parameter.device)) for name, parameter in named]

    def parameters_of(self, task: str) -> list[str]:
        """Return the names of the parameters that a task uses: all but those of other tasks."""
        others = tuple(f"{other}." for other in self.objectives if other != task)
        return [name for name in self.named_parameters() if not name.startswith(others)]


def check_problem(problem: TrainingProblem) -> None:
    """Raise a :class:`SpecError` if there are no parameters to train, or fewer rows than the smallest batch."""
    for task, objective in problem.objectives.items():
        if objective.rows < objective.smallest_batch:
            prefix = f"{task}: " if len(problem.objectives) > 1 else ""
            raise SpecError(
                f"{prefix}{objective.rows} training rows are too few: this loss needs {objective.smallest_batch} in a "
                "batch."
            )
    if not problem.member_of:
        raise SpecError("there is nothing to train: an encoder 'none' under a mixer 'last' or 'concat' has no weights.")


class Batches:
    """Batches of every epoch, drawn from one generator for each task and seed, and one for the order of tasks."""

    def __init__(self, problem: TrainingProblem, seeds: Sequence[int]) -> None:
        self.objectives, self.order = problem.objectives, problem.order
        self.bounds = {task: objective.bounds for task, objective in problem.objectives.items()}
        self.counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        """Task -> number of its batches."""
        self.steps = max(self.counts.values()) if self.order == "joint" else sum(self.counts.values())
        """Number of steps of an epoch."""
        sizes = np.array(list(self.counts.values()), float) ** (1 / problem.temperature)
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
        steps = [list(streams)] * self.steps if self.order == "joint" else [[task] for task in self._task_order()]
        for tasks in steps:
            yield {task: next(streams[task]) for task in tasks}

    def _stream(self, task: str) -> Iterator[NDArray[np.int64]]:
        objective = self.objectives[task]
        while True:
            blocks = [row_blocks(objective.rows, generator) for generator in self._row_generators[task]]
            orders = np.stack([np.concatenate(order) for order in blocks])
            if objective.ahead is None:
                yield from (orders[:, start:end] for start, end in self.bounds[task])
                continue
            for order in blocks:
                objective.ahead.later(np.sort(order[0]))
            coming = rows_to_come(blocks)
            for start, end in self.bounds[task]:
                objective.ahead.later(coming[:, start:end])
                yield orders[:, start:end]

    def _task_order(self) -> list[str]:
        """Return the task of each step."""
        if self.order == "round_robin":
            rounds = itertools.zip_longest(*([task] * count for task, count in self.counts.items()))
            return [task for tasks in rounds for task in tasks if task is not None]
        names = list(self.counts)
        if self.order == "proportional":
            drawn = self._task_generator.permutation(np.repeat(np.arange(len(names)), list(self.counts.values())))
        else:
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


def read_ahead(
    batches: Iterator[dict[str, NDArray[np.int64]]], objectives: Mapping[str, TaskObjective]
) -> Generator[dict[str, NDArray[np.int64]]]:
    """Yield the batches of :meth:`Batches.epoch`; the next :data:`AHEAD` of each are being read meanwhile."""
    ahead = {task: objective.ahead for task, objective in objectives.items() if objective.ahead}
    waiting: deque[dict[str, NDArray[np.int64]]] = deque()
    try:
        for batch in batches:
            for task in batch.keys() & ahead.keys():
                ahead[task].batch(batch[task])
            waiting.append(batch)
            if len(waiting) > (AHEAD if ahead else 0):
                yield waiting.popleft()
        yield from waiting
    finally:
        for reading in ahead.values():
            reading.close()


def order_indices(seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return ``[member]``, the index of each member's order of rows; members of one seed share an order."""
    return np.searchsorted(sorted(set(seeds)), seeds)
