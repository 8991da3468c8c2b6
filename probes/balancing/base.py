"""What a balancer is: it does the backward passes of a step of several tasks; its ``state_dict`` has what it learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.config.multitask import BalancingSpec

FORMS = {"mse": "squares", "log_variance": "log_squares", "cross_entropy": "classes", "span": "classes"}
"""What a loss is to a balancer: squared residuals, the log of their variance, or how unlikely the right class is."""


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
