"""Balancers: how the losses of several tasks become one step on what the tasks share.

Those here weigh the losses and look at no gradient; those that compare gradients are in :mod:`probes.gradients`.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError, nearest
from permafrost.probes.balancing.base import FORMS, Balanced, Balancer
from permafrost.probes.balancing.gradients import GradNorm, PCGrad
from permafrost.probes.config.multitask import BalancingSpec

__all__ = ["BALANCERS", "FORMS", "Balanced", "Balancer", "BalancingSpec", "check_balancer", "make_balancer"]


class Equal(Balancer):
    """``sum_i L_i``."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights = dict.fromkeys(tasks, 1.0)

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> Balanced:
        """As :meth:`Balancer.backward`."""
        _sum(self.weights[task] * loss for task, loss in losses.items()).backward()  # type: ignore[no-untyped-call]
        return Balanced({task: self.weights[task] for task in losses}, {})


class Fixed(Equal):
    """``sum_i w_i L_i`` with weights that the recipe gives."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights = {task: spec.weights[task] for task in tasks}


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
        return Balanced(weights, {})


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
    absent: Iterable[str] = (),
) -> Balancer:
    """The balancer of a training.

    Args:
        tasks: task -> the name of its loss, of :data:`FORMS`.
        shared: what all tasks share, as training begins; what is frozen later need not concern the balancer.
        joint: whether every step has a batch of every task.
        generator: what pcgrad draws from, and no one else.
        absent: tasks that the recipe has and this training leaves out.

    Raises:
        SpecError: weights that do not name the tasks, or gradients to compare where there are none.
    """
    check_balancer(spec, list(tasks), any(part.requires_grad for part in shared), joint, absent)
    return BALANCERS[spec.balancer](tasks, spec, generator)


def check_balancer(
    spec: BalancingSpec, tasks: Sequence[str], shares: bool, joint: bool, absent: Iterable[str] = ()
) -> None:
    """Raise a :class:`SpecError` where weights do not name the tasks, or a balancer has no gradients to compare.

    Args:
        shares: whether anything that the tasks share is trained.
        joint: whether every step has a batch of every task.
        absent: as of :func:`make_balancer`; a weight of theirs is no mistake.
    """
    known = (*tasks, *absent)
    for task in spec.weights:
        if task not in known:
            raise SpecError(f"balancing.weights: there is no task '{task}'. {nearest(task, known)}")
    if spec.balancer == "fixed" and (missing := [task for task in tasks if task not in spec.weights]):
        raise SpecError(f"balancer 'fixed' needs the weight of every task; balancing.weights lacks '{missing[0]}'.")
    if not BALANCERS[spec.balancer].compares:
        return
    what = f"balancer '{spec.balancer}' compares the tasks' gradients by what they share"
    way_out = "or set balancer to equal, fixed or uncertainty"
    if len(tasks) < 2:
        raise SpecError(f"{what}, and there is one task only; add a task {way_out}.")
    if not shares:
        raise SpecError(f"{what}, and nothing shared is trained; train a shared part {way_out}.")
    if not joint:
        raise SpecError(f"{what}, and so needs joint steps, one batch of every task in each; take those {way_out}.")


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack([cost.reshape(()) for cost in costs]).sum()
