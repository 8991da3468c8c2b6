"""Base class of balancers: combine the losses of several tasks in one training step.

A balancer does the backward passes of the step. What it learns is in its ``state_dict``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.config.multitask import BalancingSpec

FORMS = {
    "mse": "squares",
    "log_variance": "log_squares",
    "cross_entropy": "classes",
    "binary_cross_entropy": "classes",
    "span": "classes",
    "multiple_negatives_ranking": "classes",
}
"""Loss -> its form: squared residuals, log of the variance of residuals, or negative log likelihood of classes."""


def form_of(loss: str) -> str:
    """Return the form of a loss; one from outside is taken for a negative log likelihood."""
    return FORMS.get(loss, "classes")


Number = float | Tensor
"""Number of a step for the log; a scalar on the device of the training, so that no step waits for it."""


@dataclass(frozen=True)
class BalancedStep:
    """Weights and gradient cosines of one step, for the log."""

    weights: Mapping[str, Number]
    """Task -> factor of its gradient in the gradient of the shared parameters."""

    cosines: Mapping[tuple[str, str], Number]
    """Pair of tasks -> cosine of their gradients by the shared parameters, 0 if one has no gradient; below 0 they
    conflict. Empty if the balancer does not compare gradients."""


class Balancer(nn.Module):
    """Base of balancers. Parameters and buffers are in the order of ``tasks``."""

    compares: ClassVar[bool] = False
    """Whether it compares gradients: it then needs all tasks in every step, and shared parameters that are trained."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.tasks, self.spec, self.generator = dict(tasks), spec, generator

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> BalancedStep:
        """Set the gradient of every parameter; call it after ``zero_grad()`` and before the optimizer's step.

        A parameter outside ``shared`` gets the sum of its tasks' weighted gradients.

        Args:
            losses: task -> its loss, a scalar or ``[member]`` of one member.
            shared: parameters that all tasks share; only balancers that compare gradients use them.

        Raises:
            SpecError: a task is missing from the step of a balancer that compares gradients.
        """
        raise NotImplementedError

    def groups(self) -> list[dict[str, Any]]:
        """Return groups of the balancer's parameters for the optimizer of the model."""
        parameters = list(self.parameters())
        return [{"params": parameters, "lr": self.spec.learning_rate, "weight_decay": 0.0}] if parameters else []

    def _all_losses(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the losses in the order of the tasks, as scalars."""
        if missing := [task for task in self.tasks if task not in losses]:
            raise SpecError(
                f"balancer '{self.spec.balancer}' needs joint steps, one batch of every task in each; "
                f"'{missing[0]}' is not in this one."
            )
        return [losses[task].reshape(()) for task in self.tasks]
