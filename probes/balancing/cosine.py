"""Whether tasks agree on what they share: the cosines of their gradients, which change nothing in being measured."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

EVERY_STEPS = 10
"""A measurement costs a backward pass a task; an epoch has one in its first step, and then after as many steps."""


def agreement(losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter]) -> dict[tuple[str, str], float]:
    """The cosine of the gradients of each two tasks by what they share, 0 where one has none; below 0 they conflict.

    Args:
        losses: task -> its loss, whose graph is kept.
        shared: parameters that are trained; without any there is no cosine.
    """
    if not shared or len(losses) < 2:
        return {}
    rows = {task: _gradient(loss, shared) for task, loss in losses.items()}
    return {
        (first, second): float(torch.nn.functional.cosine_similarity(rows[first], rows[second], dim=0))
        for first, second in combinations(rows, 2)
    }


def _gradient(loss: Tensor, shared: Sequence[nn.Parameter]) -> Tensor:
    if not loss.requires_grad:
        return torch.zeros(sum(part.numel() for part in shared))
    found = torch.autograd.grad(loss.sum(), shared, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(part) if own is None else own).flatten() for own, part in zip(found, shared, strict=True)]
    )
