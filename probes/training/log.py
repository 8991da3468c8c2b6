"""Training log: validation metrics, losses, gradient conflicts and frozen components, one line for each epoch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.device.transfer import to_numpy

StepRecord = dict[str, Any]
"""``losses``: task -> ``[member]``; ``weights``: task -> weight; ``cosines``: lists of two tasks and cosine. Tensors on
the device of the training, until :func:`on_cpu` makes arrays and numbers of them."""

Metrics = Mapping[str, Mapping[str, NDArray[np.floating]]]
"""Task -> validation metric -> ``[member]``; the first metric is the selection metric."""


def epoch_facts(
    losses: Mapping[str, NDArray[np.floating]], metrics: Metrics, stopped: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the numbers of an epoch for the event ``epoch``, lists over members.

    A number is None if it is undefined, or if the member had stopped before the epoch.

    Args:
        losses: task -> mean training loss, ``[member]``.
        stopped: ``[member]``.
    """

    def listed(values: NDArray[np.floating]) -> list[float | None]:
        pairs = zip(np.asarray(values).tolist(), stopped.tolist(), strict=True)
        return [None if ended or not math.isfinite(value) else value for value, ended in pairs]

    return {
        "loss": {task: listed(values) for task, values in losses.items()},
        "validation": {task: listed(next(iter(by_name.values()))) for task, by_name in metrics.items()},
        "metrics": {
            task: {name: listed(values) for name, values in by_name.items()} for task, by_name in metrics.items()
        },
    }


def on_cpu(records: Sequence[StepRecord]) -> list[StepRecord]:
    """Return records of steps as arrays and numbers; those that are stay as they are."""
    return [
        {
            "losses": {
                task: to_numpy(loss) if isinstance(loss, Tensor) else loss for task, loss in record["losses"].items()
            },
            "weights": {task: float(weight) for task, weight in record["weights"].items()},
            "cosines": [[first, second, float(cosine)] for first, second, cosine in record["cosines"]],
        }
        for record in records
    ]


@dataclass(frozen=True)
class TrainingLog:
    """Tables of a training, as lists of rows."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    """``task, epoch, metric, value``: validation metrics of the first member; epoch 0 is before training."""

    losses: list[dict[str, Any]] = field(default_factory=list)
    """``task, epoch, loss, value, weight``: mean loss before any weight and selection metric of the first member, and
    mean weight over the steps."""

    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """``epoch, first, second, cosine, conflict``: mean cosine of the gradients of two tasks by shared parameters, and
    the share of measured steps in which it was below 0."""

    frozen: list[dict[str, Any]] = field(default_factory=list)
    """``epoch, component``: frozen components, and after how many epochs."""

    def add_metrics(self, task: str, epoch: int, metrics: Mapping[str, NDArray[np.floating]]) -> None:
        """Add validation metrics of a task, metric -> ``[member]``."""
        for metric, values in metrics.items():
            self.figures.append({"task": task, "epoch": epoch, "metric": metric, "value": float(values[0])})

    def add_losses(
        self, epoch: int, steps: Sequence[StepRecord], values: Mapping[str, NDArray[np.floating]]
    ) -> dict[str, NDArray[np.floating]]:
        """Add the mean losses of an epoch.

        Args:
            epoch: counted from 1.
            steps: records of the epoch's steps.
            values: task -> selection metric after the epoch, ``[member]``.

        Returns:
            Task -> mean loss, ``[member]``; NaN if the task had no step.
        """
        losses: dict[str, NDArray[np.floating]] = {}
        for task, value in values.items():
            own_steps = [step for step in steps if task in step["losses"]]
            missing = np.full(len(value), np.nan)
            losses[task] = np.mean([step["losses"][task] for step in own_steps], axis=0) if own_steps else missing
            weight = float(np.mean([step["weights"][task] for step in own_steps])) if own_steps else None
            numbers = {"loss": float(losses[task][0]), "value": float(value[0]), "weight": weight}
            self.losses.append({"task": task, "epoch": epoch} | numbers)
        return losses

    def add_conflicts(self, epoch: int, steps: Sequence[StepRecord]) -> None:
        """Add the gradient cosines of an epoch, counted from 1, of every measured pair of tasks."""
        pairs: dict[tuple[str, str], list[float]] = {}
        for step in steps:
            for first, second, cosine in step["cosines"]:
                pairs.setdefault((first, second), []).append(cosine)
        for (first, second), cosines in pairs.items():
            numbers = {"cosine": float(np.mean(cosines)), "conflict": float(np.mean(np.array(cosines) < 0))}
            self.conflicts.append({"epoch": epoch, "first": first, "second": second} | numbers)

    def describe(self, epoch: int) -> str:
        """Return an epoch as text: loss, weight and metrics of every task, then the gradient conflicts.

        A single task is not named.
        """
        tasks, parts = list(dict.fromkeys(line["task"] for line in self.figures)), []
        for task in tasks:
            numbers = [
                f"loss {line['loss']:.4f}"
                + (f", weight {line['weight']:.3g}" if line["weight"] not in (None, 1.0) else "")
                for line in self.losses
                if (line["task"], line["epoch"]) == (task, epoch) and not math.isnan(line["loss"])
            ]
            numbers += [
                f"{line['metric']} {line['value']:.4f}"
                for line in self.figures
                if (line["task"], line["epoch"]) == (task, epoch)
            ]
            parts.append((f"{task}: " if len(tasks) > 1 else "") + ", ".join(numbers))
        parts += [
            f"gradients of {line['first']} and {line['second']}: cosine {line['cosine']:.2f}, in conflict in "
            f"{line['conflict']:.0%} of steps"
            for line in self.conflicts
            if line["epoch"] == epoch
        ]
        return "; ".join(parts)

    def state_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables by name."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, list[dict[str, Any]]]) -> None:
        """Load tables of :meth:`state_dict`, in place."""
        for name, lines in state.items():
            getattr(self, name)[:] = lines
