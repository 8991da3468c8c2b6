"""The settings of a training."""

import math
from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.spec import SpecError


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

    rates: dict[str, float] = field(default_factory=dict)
    """Peak rates of single components by name, for example {backbone = 2e-5, "topic.head" = 1e-3}: backbone is the blocks of
    the backbone that learn, NAME the probe of [tasks.NAME], probe that of a single task, NAME.head a part of it. The
    longest name that fits counts. Where upper is not named, its rate is 5e-5."""

    freeze: dict[str, int | Literal["converged"]] = field(default_factory=dict)
    """Components that stop learning, named as in rates, for example {tone = 0, backbone = "converged"}: after how many
    epochs, 0 for from the start; or "converged", once an epoch moves their weights by less than converged, as a share
    of their norm."""

    converged: float = 1e-3
    """What freeze = "converged" takes for standing still."""

    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints of a run's trainings; one that is killed loses no more, and goes on where the same
    command is run again."""

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
        if not self.converged >= 0 or not self.checkpoint_seconds >= 0:
            raise SpecError("converged and checkpoint_seconds must not be negative.")
        for name, value in self.freeze.items():
            if value != "converged" and int(value) < 0:
                raise SpecError(f"freeze: {name} must be a number of epochs, 0 or more, or 'converged', got {value}.")
        rates = (self.learning_rate, self.mixer_learning_rate, self.clip, *self.rates.values())
        if not all(0 < value < math.inf for value in rates) or not self.weight_decay >= 0 or not 0 <= self.warmup <= 1:
            raise SpecError("learning rates and clip must be positive, weight_decay not negative, warmup in [0, 1].")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds must name at least one, none negative and none twice, got {list(self.seeds)}.")


NO_SAY = ("loss", "metric", "seeds", "average", "mixer_learning_rate")
"""Settings of a training that the task of pretraining, or the recipe, decides."""


@dataclass(frozen=True)
class PretrainingSpec:
    """What the encoder learns before its task, and from which texts."""

    task: Literal["none", "autoencoder", "classes"] = "none"
    """autoencoder rebuilds the latents of sentences from their codes; classes tells the class of a pair from each
    layer's codes u and v, as [u, v, |u - v|]."""

    corpus: CorpusSpec = field(default_factory=lambda: CorpusSpec(name="genericskb", limit=20000))
    train: TrainSpec = field(default_factory=lambda: TrainSpec(batch_rows=128))
    held_out: float = 0.1
    """Share of the sentences by which the autoencoder's best epoch is picked."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise SpecError(f"held_out must be in (0, 1), got {self.held_out}.")
        for name in NO_SAY:
            if getattr(self.train, name) != getattr(TrainSpec(), name):
                raise SpecError(f"train.{name} has no say in pretraining; set train.{name} of the recipe itself.")
