"""fit(): the one training loop, in three storeys: epochs, batches, one step.

Same data, seed and machine give the same weights, to the last bit, on CPU.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.progress import Progress, Silent
from data.spec import SpecError

Loss = Callable[[NDArray[np.int64]], Tensor]
"""Indices of training rows -> the loss of the probe on them."""


@dataclass(frozen=True)
class TrainSpec:
    """How a probe learns."""

    loss: Literal["auto", "mse", "log_variance", "cross_entropy"] = "auto"
    """auto is log_variance for scores and cross_entropy for classes."""

    epochs: int = 10
    """Most passes over the training rows."""

    batch_rows: int = 64
    """Rows in one step."""

    learning_rate: float = 1e-3
    """Peak rate of AdamW, reached after the warm-up, then falling to 0 in a straight line."""

    mixer_learning_rate: float = 0.02
    """Peak rate of the softmax mixer's weights over layers: a handful of numbers that must move far."""

    weight_decay: float = 0.01
    """Weight decay of AdamW; the softmax mixer has none."""

    warmup: float = 0.1
    """Share of all steps over which the rate rises."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    patience: int = 5
    """Stop after this many epochs without a better validation metric; the best epoch's weights are kept."""

    seeds: tuple[int, ...] = (0,)
    """One training per seed: it draws the starting weights and the order of rows."""

    metric: Literal["auto", "pearson", "spearman", "accuracy", "macro_f1"] = "auto"
    """Validation metric that picks the best epoch and the best variant; auto is spearman or accuracy."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_rows < 1 or self.patience < 1:
            raise SpecError("epochs, batch_rows and patience must be at least 1.")
        positive = all(value > 0 for value in (self.learning_rate, self.mixer_learning_rate, self.clip))
        if not positive or not self.weight_decay >= 0 or not 0 <= self.warmup <= 1:
            raise SpecError("learning rates and clip must be positive, weight_decay not negative, warmup in [0, 1].")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds must name at least one, none negative and none twice, got {list(self.seeds)}.")


@dataclass(frozen=True)
class Fitted:
    """How a training went; the probe holds the weights of ``best_epoch``."""

    best_epoch: int
    best_value: float
    losses: tuple[float, ...] = field(repr=False)
    """Mean training loss by epoch."""

    values: tuple[float, ...] = field(repr=False)
    """Validation metric by epoch."""


def fit(
    probe: nn.Module,
    loss: Loss,
    rows: int,
    validate: Callable[[], float],
    spec: TrainSpec,
    seed: int,
    smallest_batch: int = 1,
    progress: Progress | None = None,
) -> Fitted:
    """Train ``probe`` in place and leave it at its best epoch.

    Args:
        loss: of the probe on some training rows.
        rows: how many training rows there are.
        validate: the validation metric, larger is better; called after each epoch in evaluation mode.
        smallest_batch: rows below which the loss does not exist; such a batch joins its neighbour.

    Raises:
        SpecError: nothing to train, fewer training rows than the loss needs, or a loss that is not finite.
    """
    if rows < smallest_batch:
        raise SpecError(f"{rows} training rows are too few: this loss needs {smallest_batch} in a batch.")
    if not any(weight.requires_grad for weight in probe.parameters()):
        raise SpecError("there is nothing to train: an encoder 'none' under a mixer 'last' has no weights.")
    steps_per_epoch = len(list(_batches(np.arange(rows), spec.batch_rows, smallest_batch)))
    optimizer = _optimizer(probe, spec)
    schedule = _schedule(optimizer, spec, steps_per_epoch)
    shuffler = np.random.default_rng(seed)
    best: tuple[float, int, dict[str, Tensor]] = (-math.inf, -1, {})
    losses: list[float] = []
    values: list[float] = []
    with (progress or Silent()).bar(f"training, seed {seed}", spec.epochs) as advance:
        for epoch in range(spec.epochs):
            batches = _batches(shuffler.permutation(rows), spec.batch_rows, smallest_batch)
            losses.append(_epoch(probe, loss, batches, optimizer, schedule, spec.clip))
            values.append(_validated(probe, validate))
            if values[-1] > best[0]:
                best = values[-1], epoch, {name: value.clone() for name, value in probe.state_dict().items()}
            advance(1)
            if epoch - best[1] >= spec.patience:
                break
    if best[1] < 0:
        raise SpecError("the validation metric was never finite: predictions or targets of validation are constant.")
    probe.load_state_dict(best[2])
    probe.eval()
    return Fitted(best[1], best[0], tuple(losses), tuple(values))


def _epoch(
    probe: nn.Module,
    loss: Loss,
    batches: Iterator[NDArray[np.int64]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    clip: float,
) -> float:
    probe.train()
    losses = []
    for batch in batches:
        losses.append(_step(probe, loss(batch), optimizer, clip))
        schedule.step()
    return float(np.mean(losses))


def _step(probe: nn.Module, value: Tensor, optimizer: torch.optim.Optimizer, clip: float) -> float:
    number = value.item()
    if not math.isfinite(number):
        raise SpecError(f"the training loss became {number}; lower train.learning_rate or train.mixer_learning_rate.")
    optimizer.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(probe.parameters(), clip)
    optimizer.step()
    return number


def _validated(probe: nn.Module, validate: Callable[[], float]) -> float:
    probe.eval()
    with torch.inference_mode():
        return validate()


def _batches(order: NDArray[np.int64], size: int, smallest: int) -> Iterator[NDArray[np.int64]]:
    """Consecutive batches; a last one that is too small for its loss joins the one before."""
    starts = list(range(0, len(order), max(size, smallest)))
    if len(starts) > 1 and len(order) - starts[-1] < smallest:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:end]


def _optimizer(probe: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    mixer = [weight for name, weight in probe.named_parameters() if name == "mixer.logits"]
    others = [weight for name, weight in probe.named_parameters() if name != "mixer.logits"]
    groups = [
        {"params": others, "lr": spec.learning_rate, "weight_decay": spec.weight_decay},
        {"params": mixer, "lr": spec.mixer_learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def _schedule(
    optimizer: torch.optim.Optimizer, spec: TrainSpec, steps_per_epoch: int
) -> torch.optim.lr_scheduler.LRScheduler:
    total = spec.epochs * steps_per_epoch
    rising = max(1, round(spec.warmup * total))

    def rate(step: int) -> float:
        return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
