"""What a balancer is: it does the backward passes of a step of several tasks; its ``state_dict`` has what it learns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from data.spec import SpecError

FORMS = {"mse": "squares", "log_variance": "log_squares", "cross_entropy": "classes", "span": "classes"}
"""What a loss is to a balancer: squared residuals, the log of their variance, or how unlikely the right class is."""


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


@dataclass(frozen=True)
class Balanced:
    """What a step came to, for the log."""

    weights: dict[str, float]
    """Task -> the factor at which the gradient of its loss entered the gradient of the shared parameters."""

    cosines: dict[tuple[str, str], float]
    """Two tasks -> the cosine of their gradients by the shared parameters, 0 where one has none; below 0 they conflict.
    Empty where the balancer does not compare gradients."""


class Balancer(nn.Module):
    """One way of balancing; its state is in the order of ``tasks``."""

    compares: ClassVar[bool] = False
    """Whether it compares gradients, and so needs all tasks in every step and a shared part that is trained."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.tasks, self.spec, self.generator = dict(tasks), spec, generator

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """Give every parameter the gradient that the optimizer is to step on; call it after ``zero_grad()``.

        A parameter outside ``shared`` gets the sum of its tasks' weighted gradients.

        Args:
            losses: task -> its loss as :mod:`probes.losses` gives it, a scalar or ``[member]`` of one member.
            shared: what all tasks share; only balancers that compare gradients look at it.

        Raises:
            SpecError: a task is missing from the step of a balancer that compares gradients.
        """
        raise NotImplementedError

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer of the model: what the balancer leaves to it to learn."""
        parameters = list(self.parameters())
        return [{"params": parameters, "lr": self.spec.learning_rate, "weight_decay": 0.0}] if parameters else []

    def _joint(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """The losses in the order of the tasks."""
        if missing := [task for task in self.tasks if task not in losses]:
            raise SpecError(
                f"balancer '{self.spec.balancer}' needs joint steps, one batch of every task in each; "
                f"'{missing[0]}' is not in this one."
            )
        return [losses[task].reshape(()) for task in self.tasks]
