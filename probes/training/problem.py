"""Lessons: what fit() trains, a lesson a task."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer

Order = Literal["joint", "round_robin", "proportional", "temperature"]
"""How batches of several tasks follow each other."""


@dataclass(frozen=True)
class TaskObjective:
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
class TrainingProblem:
    """What fit() trains."""

    modules: Mapping[str, nn.Module]
    """Component -> its module; a parameter is called by both: ``backbone.blocks...``, ``topic.head.weight``."""

    member_of: Mapping[str, Tensor]
    """Parameter -> ``[first axis]``, the member that each of its parts belongs to. What is not here is not trained."""

    objectives: Mapping[str, TaskObjective]
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
        return {name: part for name, part in found.items() if name in self.member_of}

    def parts(self) -> list[tuple[nn.Parameter, Tensor]]:
        """What is trained: parameters with the owners of their parts."""
        return [(part, self.member_of[name]) for name, part in self.named().items()]

    def read_by(self, task: str) -> list[str]:
        """The parameters that a task's figures depend on."""
        others = tuple(f"{one}." for one in self.objectives if one != task)
        return [name for name in self.named() if not name.startswith(others)]


def check(problem: TrainingProblem) -> None:
    """Raise a :class:`SpecError` where there is nothing to train, or less than a batch."""
    for task, objective in problem.objectives.items():
        if objective.rows < objective.smallest_batch:
            place = f"{task}: " if len(problem.objectives) > 1 else ""
            raise SpecError(
                f"{place}{objective.rows} training rows are too few: this loss needs {objective.smallest_batch} in a batch."
            )
    if not problem.member_of:
        raise SpecError("there is nothing to train: an encoder 'none' under a mixer 'last' or 'concat' has no weights.")


def batch_bounds(rows: int, size: int, smallest: int) -> Iterator[tuple[int, int]]:
    """Consecutive batches; a last one that is too small for its loss joins the one before."""
    starts = list(range(0, rows, max(size, smallest)))
    if len(starts) > 1 and rows - starts[-1] < smallest:
        starts.pop()
    return zip(starts, [*starts[1:], rows], strict=True)
