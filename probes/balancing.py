"""Balancers: how the losses of several tasks become one step on what the tasks share.

A balancer does the backward passes of a step; what it learns itself is in its ``state_dict``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from data.spec import SpecError, nearest

FORMS = {"mse": "squares", "log_variance": "log_squares", "cross_entropy": "classes", "span": "classes"}
"""What a loss is to a balancer: squared residuals, the log of their variance, or how unlikely the right class is."""


@dataclass(frozen=True)
class BalancingSpec:
    """How the losses of tasks that share an encoder weigh against each other."""

    balancer: Literal["equal", "fixed", "uncertainty", "gradnorm", "pcgrad"] = "equal"
    """equal adds the losses up; fixed weighs them by weights; uncertainty learns a noise level for each task and weighs
    by it (Kendall et al. 2018); gradnorm learns weights with which no task's gradient outgrows the others' (Chen et al.
    2018); pcgrad takes out of each gradient what works against another task (Yu et al. 2020). The last two need joint
    steps and a shared part that is trained."""

    weights: dict[str, float] = field(default_factory=dict)
    """Of fixed: the weight of every task's loss by the name of the task, for example {topic = 0.5, tone = 0.5}."""

    learning_rate: float = 0.025
    """Of uncertainty and gradnorm: how fast what they learn moves."""

    alpha: float = 1.5
    """Of gradnorm: how much a task that lags behind is favoured; at 0 all gradients become equally long."""

    bounds: tuple[float, float] = (-5.0, 5.0)
    """Of uncertainty: the least and the greatest task log-variance, which keep a weight between e^-5 and e^5."""

    def __post_init__(self) -> None:
        for task, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise SpecError(f"weights: the weight of '{task}' must be positive and finite, got {weight}.")
        if self.balancer == "fixed" and not self.weights:
            raise SpecError("balancer 'fixed' needs the weight of every task; set weights, for example {a = 1.0}.")
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate must be positive and finite, got {self.learning_rate}.")
        if not 0 <= self.alpha < math.inf:
            raise SpecError(f"alpha must not be negative, got {self.alpha}.")
        if not -math.inf < self.bounds[0] <= 0 <= self.bounds[1] < math.inf or self.bounds[0] == self.bounds[1]:
            raise SpecError(f"bounds must be finite, with 0, where learning starts, between, got {list(self.bounds)}.")


@dataclass(frozen=True)
class Balanced:
    """What a step came to, for the log."""

    losses: dict[str, float]
    """Of each task in the step, before any weight."""

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


class Equal(Balancer):
    """``sum_i L_i``."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights = dict.fromkeys(tasks, 1.0)

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        _sum(self.weights[task] * loss for task, loss in losses.items()).backward()  # type: ignore[no-untyped-call]
        return Balanced(_numbers(losses), {task: self.weights[task] for task in losses}, {})


class Fixed(Equal):
    """``sum_i w_i L_i`` with weights that the recipe gives."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        for task in spec.weights:
            if task not in tasks:
                raise SpecError(f"weights: there is no task '{task}'. {nearest(task, tasks)}")
        if missing := [task for task in tasks if task not in spec.weights]:
            raise SpecError(f"balancer 'fixed' needs the weight of every task; weights lacks '{missing[0]}'.")
        self.weights = dict(spec.weights)


