"""What is worth knowing of a training, a line an epoch."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Log:
    """What is worth knowing of a training, a line an epoch."""

    figures: list[dict[str, Any]] = field(default_factory=list)
    """``task, epoch, metric, value`` of validation, of the first member; epoch 0 is before training."""

    losses: list[dict[str, Any]] = field(default_factory=list)
    """``task, epoch, loss, value, weight``: of the first member mean loss before any weight, and the metric that
    chooses; and mean weight in a step."""

    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """``epoch, first, second, cosine, conflict``: of the gradients of two tasks by what they share, the mean cosine,
    and the share of the steps looked at in which it was below 0."""

    frozen: list[dict[str, Any]] = field(default_factory=list)
    """``epoch, component``: what stopped learning, and after how many epochs."""

    def line(self, epoch: int) -> str:
        """An epoch in words: of every task its figures, and after training its loss and weight; who is in conflict.

        A task that is alone goes without its name.
        """
        tasks = list(dict.fromkeys(line["task"] for line in self.figures))
        names = {task: f"{task}: " if len(tasks) > 1 else "" for task in tasks}
        said = [name + self._of_task(task, epoch) for task, name in names.items()]
        said += [
            f"gradients of {line['first']} and {line['second']}: cosine {line['cosine']:.2f}, in conflict in "
            f"{line['conflict']:.0%} of steps"
            for line in self.conflicts
            if line["epoch"] == epoch
        ]
        return "; ".join(said)

    def _of_task(self, task: str, epoch: int) -> str:
        said = [
            f"loss {line['loss']:.4f}" + (f", weight {line['weight']:.3g}" if line["weight"] not in (None, 1.0) else "")
            for line in self.losses
            if (line["task"], line["epoch"]) == (task, epoch) and not math.isnan(line["loss"])
        ]
        said += [
            f"{line['metric']} {line['value']:.4f}"
            for line in self.figures
            if (line["task"], line["epoch"]) == (task, epoch)
        ]
        return ", ".join(said)
