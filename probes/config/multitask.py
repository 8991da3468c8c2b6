"""Settings of ``[multitask]`` and ``[balancing]``: how several tasks are trained together."""

import math
from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.spec import SpecError


@dataclass(frozen=True)
class MultitaskSpec:
    """How several tasks are trained."""

    schedule: Literal["separate", "joint", "round_robin", "proportional", "temperature"] = "separate"
    """separate trains every layer alone on every task. The others train all tasks together on the blocks of [finetune], each
    with a head of its own: joint takes a batch of every task in each step and adds their losses up as [balancing] says
    (a task with fewer rows begins anew); round_robin takes one task after the other; proportional shuffles all of their
    batches; temperature draws a task for each step, by its number of batches to the power of 1 / temperature."""

    temperature: float = 2.0
    """At 1 tasks are drawn by their batches; the higher, the more alike."""

    tasks: tuple[str, ...] = ()
    """Which of the tasks; empty takes all. A variant with one of them shows what it comes to alone."""

    keep: Literal["each", "one"] = "each"
    """Which state of the shared blocks is kept: each task's own, of the epoch that is its best; or one for all, of the
    epoch with the best mean of their metrics."""

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise SpecError(f"temperature must be 1 or more, got {self.temperature}.")
        if len(set(self.tasks)) < len(self.tasks):
            raise SpecError(f"tasks names one twice: {list(self.tasks)}.")


@dataclass(frozen=True)
class BalancingSpec:
    """How the losses of tasks that share an encoder weigh against each other."""

    balancer: Literal["equal", "fixed", "uncertainty", "gradnorm", "pcgrad"] = "equal"
    """equal adds the losses up; fixed weighs them by weights; uncertainty learns a noise level for each task and weighs
    by it (Kendall et al. 2018); gradnorm learns weights with which no task's gradient outgrows the others' (Chen et al.
    2018); pcgrad takes out of each gradient what works against another task (Yu et al. 2020). The last two need joint
    steps and a shared part that is trained."""

    weights: dict[str, float] = field(default_factory=dict)
    """Of fixed: the weight of every task's loss by the name of the task, for example {topic = 0.5, tone = 0.5}."""

    learning_rate: float = 0.025
    """Of uncertainty and gradnorm: how fast what they learn moves."""

    alpha: float = 1.5
    """Of gradnorm: how much a task that lags behind is favoured; at 0 all gradients become equally long."""

    bounds: tuple[float, float] = (-5.0, 5.0)
    """Of uncertainty: the least and the greatest task log-variance, which keep a weight between e^-5 and e^5."""

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
