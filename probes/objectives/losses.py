"""Losses of scores, classes, label sets, word tags, answer spans and pairs to rank.

They reduce over rows only, so each stacked member has its own loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from permafrost.data.plugin_registry import PluginError, Registered, find, named_errors
from permafrost.data.plugins import Loss

SMALLEST_VARIANCE = 1e-8
"""Added to the variance, so that a perfect batch has a finite loss."""

SCALE = 20.0
"""Factor of the cosines of a query and its candidates."""

RANKING_LOSS = "multiple_negatives_ranking"


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error, ``mean((prediction - target)^2)``: ``[..., row]`` -> ``[...]``."""
    return (prediction - target).square().mean(-1)


def log_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the log of the variance of the residuals, ``log(Var(prediction - target) + 1e-8)``.

    Punishes spread, not bias: a constant offset costs nothing, which suits correlation metrics.
    Source: McDonald, Marsano and McLaughlin, "FREEZE!", section 4.1.1.

    Args:
        prediction: ``[..., row]``.
        target: ``[..., row]``.

    Returns:
        ``[...]``, natural log of the unbiased variance; finite for a perfect batch.

    Raises:
        ValueError: the batch holds fewer than two rows, so no variance exists.
    """
    if prediction.shape[-1] < 2:
        raise ValueError(f"log_variance needs at least 2 rows, got {prediction.shape[-1]}.")
    return torch.log(torch.var(prediction - target, dim=-1) + SMALLEST_VARIANCE)


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy, ``[...]``.

    Args:
        logits: ``[..., row, class]``.
        target: ``[..., row]``, class indices.
        weights: ``[class]``, factor of the rows of each class before the mean over rows; None weighs all alike.
    """
    classes = target.expand(logits.shape[:-1])
    flat = functional.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none")
    losses = flat.view(logits.shape[:-1])
    return (losses if weights is None else losses * weights[classes]).mean(-1)


def binary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean binary cross-entropy of every label by itself, ``[...]``.

    Args:
        logits: ``[..., row, label]``.
        target: ``[..., row, label]``, 0 or 1.
        weights: ``[label]``, factor of the rows that have the label; None weighs all alike.
    """
    losses = functional.binary_cross_entropy_with_logits(
        logits, target.expand_as(logits), reduction="none", pos_weight=weights
    )
    return losses.mean((-2, -1))


def span_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of the start and the end of an answer, each a choice among the tokens of a text.

    Source: Devlin et al., "BERT" (2019), section 4.2.

    Args:
        logits: ``[..., text, token, 2]``; -inf for tokens that no answer can contain.
        target: ``[..., text, 2]``, token indices.
    """
    return cross_entropy(logits.transpose(-1, -2).flatten(-3, -2), target.flatten(-2))


def multiple_negatives_ranking(scores: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of choosing the passage of each query among candidates, by 20 times the score.

    Source: Henderson et al., "Efficient Natural Language Response Suggestion for Smart Reply" (2017), section 4.4; with
    the scale of sentence-transformers' MultipleNegativesRankingLoss, a temperature of 0.05.

    Args:
        scores: ``[..., row, candidate]``, cosines; -inf for candidates that are no negatives of a query.
        target: ``[..., row]``, indices of candidates.
    """
    return cross_entropy(SCALE * scores, target)


def own_loss(name: str, part: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss from outside as one of stacked members, each of which it is given alone: ``[member]``."""

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.stack([of_member(*pair) for pair in zip(prediction, target, strict=True)])

    def of_member(prediction: Tensor, target: Tensor) -> Tensor:
        with named_errors(name, part):
            value = part.function(prediction, target)
        if not isinstance(value, Tensor) or value.numel() != 1:
            found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise PluginError(f"the loss '{name}' must return a tensor of one number for a batch, got {found}.")
        if not value.requires_grad and prediction.requires_grad:
            raise PluginError(f"the loss '{name}' has no gradient: compute it from the prediction by torch alone.")
        return value.reshape(())

    return loss


OURS: dict[str, Callable[..., Tensor]] = {
    "mse": mse,
    "log_variance": log_variance,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "span": span_cross_entropy,
    RANKING_LOSS: multiple_negatives_ranking,
}

LOSSES = Registered(OURS, Loss, own_loss)
"""Loss -> function of predictions and targets; those of classes and label sets take weights too."""

MIN_BATCH_ROWS = {"log_variance": 2, RANKING_LOSS: 2}
"""Minimum batch size for which a loss of ours is defined, by name; 1 for all others."""


def min_batch_rows(name: str) -> int:
    """Return the minimum batch size for which a loss is defined."""
    return MIN_BATCH_ROWS.get(name, 1) if name in LOSSES else find(Loss, name).min_rows
