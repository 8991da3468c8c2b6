"""Parameter groups: learning rate, weight decay and freezing of the components of a training, by name."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError, nearest
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.training.problem import TrainingProblem

MIXER_PARAMETERS = re.compile(r"\.mixer\.(logits|network)")
"""Parameters of the mixers over cosines."""

BACKBONE = "backbone"

BACKBONE_RATE = 5e-5
"""Default learning rate of the backbone's blocks; at the rate of probes they would lose what they have learned."""


class ParameterGroups:
    """Learning rates and frozen components of a training."""

    def __init__(self, problem: TrainingProblem, spec: TrainSpec) -> None:
        """Raise a :class:`SpecError` if a name of ``spec.rates`` or ``spec.freeze`` matches no parameter."""
        self.problem, self.spec = problem, spec
        self.named = problem.named_parameters()
        known = {".".join(name.split(".")[:depth]) for name in self.named for depth in (1, 2)}
        for table, components in (("rates", spec.rates), ("freeze", spec.freeze)):
            for component in components:
                absent = component.split(".")[0] in problem.absent
                if not absent and not any(belongs_to(name, component) for name in self.named):
                    raise SpecError(
                        f"train.{table} names the component '{component}', which has nothing to train. "
                        f"{nearest(component, known)}"
                    )
        present = [component for component in spec.freeze if any(belongs_to(name, component) for name in self.named)]
        self._to_freeze = {component: spec.freeze[component] for component in present}
        self.frozen: list[str] = []
        """Frozen components, in the order in which they were frozen."""
        self._before: dict[str, Tensor] = {}

    def groups(self) -> list[dict[str, Any]]:
        """Return groups for the optimizer, with peak rate ``peak`` and the names of what is in them, ``components``.

        Biases and norms of a backbone do not decay.
        """
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        components: dict[tuple[float, float], dict[str, None]] = {}
        rates = {BACKBONE: BACKBONE_RATE} | self.spec.rates
        for name, parameter in self.named.items():
            in_mixer = MIXER_PARAMETERS.search(name)
            default = self.spec.mixer_learning_rate if in_mixer else self.spec.learning_rate
            matching = [component for component in rates if belongs_to(name, component)]
            rate = rates[max(matching, key=len)] if matching else default
            no_decay = in_mixer or (belongs_to(name, BACKBONE) and parameter.dim() < 2)
            key = (rate, 0.0 if no_decay else self.spec.weight_decay)
            groups.setdefault(key, []).append(parameter)
            root = name.split(".")[0]
            component = max(matching, key=len) if matching else f"{root}.mixer" if in_mixer else root
            components.setdefault(key, {})[component] = None
        return [
            {
                "params": parameters,
                "lr": key[0],
                "peak": key[0],
                "weight_decay": key[1],
                "components": [*components[key]],
            }
            for key, parameters in groups.items()
        ]

    def freeze_due(self, epoch: int) -> list[str]:
        """Freeze the components that are due before an epoch, counted from 0; return the newly frozen ones."""
        due = [component for component, when in self._to_freeze.items() if isinstance(when, int) and when <= epoch]
        for component, before in self._before.items():
            if (self._flat_weights(component) - before).norm() < self.spec.converged * before.norm():
                due.append(component)
        return self.freeze(component for component in due if component not in self.frozen)

    def freeze(self, components: Iterable[str]) -> list[str]:
        """Freeze components and return them."""
        new = list(components)
        for name, parameter in self.named.items():
            if any(belongs_to(name, component) for component in new):
                parameter.requires_grad_(False)
                parameter.grad = None
        self.frozen += new
        return new

    def set_modes(self) -> None:
        """Set training mode, and evaluation mode on frozen modules, so that their dropout is off."""
        for root in self.problem.modules.values():
            root.train()
            for module in root.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()

    def remember_weights(self) -> None:
        """Keep a copy of the weights of components that are frozen on convergence."""
        self._before = {
            component: self._flat_weights(component)
            for component, when in self._to_freeze.items()
            if when == "converged" and component not in self.frozen
        }

    def _flat_weights(self, component: str) -> Tensor:
        return torch.cat(
            [parameter.detach().flatten() for name, parameter in self.named.items() if belongs_to(name, component)]
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the frozen components, and the weights of the last :meth:`remember_weights`."""
        return {"frozen": list(self.frozen), "before": dict(self._before)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`; freezes its components."""
        self.freeze(state["frozen"])
        device = self.problem.device
        self._before = {component: weights.to(device) for component, weights in state["before"].items()}

    @property
    def any_trainable(self) -> bool:
        """Whether any parameter is not frozen."""
        return any(parameter.requires_grad for parameter in self.named.values())


def count_trainable(problem: TrainingProblem, spec: TrainSpec, component: str = "") -> int:
    """Return the number of trained parameters, of all or of one component; without those frozen from the start."""
    frozen = [name for name, when in spec.freeze.items() if when == 0]
    return sum(
        parameter.numel()
        for name, parameter in problem.named_parameters().items()
        if (not component or belongs_to(name, component)) and not any(belongs_to(name, other) for other in frozen)
    )


def belongs_to(name: str, component: str) -> bool:
    """Return whether a parameter belongs to a component."""
    return name == component or name.startswith(f"{component}.")
