"""Gradients of tasks by the parameters that they share: their cosines, and the balancers GradNorm and PCGrad.

The balancers do a backward pass for each task, and set ``grad`` of the shared parameters to the combined gradient; the
cosines of :func:`gradient_cosines` only tell of conflicts.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from permafrost.probes.balancing.base import BalancedStep, Balancer, Number, form_of
from permafrost.probes.config.multitask import BalancingSpec

EVERY_STEPS = 10
"""Steps between two measurements of cosines, from the first of an epoch on: each costs a backward pass per task."""


def gradient_cosines(losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> dict[tuple[str, str], Number]:
    """Return the cosine of the gradients of every pair of tasks by shared parameters; gradients stay unset.

    0 if a task has no gradient; tasks with a cosine below 0 conflict.

    Args:
        losses: task -> its loss, whose graph is kept.
        shared: shared parameters that are trained; if there are none, the result is empty.
    """
    if not shared or len(losses) < 2:
        return {}
    gradients = {task: _flat_gradient(loss, shared) for task, loss in losses.items()}
    return {
        (first, second): torch.nn.functional.cosine_similarity(gradients[first], gradients[second], dim=0)
        for first, second in combinations(gradients, 2)
    }


def _flat_gradient(loss: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros(sum(parameter.numel() for parameter in shared), device=loss.device)
    gradients = torch.autograd.grad(loss.sum(), shared, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


class GradNorm(Balancer):
    """GradNorm: learned loss weights that balance the norms of the tasks' gradients by the tasks' training progress.

    The target of ``G_i = |w_i grad L_i|`` over the shared parameters is ``mean_j G_j * r_i^alpha``, where
    ``r_i = (L_i / L_i(0)) / mean_j (L_j / L_j(0))`` is large for a task that learns slowly. After each step, the
    weights descend the gradient of ``sum_i |G_i - target_i|`` with constant targets, and are scaled to add up to the
    number of tasks. Source: Chen et al., "GradNorm" (2018), equations 1 and 2, Algorithm 1.

    Unlike there, the update is of ``log w_i``, and its gradient is in units of the mean norm:
    ``w_i <- w_i exp(-learning_rate sign(G_i - target_i) G_i / mean_j G_j)``. An update of w_i itself has the scale of
    the raw gradient, and makes a weight negative in one step if a task's gradient is 100 times the others'.

    A log-variance loss l may be negative, so that its ratio is meaningless: its progress is that of the variance,
    ``exp(l) / exp(l(0))``. ``L_i(0)`` is the first loss of a task above 0; until every task has one, the weights stay.
    """

    compares = True

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights: Tensor
        self.initial: Tensor
        self.register_buffer("weights", torch.ones(len(tasks)))
        self.register_buffer("initial", torch.full((len(tasks),), math.nan))
        self._logs: Tensor
        self.register_buffer(
            "_logs", torch.tensor([form_of(loss) == "log_squares" for loss in tasks.values()]), persistent=False
        )

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> BalancedStep:
        """Set the gradients as :meth:`Balancer.backward`."""
        ordered, weights = self._all_losses(losses), self.weights.unbind()
        gradients = _task_gradients([weight * loss for weight, loss in zip(weights, ordered, strict=True)], shared)
        _set_gradient(gradients.sum(0), shared)
        values = torch.stack([loss.detach() for loss in ordered])
        self._update_weights(torch.where(self._logs, values.exp(), values), gradients.norm(dim=1))
        cosines = _pairwise_cosines(self.tasks, gradients @ gradients.T)
        return BalancedStep(dict(zip(self.tasks, weights, strict=True)), cosines)

    def _update_weights(self, losses: Tensor, norms: Tensor) -> None:
        """Update the weights by the losses and the norms of the weighted gradients, ``[task]`` each."""
        self.initial = torch.where(self.initial.isnan() & (losses > 0), losses, self.initial)
        ratios, mean = losses / self.initial, norms.mean()
        target = mean * (ratios / ratios.mean()) ** self.spec.alpha
        slope = torch.sign(norms - target) * norms / mean
        updated = self.weights * torch.exp(-self.spec.learning_rate * slope)
        updated = updated * (len(updated) / updated.sum())
        # else a loss was never above 0, all losses are 0, or the shared parameters are frozen by now
        self.weights = torch.where((mean > 0) & (ratios.mean() > 0), updated, self.weights)


class PCGrad(Balancer):
    """PCGrad, gradient surgery: each task's gradient is projected off conflicting gradients; then they are summed.

    ``g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j`` if ``g_i . g_j < 0``, for the other tasks j in an order drawn from
    ``generator`` at each step, with the original g_j. Source: Yu et al., "Gradient Surgery for Multi-Task Learning"
    (2020), Algorithm 1. Parameters that are not shared keep the gradient of their own task.

    The projections are computed from the scalar products of the gradients, as the result is a weighted sum of these.
    The order is not drawn from torch's global generator, as TorchJD's is: a resumed training repeats it.
    """

    compares = True

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> BalancedStep:
        """Set the gradients as :meth:`Balancer.backward`."""
        gradients = _task_gradients(self._all_losses(losses), shared)
        products = gradients @ gradients.T
        exact = products if products.device.type == "mps" else products.double()  # mps has no float64
        factors = projection_factors(exact, self.generator).to(gradients.dtype)
        _set_gradient(factors @ gradients, shared)
        weights = dict(zip(self.tasks, factors.unbind(), strict=True))
        return BalancedStep(weights, _pairwise_cosines(self.tasks, products))

    def get_extra_state(self) -> Tensor:
        """Return the state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Load the state of the generator."""
        self.generator.set_state(state)


def projection_factors(products: Tensor, generator: torch.Generator) -> Tensor:
    """Return the factors of the gradients whose weighted sum is the sum of the projected gradients.

    Args:
        products: ``[task, task]``, scalar products of the gradients.
        generator: draws the order of the projections; of the CPU, so that it is the same on every device.

    Returns:
        ``[task]``.
    """
    factors = torch.eye(len(products), dtype=products.dtype, device=products.device)
    for task, row in enumerate(factors):
        for other in torch.randperm(len(products), generator=generator, device="cpu").tolist():
            if other != task:
                product, square = row @ products[other], products[other, other]
                row[other] -= torch.where((product < 0) & (square > 0), product / square, 0.0)
    return factors.sum(0)


def _task_gradients(losses: Sequence[Tensor], shared: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradient of each loss by the shared parameters, ``[task, parameter]``, and set those of all others.

    A shared parameter that no loss depends on keeps no gradient, so that the optimizer skips it.
    """
    gradients = losses[0].new_zeros(len(losses), sum(parameter.numel() for parameter in shared))
    for index, loss in enumerate(losses):
        if loss.requires_grad:  # all parameters of a task may be frozen
            loss.backward(retain_graph=index + 1 < len(losses))  # type: ignore[no-untyped-call]
        for gradient, target in _matching_slices(gradients[index], shared):
            target.copy_(gradient)
            gradient.zero_()
    return gradients


def _set_gradient(flat: Tensor, shared: Sequence[nn.Parameter]) -> None:
    for gradient, source in _matching_slices(flat, shared):
        gradient.copy_(source)


def _matching_slices(flat: Tensor, shared: Sequence[nn.Parameter]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the gradient of each shared parameter that has one, and the slice of ``flat`` in its shape."""
    end = 0
    for parameter in shared:
        start, end = end, end + parameter.numel()
        if parameter.grad is not None:
            yield parameter.grad, flat[start:end].view_as(parameter)


def _pairwise_cosines(tasks: Iterable[str], products: Tensor) -> dict[tuple[str, str], Number]:
    norms = products.diagonal().sqrt()
    cosines = (products / (norms * norms[:, None])).nan_to_num(nan=0.0)
    pairs = combinations(enumerate(tasks), 2)
    return {(first, second): cosines[row, column] for (row, first), (column, second) in pairs}
