"""Gradient steps: forward and backward pass of a batch, balancing, clipping by member, learning rate, and AdamW."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.machine import native_bfloat16
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.base import Number
from permafrost.probes.balancing.gradients import gradient_cosines
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.generators import default_generator
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
        self.device = problem.device
        self._owned = problem.owned_parameters()
        self._shared = [parameter for name, parameter in named.items() if name.split(".")[0] in problem.shared]
        native = spec.compute_dtype == "auto" and native_bfloat16(str(self.device))
        self._bfloat16 = native or spec.compute_dtype == "bfloat16"

    def run(self, batch: Mapping[str, NDArray[np.int64]], step: int, total: int, measure_cosines: bool) -> StepRecord:
        """Train on one batch, task -> rows ``[order, row]``.

        Args:
            step: index of the step in the training.
            total: number of steps of the training.
            measure_cosines: whether to measure the cosines of the tasks' gradients.

        Returns:
            Tensors on the device of the training; on a GPU, no step waits for them.

        Raises:
            SpecError: a loss is not finite; on a GPU, :meth:`check_losses` finds it after the epoch.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            losses = {task: self.problem.objectives[task].loss(rows) for task, rows in batch.items()}
        if self.device.type == "cpu":
            for task, loss in losses.items():
                self._check_loss(task, loss, step, total)
        factor = rate_factor(step, total, self.spec.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad()
        weights, cosines = self._backward(losses, measure_cosines)
        clip_by_member(self._owned, self.spec.clip, self.members)
        self.optimizer.step()
        numbers = {task: loss.detach().float().reshape(-1) for task, loss in losses.items()}
        return {"losses": numbers, "weights": weights, "cosines": cosines}

    def check_losses(self, records: Sequence[StepRecord], first: int, total: int) -> None:
        """Raise a :class:`SpecError` if a loss of an epoch is not finite.

        Args:
            records: of its steps, on the CPU.
            first: index of its first step in the training.
        """
        if self.device.type == "cpu":
            return  # each step has checked its own
        for step, record in enumerate(records, first):
            for task, loss in record["losses"].items():
                self._check_loss(task, torch.from_numpy(loss), step, total)

    def _check_loss(self, task: str, loss: Tensor, step: int, total: int) -> None:
        if torch.isfinite(loss).all():
            return
        wrong = float(loss.detach()[~torch.isfinite(loss)].reshape(-1)[0])
        prefix = f"{task}: " if len(self.problem.objectives) > 1 else ""
        raise SpecError(
            f"{prefix}the training loss became {wrong} in step {step + 1} of {total}; lower "
            "train.learning_rate, train.rates or train.mixer_learning_rate"
            + (', or set train.compute_dtype = "float32".' if self._bfloat16 else ".")
        )

    def learning_rates(self) -> dict[str, float]:
        """Return component -> learning rate of the last step."""
        groups = self.optimizer.param_groups
        return {component: float(group["lr"]) for group in groups for component in group.get("components", ())}

    def _backward(
        self, losses: Mapping[str, Tensor], measure_cosines: bool
    ) -> tuple[Mapping[str, Number], list[list[Any]]]:
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
        """Return weights, optimizer, frozen components, balancer and random generators, on the training's device."""
        balancer = self.problem.balancer
        return {
            "weights": {name: parameter.detach() for name, parameter in self.problem.named_parameters().items()},
            "optimizer": {str(index): values for index, values in self.optimizer.state_dict()["state"].items()},
            "components": self.groups.state_dict(),
            "balancer": dict(balancer.state_dict()) if balancer else {},
            "device": self.device.type,
            "generators": [generator.get_state() for generator in self._generators()],
            "torch": default_generator(self.device).get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict`; raise :class:`ValueError` if a tensor has another shape.

        Generators of another kind of device cannot go on where those of the state were: they start from a seed that
        the state decides.
        """
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
        generators = [*self._generators(), default_generator(self.device)]
        for generator, saved in zip(generators, [*state["generators"], state["torch"]], strict=True):
            if state.get("device", "cpu") == self.device.type:
                generator.set_state(saved)
            else:
                generator.manual_seed(xxhash.xxh3_64_intdigest(saved.numpy().tobytes()) >> 1)

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


def clip_by_member(parameters: Sequence[tuple[nn.Parameter, Tensor]], largest: float, members: int) -> None:
    """Scale the gradient of each member down to a norm of ``largest``, over all parameters of the member.

    Args:
        parameters: as of :meth:`TrainingProblem.owned_parameters`.
    """
    pairs = [(parameter, member_of) for parameter, member_of in parameters if parameter.grad is not None]
    squares = torch.zeros(members, device=parameters[0][0].device)
    for parameter, member_of in pairs:
        assert parameter.grad is not None
        squares.index_add_(0, member_of, parameter.grad.reshape(len(parameter), -1).square().sum(1))
    factors = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for parameter, member_of in pairs:
        assert parameter.grad is not None
        scale = factors[member_of]
        if scale.device.type != "cpu" or scale.min() < 1:  # a GPU does not wait to see
            parameter.grad.mul_(scale.view(-1, *[1] * (parameter.dim() - 1)))


def rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the learning rate of a step as a share of the peak rate: linear warm-up, then linear decay to 0."""
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)
