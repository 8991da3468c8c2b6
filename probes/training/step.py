"""Gradient steps: forward and backward pass of a batch, balancing, clipping by member, learning rate, and AdamW."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.machine import native_bfloat16
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.gradients import gradient_cosines
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.layerwise import SeededRandom
from permafrost.probes.training.best_state import check_shape
from permafrost.probes.training.log import StepRecord
from permafrost.probes.training.parameter_groups import ParameterGroups
from permafrost.probes.training.problem import TrainingProblem


class StepRunner:
    """Gradient steps of one training, with the optimizer and the parameter groups."""

    def __init__(self, problem: TrainingProblem, spec: TrainSpec, members: int) -> None:
        self.problem, self.spec, self.members = problem, spec, members
        self.groups = ParameterGroups(problem, spec)
        balancing = problem.balancer.groups() if problem.balancer else []
        groups = [*self.groups.groups(), *({**group, "peak": group["lr"]} for group in balancing)]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        named = problem.named_parameters()
        self._shared = [parameter for name, parameter in named.items() if name.split(".")[0] in problem.shared]
        self._bfloat16 = spec.compute_dtype == "bfloat16" or (spec.compute_dtype == "auto" and native_bfloat16())

    def run(self, batch: Mapping[str, NDArray[np.int64]], step: int, total: int, measure_cosines: bool) -> StepRecord:
        """Train on one batch, task -> rows ``[order, row]``.

        Args:
            step: index of the step in the training.
            total: number of steps of the training.
            measure_cosines: whether to measure the cosines of the tasks' gradients.

        Raises:
            SpecError: a loss is not finite.
        """
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            losses = {task: self.problem.objectives[task].loss(rows) for task, rows in batch.items()}
        for task, loss in losses.items():
            if not torch.isfinite(loss).all():
                wrong = loss[~torch.isfinite(loss)].reshape(-1)[0].item()
                prefix = f"{task}: " if len(self.problem.objectives) > 1 else ""
                raise SpecError(
                    f"{prefix}the training loss became {wrong} in step {step + 1} of {total}; lower "
                    "train.learning_rate, train.rates or train.mixer_learning_rate"
                    + (', or set train.compute_dtype = "float32".' if self._bfloat16 else ".")
                )
        factor = rate_factor(step, total, self.spec.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad()
        weights, cosines = self._backward(losses, measure_cosines)
        clip_by_member(self.problem, self.spec.clip, self.members)
        self.optimizer.step()
        numbers = {task: loss.detach().float().numpy().reshape(-1) for task, loss in losses.items()}
        return {"losses": numbers, "weights": weights, "cosines": cosines}

    def learning_rates(self) -> dict[str, float]:
        """Return component -> learning rate of the last step."""
        groups = self.optimizer.param_groups
        return {component: float(group["lr"]) for group in groups for component in group.get("components", ())}

    def _backward(
        self, losses: Mapping[str, Tensor], measure_cosines: bool
    ) -> tuple[dict[str, float], list[list[Any]]]:
        """Set the gradients of a step; return the weight of each task, and the cosine of each pair of tasks."""
        if not any(loss.requires_grad for loss in losses.values()):
            return dict.fromkeys(losses, 0.0), []  # all parameters of the tasks are frozen
        balancer = self.problem.balancer
        if balancer is None:
            torch.stack([loss.sum() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
            return dict.fromkeys(losses, 1.0), []
        shared = [parameter for parameter in self._shared if parameter.requires_grad]
        cosines = gradient_cosines(losses, shared) if measure_cosines and not balancer.compares else {}
        balanced = balancer.backward(losses, shared)
        return balanced.weights, [[*pair, cosine] for pair, cosine in (balanced.cosines or cosines).items()]

    def check_weights(self, epoch: int) -> None:
        """Raise a :class:`SpecError` if a weight is not finite: no loss shows it after the last step of an epoch."""
        for name, parameter in self.problem.named_parameters().items():
            if not torch.isfinite(parameter).all():
                raise SpecError(
                    f"the weights of {name} became NaN or infinite in epoch {epoch + 1}; lower "
                    "train.learning_rate or train.rates."
                )

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimizer, frozen components, balancer and random generators."""
        balancer = self.problem.balancer
        return {
            "weights": {name: parameter.detach() for name, parameter in self.problem.named_parameters().items()},
            "optimizer": {str(index): values for index, values in self.optimizer.state_dict()["state"].items()},
            "components": self.groups.state_dict(),
            "balancer": dict(balancer.state_dict()) if balancer else {},
            "generators": [generator.get_state() for generator in self._generators()],
            "torch": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`; raise :class:`ValueError` if a tensor has another shape."""
        with torch.no_grad():
            for name, parameter in self.problem.named_parameters().items():
                parameter.copy_(check_shape(state["weights"][name], parameter))
        moments = {int(index): values for index, values in state["optimizer"].items()}
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, values in moments.items():
            for value in values.values():
                if value.dim():  # the step count is a scalar
                    check_shape(value, parameters[index])
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.groups.load_state_dict(state["components"])
        if self.problem.balancer:
            self.problem.balancer.load_state_dict(state["balancer"])
        for generator, saved in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(saved)
        torch.set_rng_state(state["torch"])

    def _generators(self) -> list[torch.Generator]:
        """Return the generators of the modules' dropout and noise, each once."""
        generators = {
            id(generator): generator
            for root in self.problem.modules.values()
            for module in root.modules()
            if isinstance(module, SeededRandom)
            for generator, _ in module.generators
        }
        return list(generators.values())


def clip_by_member(problem: TrainingProblem, largest: float, members: int) -> None:
    """Scale the gradient of each member down to a norm of ``largest``, over all parameters of the member."""
    pairs = [
        (parameter, problem.member_of[name])
        for name, parameter in problem.named_parameters().items()
        if parameter.grad is not None
    ]
    squares = torch.zeros(members)
    for parameter, member_of in pairs:
        assert parameter.grad is not None
        squares.index_add_(0, member_of, parameter.grad.reshape(len(parameter), -1).square().sum(1))
    factors = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for parameter, member_of in pairs:
        assert parameter.grad is not None
        if (scale := factors[member_of]).min() < 1:
            parameter.grad.mul_(scale.view(-1, *[1] * (parameter.dim() - 1)))


def rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of the peak rate: linear warm-up, then linear decay to 0."""
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)
