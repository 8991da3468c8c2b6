"""fit(): the one training loop, in three storeys: epochs, batches, one step.

It trains members side by side: probes of several seeds or layers, or the layers of an autoencoder. Nothing crosses
from one to another: each has its own gradient norm, best epoch and early stop, and so ends as it would have alone.
Same data, seed and machine give the same weights, to the last bit, on CPU.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.progress import Progress, Silent
from data.spec import SpecError

FEW = ("mixer.logits", "mixer.network")
"""Parameters of the mixers over cosines."""

AfterEpoch = Callable[[int, float], None]
"""Told the epoch, from 0, and the first member's validation metric; what it raises ends the training."""


@dataclass(frozen=True)
class TrainSpec:
    """How a probe learns."""

    loss: Literal["auto", "mse", "log_variance", "cross_entropy", "span"] = "auto"
    """auto is log_variance for scores, cross_entropy for classes and tags, and span for answers: the mean of the cross
    entropies of where they start and end."""

    epochs: int = 10
    """Most passes over the training rows."""

    batch_rows: int = 64
    """Rows in one step."""

    learning_rate: float = 1e-3
    """Peak rate of AdamW, reached after the warm-up, then falling to 0 in a straight line."""

    mixer_learning_rate: float = 0.02
    """Peak rate of a mixer over cosines, softmax or mlp: a handful of numbers that must move far."""

    weight_decay: float = 0.01
    """Weight decay of AdamW; a mixer over cosines has none."""

    warmup: float = 0.1
    """Share of all steps over which the rate rises."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    compute_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Arithmetic of the large products of a training step; the weights, and what is answered, stay in float32. auto is
    bfloat16 where the hardware multiplies it natively. It pays for a wide context, not for small probes."""

    patience: int = 5
    """Stop after this many epochs without a better validation metric; the best epoch's weights are kept."""

    seeds: tuple[int, ...] = (0,)
    """One training per seed: it draws the starting weights and the order of rows."""

    average: bool = False
    """Whether the seeds answer together, by the mean of what they say; else figures are the mean of theirs and the best
    seed answers new texts."""

    metric: Literal["auto", "pearson", "spearman", "accuracy", "macro_f1", "f1", "exact_match"] = "auto"
    """Validation metric that picks the best epoch and the best variant; auto is spearman for scores, accuracy for
    classes, f1 for tags and answers. f1 of two classes is that of the second."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_rows < 1 or self.patience < 1:
            raise SpecError("epochs, batch_rows and patience must be at least 1.")
        positive = all(value > 0 for value in (self.learning_rate, self.mixer_learning_rate, self.clip))
        if not positive or not self.weight_decay >= 0 or not 0 <= self.warmup <= 1:
            raise SpecError("learning rates and clip must be positive, weight_decay not negative, warmup in [0, 1].")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds must name at least one, none negative and none twice, got {list(self.seeds)}.")


@dataclass(frozen=True)
class Learner:
    """What fit() trains."""

    module: nn.Module
    owners: dict[str, Tensor]
    """Parameter name -> ``[first axis]``, the member that each of its parts belongs to."""

    loss: Callable[[NDArray[np.int64]], Tensor]
    """Training rows in the order of each distinct seed, ``[order, row]`` -> ``[member]``."""

    validate: Callable[[], NDArray[np.floating]]
    """The validation metric of each member, ``[member]``, larger is better; nan where there is none."""

    rows: int
    """Training rows."""

    smallest_batch: int = 1
    """Rows below which the loss does not exist; such a batch joins its neighbour."""

    def parts(self) -> list[tuple[nn.Parameter, Tensor]]:
        """What is trained: parameters with the owners of their parts."""
        return [(part, self.owners[name]) for name, part in self.module.named_parameters() if name in self.owners]


@dataclass(frozen=True)
class Fitted:
    """How a member's training went; its weights are those of ``best_epoch``."""

    best_epoch: int
    """From 0; -1 where the validation metric was never finite."""

    best_value: float
    losses: tuple[float, ...] = field(repr=False)
    """Mean training loss by epoch."""

    values: tuple[float, ...] = field(repr=False)
    """Validation metric by epoch, to where its training stopped."""


def fit(
    learner: Learner,
    spec: TrainSpec,
    seeds: Sequence[int],
    progress: Progress | None = None,
    name: str = "training",
    after_epoch: AfterEpoch | None = None,
) -> list[Fitted]:
    """Train every member in place and leave each at its best epoch.

    Args:
        seeds: of each member; it draws the order of its rows.

    Raises:
        SpecError: nothing to train, fewer training rows than the loss needs, or a loss that is not finite.
    """
    if learner.rows < learner.smallest_batch:
        raise SpecError(
            f"{learner.rows} training rows are too few: this loss needs {learner.smallest_batch} in a batch."
        )
    if not learner.owners:
        raise SpecError("there is nothing to train: an encoder 'none' under a mixer 'last' or 'concat' has no weights.")
    shufflers = [np.random.default_rng(seed) for seed in sorted(set(seeds))]
    optimizer = _optimizer(learner, spec)
    bounds = list(_bounds(learner.rows, spec.batch_rows, learner.smallest_batch))
    schedule = _schedule(optimizer, spec, len(bounds))
    best = _Best(learner, len(seeds), spec.patience)
    lowered = spec.compute_dtype == "bfloat16" or (spec.compute_dtype == "auto" and _native_bfloat16())
    with (progress or Silent()).bar(name, spec.epochs) as advance:
        for epoch in range(spec.epochs):
            orders = np.stack([shuffler.permutation(learner.rows) for shuffler in shufflers])
            batches = (orders[:, start:end] for start, end in bounds)
            losses = _epoch(learner, batches, optimizer, schedule, spec.clip, len(seeds), lowered)
            values = _validated(learner)
            learning = best.after(epoch, losses, values)
            advance(1)
            if after_epoch:
                after_epoch(epoch, float(values[0]))
            if not learning:
                break
    best.restore()
    learner.module.eval()
    return best.fitted()


