"""Loss weighting balancers, and the registry of all balancers.

The balancers here weigh losses and do not use gradients; those that compare gradients are in
:mod:`permafrost.probes.balancing.gradients`.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError, nearest
from permafrost.probes.balancing.base import BalancedStep, Balancer, Number, form_of
from permafrost.probes.balancing.gradients import GradNorm, PCGrad
from permafrost.probes.config.multitask import BalancingSpec


class WeightedSum(Balancer):
    """Weighted sum of the losses, ``sum_i w_i L_i``, with weights from the recipe if it is ``fixed``, else of 1."""

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.weights = {task: spec.weights[task] if spec.balancer == "fixed" else 1.0 for task in tasks}

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> BalancedStep:
        """Set the gradients as :meth:`Balancer.backward`."""
        _sum(self.weights[task] * loss for task, loss in losses.items()).backward()  # type: ignore[no-untyped-call]
        return BalancedStep({task: self.weights[task] for task in losses}, {})


class Uncertainty(Balancer):
    """Uncertainty weighting: a learned log-variance ``s_i = log sigma_i^2`` for each task, 0 at the start.

    The cost of a squared error is ``exp(-s) L / 2 + s / 2``, of a cross-entropy ``exp(-s) L + s / 2``; the costs are
    summed. Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (2018), equations
    7, 10.

    The cost of a log-variance loss l is ``exp(-s) exp(l) / 2 + s / 2``, by its variance: the squared error of the
    formula, without the mean error. With l in place of L the cost has no minimum: if l is negative, ``exp(-s) l``
    decreases without bound as s decreases. At the optimal s, which is l, the cost is ``l / 2`` plus a constant, half
    the loss; the gradient of l has the factor ``exp(l - s) / 2``.

    Each s is clamped to the bounds before every step. If it were clamped inside the cost, it would have no gradient
    beyond a bound, and never return. A task without a batch in a step keeps its s.
    """

    def __init__(self, tasks: Mapping[str, str], spec: BalancingSpec, generator: torch.Generator) -> None:
        super().__init__(tasks, spec, generator)
        self.log_variances = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in tasks)

    def backward(self, losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> BalancedStep:
        """Set the gradients as :meth:`Balancer.backward`."""
        with torch.no_grad():
            for s in self.log_variances:
                s.clamp_(*self.spec.bounds)
        log_variances, costs = dict(zip(self.tasks, self.log_variances, strict=True)), []
        weights: dict[str, Number] = {}
        for task, loss in losses.items():
            s, form = log_variances[task], form_of(self.tasks[task])
            precision = torch.exp(-s) if form == "classes" else torch.exp(-s) / 2
            cost = precision * (loss.exp() if form == "log_squares" else loss)
            weights[task] = (cost if form == "log_squares" else precision).detach().reshape(())
            costs.append(cost + s / 2)
        _sum(costs).backward()  # type: ignore[no-untyped-call]
        return BalancedStep(weights, {})


BALANCERS: dict[str, type[Balancer]] = {
    "equal": WeightedSum,
    "fixed": WeightedSum,
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
    """Return the balancer of a training.

    Args:
        spec, joint, absent: as for :func:`check_balancer`, whose errors it raises.
        tasks: task -> name of its loss.
        shared: parameters that all tasks share; those frozen from the start have ``requires_grad`` unset.
        generator: random generator of pcgrad, used by nothing else.
    """
    check_balancer(spec, list(tasks), any(parameter.requires_grad for parameter in shared), joint, absent)
    return BALANCERS[spec.balancer](tasks, spec, generator)


def check_balancer(
    spec: BalancingSpec, tasks: Sequence[str], shares: bool, joint: bool, absent: Iterable[str] = ()
) -> None:
    """Raise a :class:`SpecError` if weights do not match the tasks, or a balancer has no gradients to compare.

    Args:
        spec: names the balancer and its settings.
        tasks: names of the tasks.
        shares: whether any shared parameter is trained.
        joint: whether every step has a batch of every task.
        absent: tasks of the recipe that this training leaves out; they may have a weight.
    """
    known = (*tasks, *absent)
    for task in spec.weights:
        if task not in known:
            raise SpecError(f"balancing.weights: there is no task '{task}'. {nearest(task, known)}")
    if spec.balancer == "fixed" and (missing := [task for task in tasks if task not in spec.weights]):
        raise SpecError(f"balancer 'fixed' needs the weight of every task; balancing.weights lacks '{missing[0]}'.")
    if not BALANCERS[spec.balancer].compares:
        return
    requirement = f"balancer '{spec.balancer}' compares the tasks' gradients by what they share"
    way_out = "or set balancer to equal, fixed or uncertainty"
    if len(tasks) < 2:
        raise SpecError(f"{requirement}, and there is one task only; add a task {way_out}.")
    if not shares:
        raise SpecError(f"{requirement}, and nothing shared is trained; train a shared part {way_out}.")
    if not joint:
        raise SpecError(
            f"{requirement}, and so needs joint steps, one batch of every task in each; take those {way_out}."
        )


def _sum(costs: Iterable[Tensor]) -> Tensor:
    return torch.stack([cost.reshape(()) for cost in costs]).sum()
