"""Gradient conflict: pairwise cosine similarity between task gradients on shared parameters (diagnostic only)."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

EVERY_STEPS = 10
"""Steps between two measurements, the first in the first step of an epoch: each costs a backward pass for each task."""


def gradient_cosines(losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> dict[tuple[str, str], float]:
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
        (first, second): float(torch.nn.functional.cosine_similarity(gradients[first], gradients[second], dim=0))
        for first, second in combinations(gradients, 2)
    }


def _flat_gradient(loss: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros(sum(parameter.numel() for parameter in shared))
    gradients = torch.autograd.grad(loss.sum(), shared, retain_graph=True, allow_unused=True)
    pairs = zip(gradients, shared, strict=True)
    return torch.cat(
        [(torch.zeros_like(parameter) if gradient is None else gradient).flatten() for gradient, parameter in pairs]
    )