def _native_bfloat16() -> bool:
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def orders_of(seeds: Sequence[int]) -> NDArray[np.int64]:
    """``[member]``: which order of rows each member takes; those of one seed take the same."""
    return np.searchsorted(sorted(set(seeds)), seeds)


def _epoch(
    learner: Learner,
    batches: Iterator[NDArray[np.int64]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    clip: float,
    members: int,
    lowered: bool,
) -> NDArray[np.float64]:
    """Mean loss of each member, ``[member]``."""
    learner.module.train()
    losses = []
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            loss = learner.loss(batch)
        losses.append(_step(learner, loss, optimizer, clip, members))
        schedule.step()
    return np.asarray(np.mean(losses, axis=0))


def _step(
    learner: Learner, losses: Tensor, optimizer: torch.optim.Optimizer, clip: float, members: int
) -> NDArray[np.floating]:
    numbers: NDArray[np.floating] = losses.detach().numpy()
    if not np.isfinite(numbers).all():
        wrong = numbers[~np.isfinite(numbers)][0]
        raise SpecError(f"the training loss became {wrong}; lower train.learning_rate or train.mixer_learning_rate.")
    optimizer.zero_grad()
    losses.sum().backward()  # type: ignore[no-untyped-call]
    clip_by_member(learner, clip, members)
    optimizer.step()
    return numbers


def clip_by_member(learner: Learner, largest: float, members: int) -> None:
    """Scale each member's gradient down to a norm of ``largest``, over all its parameters and no other's."""
    parts = [(part, owner) for part, owner in learner.parts() if part.grad is not None]
    squares = torch.zeros(members)
    for part, owner in parts:
        assert part.grad is not None
        squares.index_add_(0, owner, part.grad.reshape(len(part), -1).square().sum(1))
    factors = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for part, owner in parts:
        assert part.grad is not None
        if (mine := factors[owner]).min() < 1:
            part.grad.mul_(mine.view(-1, *[1] * (part.dim() - 1)))


def _validated(learner: Learner) -> NDArray[np.floating]:
    learner.module.eval()
    with torch.inference_mode():
        return learner.validate()


class _Best:
    """Each member's best weights so far, and whether it still learns."""

    def __init__(self, learner: Learner, members: int, patience: int) -> None:
        self.learner, self.patience = learner, patience
        self.value = np.full(members, -math.inf)
        self.epoch = np.full(members, -1)
        self.stopped = np.zeros(members, bool)
        self.losses: list[list[float]] = [[] for _ in range(members)]
        self.values: list[list[float]] = [[] for _ in range(members)]
        self.weights = [part.detach().clone() for part, _ in learner.parts()]

    def after(self, epoch: int, losses: NDArray[Any], values: NDArray[Any]) -> bool:
        """Note an epoch; returns whether any member still learns."""
        for member in np.flatnonzero(~self.stopped):
            self.losses[member].append(float(losses[member]))
            self.values[member].append(float(values[member]))
        better = ~self.stopped & np.greater(values, self.value)  # nan is never greater
        self.value[better], self.epoch[better] = values[better], epoch
        if better.any():
            chosen = torch.from_numpy(better)
            for kept, (part, owner) in zip(self.weights, self.learner.parts(), strict=True):
                mine = chosen[owner]
                kept[mine] = part.detach()[mine]
        self.stopped |= epoch - self.epoch >= self.patience
        return not self.stopped.all()

    def restore(self) -> None:
        with torch.no_grad():
            for kept, (part, _) in zip(self.weights, self.learner.parts(), strict=True):
                part.copy_(kept)

    def fitted(self) -> list[Fitted]:
        return [
            Fitted(int(epoch), float(value), tuple(losses), tuple(values))
            for epoch, value, losses, values in zip(self.epoch, self.value, self.losses, self.values, strict=True)
        ]


def _bounds(rows: int, size: int, smallest: int) -> Iterator[tuple[int, int]]:
    """Consecutive batches; a last one that is too small for its loss joins the one before."""
    starts = list(range(0, rows, max(size, smallest)))
    if len(starts) > 1 and rows - starts[-1] < smallest:
        starts.pop()
    return zip(starts, [*starts[1:], rows], strict=True)


def _optimizer(learner: Learner, spec: TrainSpec) -> torch.optim.Optimizer:
    named = {name: part for name, part in learner.module.named_parameters() if name in learner.owners}
    mixer = [part for name, part in named.items() if name.startswith(FEW)]
    others = [part for name, part in named.items() if not name.startswith(FEW)]
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
