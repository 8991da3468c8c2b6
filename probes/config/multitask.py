"""Settings of ``[multitask]`` and ``[balancing]``: how several tasks are trained together."""

import math
from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.spec import SpecError


@dataclass(frozen=True)
class MultitaskSpec:
    """How several tasks are trained: one after the other, or together on shared blocks."""

    schedule: Literal["separate", "joint", "round_robin", "proportional", "temperature"] = "separate"
    """Order of training. "separate" trains one probe per layer and task. The other schedules train all tasks together
    on the blocks of [finetune], each task with its own head: "joint" takes a batch of every task in each step and
    combines the losses as set in [balancing] (a task with fewer rows starts over); "round_robin" alternates between the
    tasks; "proportional" shuffles the batches of all tasks; "temperature" draws a task per step, with probability
    proportional to its number of batches to the power of 1 / temperature."""

    temperature: float = 2.0
    """Temperature of the schedule "temperature", 1 or more: 1 draws tasks in proportion to their number of batches; the
    higher, the closer to a uniform draw."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks to train; empty trains all. A variant with a single task is the single-task baseline."""

    keep: Literal["each", "one"] = "each"
    """Which weights of the shared blocks are kept: "each" keeps, for every task, those of the task's best epoch; "one"
    keeps those of the epoch with the best mean of the tasks' metrics, for all tasks."""

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise SpecError(f"temperature must be 1 or more, got {self.temperature}.")
        if len(set(self.tasks)) < len(self.tasks):
            raise SpecError(f"tasks names one twice: {list(self.tasks)}.")


@dataclass(frozen=True, kw_only=True)
class BalancingSpec:
    """How the losses of tasks that are trained together are balanced."""

    balancer: Literal["equal", "fixed", "uncertainty", "gradnorm", "pcgrad"] = "equal"
    """Balancing method. "equal" sums the losses; "fixed" multiplies them by weights; "uncertainty" weights them by a
    learned noise level per task (Kendall et al. 2018); "gradnorm" learns weights that balance the gradient norms of the
    tasks (Chen et al. 2018); "pcgrad" projects each task's gradient off the conflicting gradients of other tasks (Yu et
    al. 2020). The last two need multitask.schedule = "joint" and trained blocks that the tasks share."""

    weights: dict[str, float] = field(default_factory=dict)
    """For "fixed": the weight of each task's loss by task name, e.g. {topic = 0.5, tone = 0.5}; every task needs
    one."""

    learning_rate: float = 0.025
    """For "uncertainty" and "gradnorm": learning rate of the learned task weights."""

    alpha: float = 1.5
    """For "gradnorm": how strongly slowly learning tasks are favoured; 0 makes the gradient norms of all tasks
    equal."""

    bounds: tuple[float, float] = (-5.0, 5.0)
    """For "uncertainty": lower and upper bound of a task's log-variance; the default keeps weights within e^-5 and
    e^5."""

    def __post_init__(self) -> None:
        for task, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise SpecError(f"weights: the weight of '{task}' must be positive and finite, got {weight}.")
        if self.balancer == "fixed" and not self.weights:
            raise SpecError("balancer 'fixed' needs the weight of every task; set weights, for example {a = 1.0}.")
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate must be positive and finite, got {self.learning_rate}.")
        if not 0 <= self.alpha < math.inf:
            raise SpecError(f"alpha must not be negative, got {self.alpha}.")
        if not -math.inf < self.bounds[0] <= 0 <= self.bounds[1] < math.inf or self.bounds[0] == self.bounds[1]:
            raise SpecError(f"bounds must be finite, with 0, where learning starts, between, got {list(self.bounds)}.")
