"""The balancers that compare the tasks' gradients by what the tasks share: GradNorm and PCGrad.

They do a backward pass for each task, and write what the shared parameters are to step on in their ``grad``.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from permafrost.probes.balancing.base import FORMS, Balanced, Balancer
from permafrost.probes.config.multitask import BalancingSpec


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
        return Balanced(dict(zip(self.tasks, weights, strict=True)), cosines)

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

    All of it happens among the scalar products of the gradients: the outcome is a weighted sum of them. The order is
    not drawn from torch's global generator, as TorchJD's is: a training that goes on after a kill repeats it.
    """

    compares = True

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        rows = _gradients(self._joint(losses), shared)
        products = rows @ rows.T
        factors = projected(products.double(), self.generator).to(rows.dtype)
        _write(factors @ rows, shared)
        weights = dict(zip(self.tasks, factors.tolist(), strict=True))
        return Balanced(weights, _cosines(self.tasks, products))

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where the saved one stopped."""
        self.generator.set_state(state)


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
