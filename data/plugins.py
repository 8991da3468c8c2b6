"""What a head, a loss, a pooling, a reader and a metric of one's own are: their functions, and the targets they fit.

They hold functions only, so that names of recipes can be checked without torch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from permafrost.data.spec import SpecError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Plugin:
    """A part that recipes name as they name one of ours."""

    kind: ClassVar[str]
    """Name of the kind, in the singular."""

    keys: ClassVar[tuple[str, ...]]
    """Settings that name such a part."""

    built_in: ClassVar[tuple[str, ...]]
    """Names of ours, which no other part can have."""

    @property
    def called(self) -> Callable[..., Any]:
        """The function of the part."""
        function: Callable[..., Any] = next(value for value in vars(self).values() if callable(value))
        return function


@dataclass(frozen=True, eq=False)
class TargetPlugin(Plugin):
    """A part that fits some kinds of targets."""

    fitting: ClassVar[tuple[str, ...]]
    """Values of ``corpus.target`` that a part of this kind may be for."""

    def _check_targets(self, targets: Iterable[str]) -> None:
        unknown = [target for target in targets if target not in self.fitting]
        if isinstance(targets, str) or unknown or not targets:
            raise SpecError(f"targets of a {self.kind} must be a list of {', '.join(self.fitting)}; got {targets!r}.")


@dataclass(frozen=True, eq=False)
class Head(TargetPlugin):
    """Network from the features of a row, or the states of a token, to the outputs of the task."""

    kind, keys = "head", ("probe.head",)
    built_in = ("auto", "cosine", "regression", "classes", "labels", "tags", "span")
    fitting = ("score", "class", "labels", "tags", "answers")

    build: "Callable[..., nn.Module]"
    """``build(inputs, outputs, **probe.head_options)``: a module from ``[row, inputs]`` to ``[row, outputs]``.

    Rows are tokens for ``tags`` and ``answers``; of a pair of texts, the features are those of ``probe.product``. There
    are 1 output for a score, one for each class, label or tag, and 2 for answers (start and end). Each seed has a
    module of its own. All its tensors must be parameters or persistent buffers, and buffers must not change."""

    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check_targets(self.targets)


@dataclass(frozen=True, eq=False)
class Loss(TargetPlugin):
    """Training loss of one batch."""

    kind, keys = "loss", ("train.loss",)
    built_in = (
        "auto", "mse", "log_variance", "cross_entropy", "binary_cross_entropy", "span", "multiple_negatives_ranking",
    )  # fmt: skip
    fitting = ("score", "class", "labels", "tags", "answers", "rank")

    function: "Callable[[Tensor, Tensor], Tensor]"
    """``function(prediction, target)``: a tensor of one number, to be minimised, for a batch of one seed.

    - score: predictions and targets ``[row]``, targets scaled to 0..1;
    - class, tags: logits ``[row, class]`` and class numbers ``[row]``, the rows of tags are words;
    - labels: logits ``[row, label]`` and targets ``[row, label]``, 0 or 1;
    - answers: logits ``[window, token, 2]``, -inf for tokens that are no answer, and token indices ``[window, 2]``;
    - rank: cosines ``[query, passage]``, -inf for passages to leave out, and the index of the relevant one ``[query]``.
    """

    targets: tuple[str, ...]
    min_rows: int = 1
    """Smallest batch for which it is defined."""

    def __post_init__(self) -> None:
        self._check_targets(self.targets)


@dataclass(frozen=True, eq=False)
class Metric(TargetPlugin):
    """Metric of predictions; greater is better, as for scikit-learn's scorers (negate an error)."""

    kind, keys = "metric", ("train.metric", "train.extra_metrics")
    built_in = (
        "auto", "pearson", "spearman", "accuracy", "macro_f1", "micro_f1", "f1", "mean_average_precision",
        "subset_accuracy", "precision", "recall", "exact_match", "ndcg@10", "map", "mrr", "precision@1", "recall@10",
    )  # fmt: skip
    fitting = ("score", "class", "labels", "tags", "answers", "rank")

    function: Callable[[Any, Any], float]
    """``function(prediction, target)``: one number.

    Of all rows, numpy arrays:

    - score: ``[row]`` both; predictions before calibration, targets scaled to 0..1;
    - class: class numbers ``[row]`` both;
    - labels: ``[row, label]`` both, 0 or 1.

    Of a single row, and the metric is the mean over rows:

    - tags: the tags of a sentence, two lists of strings in IOB2;
    - answers: two strings; of several acceptable answers the best counts. The answer is "" where there is none;
    - rank: the ranks of the relevant passages of a query, from 1, and their relevances, ``[passage]`` both.
    """

    targets: tuple[str, ...]

    def __post_init__(self) -> None:
        self._check_targets(self.targets)


@dataclass(frozen=True, eq=False)
class Pooling(Plugin):
    """View of the tokens of a text: from their hidden states to one latent for each layer."""

    kind, keys = "pooling", ("plan.views",)
    built_in = ("last", "text_last", "mean", "weighted_mean", "cls", "max", "sum", "tokens")

    function: "Callable[[Tensor, Tensor], Tensor]"
    """``function(hidden, mask)``: from ``[text, token, width]`` and ``[text, token]`` to ``[text, width]``.

    ``hidden`` holds the states of one layer in float32 or float64: of each text first the tokens that ``mean`` is over,
    where ``mask`` is True, then zeros. A text must get the same latent whatever texts are beside it, which is tried on
    random states before anything runs."""


@dataclass(frozen=True, eq=False)
class Reader(Plugin):
    """Reader of files of a format that is not ours."""

    kind, keys = "reader", ("corpus.reader",)
    built_in = (
        "csv", "tsv", "tab", "txt", "json", "jsonl", "ndjson", "parquet", "arrow", "feather", "xlsx", "conll", "gz",
        "zst", "xz", "bz2",
    )  # fmt: skip

    read: Callable[[Path], Iterable[Mapping[str, Any]]]
    """``read(path)``: the rows of a file, column -> text, number, list or None; all rows have the same columns.

    It is called more than once, and may be left before its end. A reader that is named as a suffix, ``xml`` for
    ``.xml``, reads files that have it without being asked for."""


KINDS: dict[str, type[Plugin]] = {
    "permafrost.heads": Head,
    "permafrost.losses": Loss,
    "permafrost.poolings": Pooling,
    "permafrost.readers": Reader,
    "permafrost.metrics": Metric,
}
"""Group of entry points -> kind of part."""