class Uncertainty(Balancer):
    """Weights from a learned noise level: the task log-variance ``s_i = log sigma_i^2``, 0 at the start.

    Squared errors cost ``exp(-s) L / 2 + s / 2``, cross-entropies ``exp(-s) L + s / 2``; the step is on their sum.
    Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (2018), equations 7, 10.

    A log-variance loss l costs ``exp(-s) exp(l) / 2 + s / 2``: by its variance, which is the squared error that the
    formula is made for, less the mean error. Put in for L itself it has no minimum: once l is negative, ``exp(-s) l``
    falls for ever with s. At the best s, which is l, the cost is ``l / 2`` but for a constant, half the loss asked for;
    the gradient of l enters with the factor ``exp(l - s) / 2``.

    Each s is put back between the bounds before every step. Clamped on its way to the cost instead, it would have no
    gradient past a bound, and stay there for good. A task that sits a step out keeps its s.
    """

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.log_variances = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in tasks)

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        with torch.no_grad():
            for s in self.log_variances:
                s.clamp_(*self.spec.bounds)
        noise, costs, weights = dict(zip(self.tasks, self.log_variances, strict=True)), [], {}
        for task, loss in losses.items():
            s, form = noise[task], FORMS[self.tasks[task]]
            precision = torch.exp(-s) if form == "classes" else torch.exp(-s) / 2
            cost = precision * (loss.exp() if form == "log_squares" else loss)
            weights[task] = (cost if form == "log_squares" else precision).item()
            costs.append(cost + s / 2)
        _sum(costs).backward()  # type: ignore[no-untyped-call]
        return Balanced(_numbers(losses), weights, {})


class GradNorm(Balancer):
    """Weights that are learned until every task's gradient has the length that its progress calls for.

    ``G_i = |w_i grad L_i|`` over the shared parameters is to become ``mean_j G_j * r_i^alpha``, where
    ``r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))`` is large for a task that lags behind. The weights go down the slope
    of ``sum_i |G_i - target_i|``, targets held still, after the step that they weighed, and are scaled to add up to the
    number of tasks. Source: Chen et al., "GradNorm" (2018), equations 1 and 2, Algorithm 1.

    Other than there, it is ``log w_i`` that moves, and the slope is in units of the mean length:
    ``w_i <- w_i exp(-learning_rate sign(G_i - target_i) G_i / mean_j G_j)``. A step on w_i itself is as long as the raw
    gradient, and makes a weight negative at once where one task's is 100 times the others'.

    A log-variance loss l may be negative, and its ratio then says nothing: its progress is that of the variance,
    ``exp(l) / exp(l(0))``. ``L_i(0)`` is a task's first loss above 0; until each has one, the weights stay.
    """

    compares = True

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights: Tensor
        self.initial: Tensor
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("initial", torch.full((len(tasks),), math.nan))

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        values, weights = self._joint(losses), self.weights.tolist()
        rows = _gradients([weight * loss for weight, loss in zip(weights, values, strict=True)], shared)
        _write(rows.sum(0), shared)
        sizes = torch.stack([loss.detach() for loss in values])
        logs = torch.tensor([FORMS[loss] == "log_squares" for loss in self.tasks.values()])
        self._learn(torch.where(logs, sizes.exp(), sizes), rows.norm(dim=1))
        cosines = _cosines(self.tasks, rows @ rows.T)
        return Balanced(_numbers(losses), dict(zip(self.tasks, weights, strict=True)), cosines)

    def _learn(self, sizes: Tensor, lengths: Tensor) -> None:
        """One step of the weights: losses above 0 and lengths of weighted gradients, ``[task]`` each."""
        self.initial = torch.where(self.initial.isnan() & (sizes > 0), sizes, self.initial)
        left, mean = sizes / self.initial, lengths.mean()
        if not mean > 0 or not left.mean() > 0:
            return  # a loss was never above 0, all is learnt, or what was shared is frozen by now
        target = mean * (left / left.mean()) ** self.spec.alpha
        slope = torch.sign(lengths - target) * lengths / mean
        moved = self.weights * torch.exp(-self.spec.learning_rate * slope)
        self.weights = moved * (len(moved) / moved.sum())


