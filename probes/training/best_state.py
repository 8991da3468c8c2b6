"""The best weights so far: of each member, or of each task, and whether it still learns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class History:
    """How a member's training went; its weights are those of ``best_epoch``."""

    best_epoch: int
    """From 0; -1 where the validation metric was never finite."""

    best_value: float
    losses: tuple[float, ...] = field(repr=False)
    """Mean training loss by epoch."""

    values: tuple[float, ...] = field(repr=False)
    """Validation metric by epoch, to where its training stopped."""


HELD = ("value", "epoch", "stopped", "losses", "values", "weights")
"""What of the best state is kept while a training lasts."""


class BestState:
    """Each member's best weights so far, and whether it still learns."""

    def __init__(self, parts: Mapping[str, tuple[nn.Parameter, Tensor]], members: int, patience: int) -> None:
        """Args:
        parts: what is kept, by name: a parameter and the members that its parts belong to.
        """
        self.parts, self.patience = parts, patience
        self.value = np.full(members, -math.inf)
        self.epoch = np.full(members, -1)
        self.stopped = np.zeros(members, bool)
        self.losses: list[list[float]] = [[] for _ in range(members)]
        self.values: list[list[float]] = [[] for _ in range(members)]
        self.weights = {name: part.detach().clone() for name, (part, _) in parts.items()}

    def after(self, epoch: int, losses: Any, values: Any) -> bool:
        """Note an epoch's losses and values, ``[member]``; returns whether any member still learns."""
        for member in np.flatnonzero(~self.stopped):
            self.losses[member].append(float(losses[member]))
            self.values[member].append(float(values[member]))
        better = ~self.stopped & np.greater(values, self.value)  # nan is never greater
        self.value[better], self.epoch[better] = np.asarray(values)[better], epoch
        if better.any():
            chosen = torch.from_numpy(better)
            for name, (part, owner) in self.parts.items():
                mine = chosen[owner]
                self.weights[name][mine] = part.detach()[mine]
        self.stopped |= epoch - self.epoch >= self.patience
        return not self.stopped.all()

    def restore(self) -> None:
        """Put the best weights in their places."""
        with torch.no_grad():
            for name, (part, _) in self.parts.items():
                part.copy_(self.weights[name])

    def histories(self) -> list[History]:
        """How it went, member by member."""
        return [
            History(int(epoch), float(value), tuple(losses), tuple(values))
            for epoch, value, losses, values in zip(self.epoch, self.value, self.losses, self.values, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """All that it holds."""
        return {name: getattr(self, name) for name in HELD}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as when :meth:`state` was asked."""
        weights = {name: alike(state["weights"][name], part) for name, (part, _) in self.parts.items()}
        for name in HELD:
            setattr(self, name, state[name])
        self.weights = weights


def alike(saved: Tensor, part: Tensor) -> Tensor:
    """What was saved of a parameter; raises :class:`ValueError` where it has another shape."""
    if saved.shape != part.shape:
        raise ValueError(f"expected the shape {list(part.shape)}, got {list(saved.shape)}.")
    return saved
