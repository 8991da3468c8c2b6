"""Components: parts of what is trained, by name; each with a rate of its own, and frozen when its time has come."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError, nearest
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.training.problem import TrainingProblem

FEW = re.compile(r"\.mixer\.(logits|network)")
"""Parameters of the mixers over cosines."""

BACKBONE = "backbone"

BACKBONE_RATE = 5e-5
"""Where a recipe names no rate for the backbone's blocks; those of probes would destroy what they know."""


class ParameterGroups:
    """The rates of what is trained, and what is frozen by now."""

    def __init__(self, problem: TrainingProblem, spec: TrainSpec) -> None:
        """Raises :class:`SpecError` where a name matches nothing."""
        self.learner, self.spec = problem, spec
        self.named = problem.named()
        for table, names in (("rates", spec.rates), ("freeze", spec.freeze)):
            for name in names:
                if name.split(".")[0] not in problem.absent:
                    check_component(name, self.named, table)
        there = [one for one in spec.freeze if any(within(name, one) for name in self.named)]
        self._to_freeze = {one: spec.freeze[one] for one in there}
        self.frozen: list[str] = []
        """Components, in the order in which they were frozen."""
        self._before: dict[str, Tensor] = {}

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups, each with its peak rate under ``peak``. Biases and norms of a backbone do not decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, part in self.named.items():
            still = FEW.search(name) or (within(name, BACKBONE) and part.dim() < 2)
            decay = 0.0 if still else self.spec.weight_decay
            groups.setdefault((self._rate(name), decay), []).append(part)
        return [
            {"params": parts, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), parts in groups.items()
        ]

    def _rate(self, name: str) -> float:
        usual = self.spec.mixer_learning_rate if FEW.search(name) else self.spec.learning_rate
        rates = {BACKBONE: BACKBONE_RATE} | self.spec.rates
        fitting = [one for one in rates if within(name, one)]
        return rates[max(fitting, key=len)] if fitting else usual

    def begin(self, epoch: int) -> list[str]:
        """Freeze what is due as an epoch begins, counted from 0; returns the components that are new among it."""
        due = [one for one, when in self._to_freeze.items() if isinstance(when, int) and when <= epoch]
        due += [one for one in self._still() if one not in due]
        return self.freeze(one for one in due if one not in self.frozen)

    def freeze(self, components: Iterable[str]) -> list[str]:
        """Stop them from learning."""
        new = list(components)
        for name, part in self.named.items():
            if any(within(name, one) for one in new):
                part.requires_grad_(False)
                part.grad = None
        self.frozen += new
        return new

    def settle(self) -> None:
        """Have what is trained in training mode, but for what is frozen: it drops nothing."""
        for module in self.learner.modules.values():
            module.train()
            for one in module.modules():
                parts = list(one.parameters())
                if parts and not any(part.requires_grad for part in parts):
                    one.eval()

    def remember(self) -> None:
        """Note where the components are that are to be frozen once they stand still."""
        self._before = {one: self._flat(one) for one in self._awaited()}

    def _still(self) -> list[str]:
        return [
            one
            for one, before in self._before.items()
            if one in self._awaited() and (self._flat(one) - before).norm() < self.spec.converged * before.norm()
        ]

    def _awaited(self) -> list[str]:
        return [one for one, when in self._to_freeze.items() if when == "converged" and one not in self.frozen]

    def _flat(self, component: str) -> Tensor:
        return torch.cat([part.detach().flatten() for name, part in self.named.items() if within(name, component)])

    def state_dict(self) -> dict[str, Any]:
        """What was frozen, and where the others stood as the epoch began."""
        return {"frozen": list(self.frozen), "before": dict(self._before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as when :meth:`state` was asked."""
        self.freeze(state["frozen"])
        self._before = dict(state["before"])

    @property
    def learning(self) -> bool:
        """Whether anything still learns."""
        return any(part.requires_grad for part in self.named.values())


def learning_numbers(problem: TrainingProblem, spec: TrainSpec, component: str = "") -> int:
    """How many numbers learn, of all or of one component; what is frozen from the start does not."""
    still = [one for one, when in spec.freeze.items() if when == 0]
    return sum(
        part.numel()
        for name, part in problem.named().items()
        if (not component or within(name, component)) and not any(within(name, one) for one in still)
    )


def within(name: str, component: str) -> bool:
    """Whether a parameter belongs to a component."""
    return name == component or name.startswith(f"{component}.")


def check_component(component: str, names: Iterable[str], table: str) -> None:
    """Raise a :class:`SpecError` where no parameter belongs to a component."""
    names = list(names)
    if not any(within(name, component) for name in names):
        known = {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2)}
        raise SpecError(f"train.{table} names the component '{component}', which has nothing to train. "
                        f"{nearest(component, known)}")  # fmt: skip
