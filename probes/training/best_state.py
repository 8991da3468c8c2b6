"""Best state of a training: the best weights so far of each member, or of each task, and early stopping."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.probes.training.log import TrainingLog
from permafrost.probes.training.problem import TrainingProblem


@dataclass(frozen=True)
class History:
    """Losses and validation metrics of one member; its weights are those of ``best_epoch``."""

    best_epoch: int
    """Counted from 0; -1 if the validation metric was never finite."""

    best_value: float
    losses: tuple[float, ...] = field(repr=False)
    """Mean training loss of each epoch."""

    values: tuple[float, ...] = field(repr=False)
    """Validation metric of each epoch, up to the member's early stop."""


STATE_FIELDS = ("value", "epoch", "stopped", "losses", "values", "weights")
"""Attributes of a best state that a checkpoint keeps."""

ALL_TASKS = ""
"""Key of the best state that all tasks share."""


class BestState:
    """Best weights of each member so far, and whether the member has stopped early."""

    def __init__(self, parameters: Mapping[str, tuple[nn.Parameter, Tensor]], members: int, patience: int) -> None:
        """Start without a best epoch.

        Args:
            parameters: name -> parameter and ``[first axis]``, the member that each index belongs to.
            members: number of members.
            patience: epochs without a better value after which a member stops.
        """
        self.parameters, self.patience = parameters, patience
        self.value = np.full(members, -math.inf)
        self.epoch = np.full(members, -1)
        self.stopped = np.zeros(members, bool)
        self.losses: list[list[float]] = [[] for _ in range(members)]
        self.values: list[list[float]] = [[] for _ in range(members)]
        self.weights = {name: parameter.detach().clone() for name, (parameter, _) in parameters.items()}

    def update(self, epoch: int, losses: Any, values: Any) -> bool:
        """Add the losses and values of an epoch, ``[member]``; return whether any member still trains."""
        for member in np.flatnonzero(~self.stopped):
            self.losses[member].append(float(losses[member]))
            self.values[member].append(float(values[member]))
        better = ~self.stopped & np.greater(values, self.value)  # nan is never greater
        self.value[better], self.epoch[better] = np.asarray(values)[better], epoch
        if better.any():
            better_members = torch.from_numpy(better)
            for name, (parameter, member_of) in self.parameters.items():
                mask = better_members[member_of]
                self.weights[name][mask] = parameter.detach()[mask]
        self.stopped |= epoch - self.epoch >= self.patience
        return not self.stopped.all()

    def restore(self) -> None:
        """Copy the best weights to the parameters."""
        with torch.no_grad():
            for name, (parameter, _) in self.parameters.items():
                parameter.copy_(self.weights[name])

    def histories(self) -> list[History]:
        """Return the history of each member."""
        return [
            History(int(epoch), float(value), tuple(losses), tuple(values))
            for epoch, value, losses, values in zip(self.epoch, self.value, self.losses, self.values, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes of :data:`STATE_FIELDS`."""
        return {name: getattr(self, name) for name in STATE_FIELDS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`; raise :class:`ValueError` if a weight has another shape."""
        weights = {
            name: check_shape(state["weights"][name], parameter).to(parameter.device)
            for name, (parameter, _) in self.parameters.items()
        }
        for name in STATE_FIELDS:
            setattr(self, name, state[name])
        self.weights = weights


class BestStates:
    """Best states of a training: one for each task, or one for all tasks, the best by their mean metric."""

    def __init__(self, problem: TrainingProblem, members: int, patience: int) -> None:
        named = problem.named_parameters()
        if len(problem.objectives) > 1 and not problem.private:
            kept = {ALL_TASKS: list(named)}
        else:
            kept = {task: problem.parameters_of(task) for task in problem.objectives}
        self.by_task = {
            task: BestState({name: (named[name], problem.member_of[name]) for name in names}, members, patience)
            for task, names in kept.items()
        }

    def update(
        self, epoch: int, losses: Mapping[str, NDArray[np.floating]], values: Mapping[str, NDArray[np.floating]]
    ) -> bool:
        """Add task -> losses and values of an epoch, ``[member]``; return whether any member of a task still trains."""
        if set(self.by_task) == {ALL_TASKS}:
            mean_loss, mean_value = (np.mean(list(numbers.values()), axis=0) for numbers in (losses, values))
            return self.by_task[ALL_TASKS].update(epoch, mean_loss, mean_value)
        training = [best.update(epoch, losses[task], values[task]) for task, best in self.by_task.items()]
        return any(training)

    @property
    def stopped(self) -> NDArray[np.bool_]:
        """``[member]``, whether a member has stopped in all of its tasks."""
        stopped: NDArray[np.bool_] = np.stack([best.stopped for best in self.by_task.values()]).min(0)
        return stopped

    def restore(self, task: str | None = None) -> None:
        """Copy the best weights of a task to the parameters, or those of every task, one task after another."""
        chosen = self.by_task if task is None else [task if task in self.by_task else ALL_TASKS]
        for name in chosen:
            self.by_task[name].restore()

    def histories(self, task: str, log: TrainingLog) -> list[History]:
        """Return the history of each member in a task; of a shared best state, with the task's own values."""
        if task in self.by_task:
            return self.by_task[task].histories()
        (shared,) = self.by_task[ALL_TASKS].histories()
        lines = [line for line in log.losses if line["task"] == task]
        losses, values = (tuple(line[name] for line in lines) for name in ("loss", "value"))
        best = values[shared.best_epoch] if shared.best_epoch >= 0 else shared.best_value
        return [History(shared.best_epoch, best, losses, values)]

    def state_dict(self) -> dict[str, Any]:
        """Return task, or ``all``, -> state."""
        return {task or "all": best.state_dict() for task, best in self.by_task.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        for task, best in self.by_task.items():
            best.load_state_dict(state[task or "all"])


def check_shape(saved: Tensor, parameter: Tensor) -> Tensor:
    """Return the saved value of a parameter; raise :class:`ValueError` if it has another shape."""
    if saved.shape != parameter.shape:
        raise ValueError(f"expected the shape {list(parameter.shape)}, got {list(saved.shape)}.")
    return saved