class PCGrad(Balancer):
    """Gradient surgery: each task's gradient loses what points against another task's; the rest is added up.

    ``g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j`` wherever ``g_i . g_j < 0``, for the other tasks j one after another in an
    order drawn anew from ``generator``, against the g_j that they were. Source: Yu et al., "Gradient Surgery for
    Multi-Task Learning" (2020), Algorithm 1. What is not shared keeps the gradient of its own task.

    All of it happens among the scalar products of the gradients: the outcome is a weighted sum of them.
    """

    compares = True

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        rows = _gradients(self._joint(losses), shared)
        products = rows @ rows.T
        factors = projected(products.double(), self.generator).to(rows.dtype)
        _write(factors @ rows, shared)
        weights = dict(zip(self.tasks, factors.tolist(), strict=True))
        return Balanced(_numbers(losses), weights, _cosines(self.tasks, products))

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where the saved one stopped."""
        self.generator.set_state(state)


BALANCERS: dict[str, type[Balancer]] = {
    "equal": Equal,
    "fixed": Fixed,
    "uncertainty": Uncertainty,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
}


def make_balancer(
    spec: BalancingSpec,
    tasks: Mapping[str, str],
    shared: Iterable[nn.Parameter],
    joint: bool,
    generator: torch.Generator,
) -> Balancer:
    """The balancer of a training.

    Args:
        tasks: task -> the name of its loss, of :data:`FORMS`.
        shared: what all tasks share, as training begins; what is frozen later need not concern the balancer.
        joint: whether every step has a batch of every task.
        generator: what pcgrad draws from, and no one else.

    Raises:
        SpecError: weights that do not name the tasks, or gradients to compare where there are none.
    """
    known = BALANCERS[spec.balancer]
    if known.compares:
        what = f"balancer '{spec.balancer}' compares the tasks' gradients by what they share"
        way_out = "or set balancer to equal, fixed or uncertainty"
        if len(tasks) < 2:
            raise SpecError(f"{what}, and there is one task only; add a task {way_out}.")
        if not any(part.requires_grad for part in shared):
            raise SpecError(f"{what}, and nothing shared is trained; train a shared part {way_out}.")
        if not joint:
            raise SpecError(f"{what}, and so needs joint steps, one batch of every task in each; take those {way_out}.")
    return known(tasks, spec, generator)


def projected(products: Tensor, generator: torch.Generator) -> Tensor:
    """What gradient surgery makes of gradients, as factors: their sum with these is the sum of the projected ones.

    Args:
        products: ``[task, task]``, the gradients' scalar products.

    Returns:
        ``[task]``.
    """
    factors = torch.eye(len(products), dtype=products.dtype)
    for task, mine in enumerate(factors):
        for other in torch.randperm(len(products), generator=generator).tolist():
            against = mine @ products[other]
            if other != task and against < 0 < products[other, other]:
                mine[other] -= against / products[other, other]
    return factors.sum(0)


def _gradients(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
    """Each loss's gradient by the shared parameters, ``[task, number]``; every other parameter gets the sum of its own.

    A shared parameter that no loss reaches is left without a gradient, so that no optimizer touches it.
    """
    rows = losses[0].new_zeros(len(losses), sum(part.numel() for part in shared))
    for at, loss in enumerate(losses):
        if loss.requires_grad:  # a task may be frozen from end to end
            loss.backward(retain_graph=at + 1 < len(losses))  # type: ignore[no-untyped-call]
        for part, mine in _parts(rows[at], shared):
            mine.copy_(part)
            part.zero_()
    return rows


def _write(gradient: Tensor, shared: Sequence[nn.Parameter]) -> None:
    for part, mine in _parts(gradient, shared):
        part.copy_(mine)


def _parts(flat: Tensor, shared: Sequence[nn.Parameter]) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradients that shared parameters have, and the part of ``flat`` that stands for each."""
    end = 0
    for part in shared:
        start, end = end, end + part.numel()
        if part.grad is not None:
            yield part.grad, flat[start:end].view_as(part)


def _cosines(tasks: Iterable[str], products: Tensor) -> dict[tuple[str, str], float]:
    lengths = products.diagonal().sqrt()
    cosines = (products / (lengths * lengths[:, None])).nan_to_num(nan=0.0)
    pairs = combinations(enumerate(tasks), 2)
    return {(first, second): cosines[row, column].item() for (row, first), (column, second) in pairs}


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack([cost.reshape(()) for cost in costs]).sum()


def _numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {task: loss.item() for task, loss in losses.items()}
