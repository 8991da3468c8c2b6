"""Settings of ``[train]`` and ``[pretraining]``: optimisation of probes, and pretraining of their encoders."""

import math
from dataclasses import dataclass, field
from typing import Literal

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.machine import size_in_bytes
from permafrost.data.spec import SpecError

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Experiment trackers that a run can report to; each is the name of an extra of the installation."""


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """How a probe is trained: loss, optimiser, schedule, early stopping and seeds."""

    loss: str = "auto"
    """Training loss. "auto" selects "log_variance" for scores, which "mse" serves too, "cross_entropy" for classes and
    tags, "binary_cross_entropy" (the mean over labels) for label sets, "span" for answers (the mean of the
    cross-entropies of the start and end positions), and "multiple_negatives_ranking" for pairs to rank: the
    cross-entropy of choosing the relevant passage by 20 times the cosine, among the passages of the batch. Passages
    that are relevant to the same query are left out, and each pair brings up to 4 irrelevant ones of its query. A loss
    of your own goes by its name."""

    class_weights: Literal["none", "balanced"] = "none"
    """Weights of classes or labels in the loss. "balanced" multiplies the loss of a row by rows / (classes * rows of
    its class), as scikit-learn does, so that all classes count alike; of label sets, that of a row with a label by the
    rows without it / those with it. Not for other targets."""

    epochs: int = 10
    """Maximum number of epochs; patience can end the training earlier."""

    batch_rows: int = 64
    """Batch size in rows; for pairs to rank, in relevant pairs."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW, reached after the warm-up; then it decays linearly to 0."""

    mixer_learning_rate: float = 0.02
    """Peak learning rate of a "softmax" or "mlp" mixer over cosines, whose few parameters need a higher one."""

    weight_decay: float = 0.01
    """Weight decay of AdamW; mixers over cosines are exempt."""

    warmup: float = 0.1
    """Fraction of all steps over which the learning rate rises to its peak, in [0, 1]."""

    clip: float = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it."""

    compute_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    """Data type of the large matrix products of a training step; weights and predictions stay in float32. "auto"
    selects bfloat16 if the hardware supports it natively. bfloat16 is faster for a wide context, not for small
    probes."""

    rates: dict[str, float] = field(default_factory=dict)
    """Peak learning rate per component, by name, e.g. {backbone = 2e-5, "topic.head" = 1e-3}. "backbone" is the trained
    blocks of the backbone (default 5e-5), "probe" the probe of a single task, NAME the probe of [tasks.NAME], and
    NAME.head a part of it. The longest matching name applies."""

    freeze: dict[str, int | Literal["converged"]] = field(default_factory=dict)
    """Components to freeze, named as in rates, e.g. {tone = 0, backbone = "converged"}: the number of epochs after
    which they are frozen, 0 from the start; or "converged", after the first epoch that changes their weights by less
    than train.converged."""

    converged: float = 1e-3
    """Relative change of a component's weights in an epoch (norm of the change / norm of the weights) below which
    freeze = "converged" applies."""

    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints of a training; a killed run loses at most this much, and the same command resumes
    it."""

    patience: int = 5
    """Early stopping: number of epochs without a better validation metric; the best epoch's weights are kept."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights and of the row order; each seed is one training."""

    average: bool = False
    """Whether to predict with the mean of the seeds' predictions. If false, reported metrics are the mean of the seeds'
    metrics, and the seed with the best validation metric predicts new texts."""

    metric: str = "auto"
    """Validation metric that selects the best epoch and the best variant. "auto" selects "spearman" for scores,
    "accuracy" for classes, "mean_average_precision" for label sets, "f1" for tags and answers, and "ndcg@10" for pairs
    to rank. Others are "pearson" for scores; "macro_f1" for classes and, of two classes, "f1", that of the second;
    "micro_f1", "macro_f1" and "subset_accuracy" for label sets; "precision", "recall" and "accuracy" for tags;
    "exact_match" for answers; "map", "mrr", "precision@1" and "recall@10" for pairs to rank. A metric of your own goes
    by its name; greater must be better."""

    extra_metrics: tuple[str, ...] = ()
    """Metrics of your own that are measured beside the others, by name."""

    track: tuple[str, ...] = ()
    """Experiment trackers that follow a run: "tensorboard" (in the run folder), "mlflow" (where MLFLOW_TRACKING_URI
    says, else in the working folder), "wandb" (as its environment says). Each is an extra of the installation. Nothing
    that is trained depends on it: a run with other trackers is the same run."""

    memory: int | str = "auto"
    """Memory that the latents of a probe may take, in bytes or such as "8GB"; "auto" is half of the free memory. More
    latents are copied into a temporary file in extract.cache, in the order of the corpus, and read from it ahead of
    training; workers of a study read tokens from the cache. No figure depends on it: a run with another limit is the
    same run."""

    @property
    def memory_bytes(self) -> int | None:
        """:attr:`memory` in bytes; None if it is "auto"."""
        return None if self.memory == "auto" else size_in_bytes(str(self.memory), "memory")

    def __post_init__(self) -> None:
        _ = self.memory_bytes
        if unknown := [name for name in self.track if name not in TRACKERS]:
            raise SpecError(f"track: there is no tracker {unknown[0]!r}. Known: {', '.join(TRACKERS)}.")
        object.__setattr__(self, "track", tuple(dict.fromkeys(self.track)))
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


OF_WHOLE_RUN = ("track", "memory")
"""Settings of :class:`TrainSpec` that neither a task nor a variant can have of its own."""

UNUSED_IN_PRETRAINING = ("loss", "class_weights", "metric", "seeds", "average", "mixer_learning_rate", *OF_WHOLE_RUN)
"""Settings of :class:`TrainSpec` that have no effect on pretraining: its task or the recipe fixes them."""


@dataclass(frozen=True)
class PretrainingSpec:
    """Pretraining of the probe's encoder: task, corpus and training."""

    task: Literal["none", "autoencoder", "classes"] = "none"
    """Pretraining task. "autoencoder" reconstructs the latents of sentences from their codes; "classes" predicts the
    class of a text pair from each layer's codes u and v, as [u, v, |u - v|]; "none" skips pretraining."""

    corpus: CorpusSpec = field(default_factory=lambda: CorpusSpec(name="genericskb", limit=20000))
    train: TrainSpec = field(default_factory=lambda: TrainSpec(batch_rows=128))
    held_out: float = 0.1
    """Fraction of the sentences, in (0, 1), held out to select the best epoch of the autoencoder."""

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise SpecError(f"held_out must be in (0, 1), got {self.held_out}.")
        for name in UNUSED_IN_PRETRAINING:
            if getattr(self.train, name) != getattr(TrainSpec(), name):
                raise SpecError(f"train.{name} has no effect on pretraining; set train.{name} of the recipe itself.")
