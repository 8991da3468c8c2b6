"""Lessons: what fit() trains, a lesson a task, and how the batches of several tasks follow each other."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from data.spec import SpecError
from probes.balancing import Balancer

Order = Literal["joint", "turns", "proportion", "temperature"]
"""How batches of several tasks follow each other."""

DRAWS = 1 << 20
"""Beside a seed, what draws the order of tasks."""


@dataclass(frozen=True)
class Lesson:
    """What is learnt of one task."""

    loss: Callable[[NDArray[np.int64]], Tensor]
    """Training rows in the order of each distinct seed, ``[order, row]`` -> ``[member]``."""

    validate: Callable[[], Mapping[str, NDArray[np.floating]]]
    """Metric -> its value for each member, ``[member]``, nan where there is none. The first one chooses, and is the
    better the larger."""

    rows: int
    """Training rows."""

    batch_rows: int
    smallest_batch: int = 1
    """Rows below which the loss does not exist; such a batch joins its neighbour."""

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Where the batches of an epoch begin and end."""
        return list(batch_bounds(self.rows, self.batch_rows, self.smallest_batch))


@dataclass(frozen=True)
class Learner:
    """What fit() trains."""

    modules: Mapping[str, nn.Module]
    """Component -> its module; a parameter is called by both: ``upper.model...``, ``topic.head.weight``."""

    owners: Mapping[str, Tensor]
    """Parameter -> ``[first axis]``, the member that each of its parts belongs to. What is not here is not trained."""

    lessons: Mapping[str, Lesson]
    """Task -> its lesson; with several there is one member."""

    order: Order = "joint"
    temperature: float = 1.0
    """Of the order temperature: tasks are drawn by their batches to the power of its inverse."""

    balancer: Balancer | None = None
    """How the losses of a step become gradients; None adds them up."""

    shared: tuple[str, ...] = ()
    """Components that more than one task reads."""

    absent: tuple[str, ...] = ()
    """Components that a recipe knows and this training does not have: settings of theirs are no mistake."""

    private: bool = True
    """Whether each task keeps its own best state of what is shared, or all keep the one that is best for their mean."""

    def named(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        found = {
            f"{component}.{name}": part
            for component, module in self.modules.items()
            for name, part in module.named_parameters()
        }
        return {name: part for name, part in found.items() if name in self.owners}

    def parts(self) -> list[tuple[nn.Parameter, Tensor]]:
        """What is trained: parameters with the owners of their parts."""
        return [(part, self.owners[name]) for name, part in self.named().items()]

    def read_by(self, task: str) -> list[str]:
        """The parameters that a task's figures depend on."""
        others = tuple(f"{one}." for one in self.lessons if one != task)
        return [name for name in self.named() if not name.startswith(others)]


class Batches:
    """The steps of every epoch: which rows of which tasks each takes."""

    def __init__(self, learner: Learner, seeds: Sequence[int]) -> None:
        self.lessons, self.order = learner.lessons, learner.order
        self.bounds = {task: lesson.bounds for task, lesson in learner.lessons.items()}
        counts = {task: len(bounds) for task, bounds in self.bounds.items()}
        self.steps = max(counts.values()) if self.order == "joint" else sum(counts.values())
        """Of an epoch."""
        sizes = np.array(list(counts.values()), float) ** (1 / learner.temperature)
        self._chances = sizes / sizes.sum()
        distinct = sorted(set(seeds))
        self._shufflers = {
            task: [np.random.default_rng([seed, place] if place else seed) for seed in distinct]
            for place, task in enumerate(learner.lessons)
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
        if self.order == "turns":
            rounds = itertools.zip_longest(*([task] * count for task, count in counts.items()))
            return [task for one in rounds for task in one if task is not None]
        tasks = list(counts)
        if self.order == "proportion":
            every = np.repeat(np.arange(len(tasks)), list(counts.values()))
            return [tasks[place] for place in self._chooser.permutation(every)]
        return [tasks[place] for place in self._chooser.choice(len(tasks), self.steps, p=self._chances)]

    def state(self) -> dict[str, Any]:
        """What draws the rest, as an epoch begins."""
        generators = [one for some in self._shufflers.values() for one in some]
        return {"generators": [one.bit_generator.state for one in (*generators, self._chooser)]}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on as when :meth:`state` was asked."""
        generators = [one for some in self._shufflers.values() for one in some]
        for one, saved in zip((*generators, self._chooser), state["generators"], strict=True):
            one.bit_generator.state = saved


def check(learner: Learner) -> None:
    """Raise a :class:`SpecError` where there is nothing to train, or less than a batch."""
    for task, lesson in learner.lessons.items():
        if lesson.rows < lesson.smallest_batch:
            place = f"{task}: " if len(learner.lessons) > 1 else ""
            raise SpecError(
                f"{place}{lesson.rows} training rows are too few: this loss needs {lesson.smallest_batch} in a batch."
            )
    if not learner.owners:
        raise SpecError("there is nothing to train: an encoder 'none' under a mixer 'last' or 'concat' has no weights.")


def orders_of(seeds: Sequence[int]) -> NDArray[np.int64]:
    """``[member]``: which order of rows each member takes; those of one seed take the same."""
    return np.searchsorted(sorted(set(seeds)), seeds)


def batch_bounds(rows: int, size: int, smallest: int) -> Iterator[tuple[int, int]]:
    """Consecutive batches; a last one that is too small for its loss joins the one before."""
    starts = list(range(0, rows, max(size, smallest)))
    if len(starts) > 1 and rows - starts[-1] < smallest:
        starts.pop()
    return zip(starts, [*starts[1:], rows], strict=True)
