"""Training objectives: one TaskObjective for each task, and the TrainingProblem that fit() optimises."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Balancer

Order = Literal["joint", "round_robin", "proportional", "temperature"]
"""Order of the batches of several tasks."""


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

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and end of each batch of an epoch."""
        return list(batch_bounds(self.rows, self.batch_rows, self.smallest_batch))


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

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        parameters = {
            f"{component}.{name}": parameter
            for component, module in self.modules.items()
            for name, parameter in module.named_parameters()
        }
        return {name: parameter for name, parameter in parameters.items() if name in self.member_of}

    def parameters_and_members(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Return each trained parameter with its ``[first axis]`` of members."""
        return [(parameter, self.member_of[name]) for name, parameter in self.named_parameters().items()]

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


def batch_bounds(rows: int, size: int, smallest: int) -> Iterator[tuple[int, int]]:
    """Return start and end of consecutive batches; a last one below ``smallest`` is merged into the one before."""
    starts = list(range(0, rows, max(size, smallest)))
    if len(starts) > 1 and rows - starts[-1] < smallest:
        starts.pop()
    return zip(starts, [*starts[1:], rows], strict=True)
