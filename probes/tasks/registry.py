"""Registry of the kinds of tasks, and the problem of a recipe: corpus, task, head, loss and metric, resolved once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.targets import TARGETS
from permafrost.data.plugin_registry import find, fitting_names, is_known
from permafrost.data.plugins import Head, Loss, Metric
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.results.run_folder import ReportError
from permafrost.probes.tasks.answers import Answering
from permafrost.probes.tasks.base import Scorer, Task
from permafrost.probes.tasks.classes import Classification
from permafrost.probes.tasks.labels import MultiLabel
from permafrost.probes.tasks.ranking import Ranking
from permafrost.probes.tasks.scores import Similarity
from permafrost.probes.tasks.tagging import Tagging

TASKS: dict[str, Task] = {}
"""Kind of target -> task."""


def register(task: Task) -> None:
    """Add a kind of task, and the encoding of its targets if it brings one."""
    TASKS[task.kind] = task
    if task.encoding:
        TARGETS[task.kind] = task.encoding


for known in (Similarity(), Classification(), MultiLabel(), Tagging(), Answering(), Ranking()):
    register(known)


def task_of(corpus: Corpus) -> Task:
    """Return the task of a corpus.

    Raises:
        CorpusError: the corpus has no targets, no training or validation rows, or nothing to learn.
    """
    if corpus.kind not in TASKS:
        kinds = f"{', '.join(list(TASKS)[:-1])} or {list(TASKS)[-1]}"
        raise CorpusError(
            f"{corpus.name}: it has no targets to learn; set corpus.columns (--columns) to your columns of texts, then "
            f"of the target, and if need be corpus.target (--target) to {kinds}."
        )
    for split in ("train", corpus.selection_split):
        if split not in corpus.splits:
            raise CorpusError(
                f"{corpus.name}: it has no rows of {split}, only of {', '.join(corpus.splits)}; give it more rows, or "
                f"a file or column that says which are {split}."
            )
    TASKS[corpus.kind].check(corpus)
    return TASKS[corpus.kind]


def unit_of(kind: str) -> str:
    """Return what the metrics of a kind are means over, in the plural; ``rows`` for an unknown kind."""
    return TASKS[kind].unit if kind in TASKS else Task.unit


def task_of_predictions(kind: str, predictions: pd.DataFrame) -> Task | None:
    """Return the task whose predictions a table holds; None if it is of no known kind.

    Raises:
        ReportError: the table lacks a column that the task shows, or the record names the wrong columns as numbers.
    """
    task = TASKS.get(kind)
    if task is None:
        return None
    missing = [column for column in task.required if column not in predictions]
    if missing:
        raise ReportError(f"predictions.csv has no column '{missing[0]}', and its rows are of the kind '{kind}'.")
    for column in filter(predictions.__contains__, (*task.required, *task.numbers)):
        if is_numeric_dtype(predictions[column]) != (column in task.numbers):
            expected = "numbers" if column in task.numbers else "text"
            raise ReportError(
                f"predictions.csv: column '{column}' must be {expected}, as its rows are of the kind '{kind}'; "
                "record.json says otherwise."
            )
    return task


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What a probe is trained on: a task on a corpus."""

    corpus: Corpus
    task: Task
    head: str
    loss: str
    metric: str
    """Metric that selects epochs and variants."""

    own_metrics: tuple[str, ...] = ()
    """Metrics from outside that are measured too."""

    weights: NDArray[np.float32] | None = None
    """Weights of classes ``[class]`` or of the rows that have a label ``[label]`` in the loss; None weighs all
    alike."""

    _scorers: dict[str, Scorer] = field(init=False, default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that are measured."""
        return (*self.task.metric_names(self.corpus), *self.own_metrics)

    @property
    def texts_per_row(self) -> int:
        """Number of texts in a row of the corpus."""
        return int(next(iter(self.corpus.splits.values())).texts.shape[1])

    def scorer(self, split: str) -> Scorer:
        """Return the scorer of a split."""
        if split not in self._scorers:
            self._scorers[split] = self.task.scorer(self.corpus, split)
        return self._scorers[split]


def find_own_metrics(task: Task, train: TrainSpec) -> tuple[str, ...]:
    """Return the metrics from outside that the settings of a training name and that fit its task."""
    named = dict.fromkeys((train.metric, *train.extra_metrics))
    return tuple(name for name in named if name not in ("auto", *task.metrics) and task.has_metric(name))


def make_problem(recipe: Recipe, corpus: Corpus) -> Problem:
    """Resolve what a recipe of one task trains on its corpus.

    Raises:
        CorpusError: there is nothing to learn from the corpus.
        SpecError: the task has no such head, loss or metric, or no classes to weigh.
    """
    task = task_of(corpus)
    loss = task.loss if recipe.train.loss == "auto" else recipe.train.loss
    metric = task.metric if recipe.train.metric == "auto" else recipe.train.metric
    own_metrics = find_own_metrics(task, recipe.train)
    known = (*task.metric_names(corpus), *own_metrics)
    for key, names in {"metric": (metric,), "extra_metrics": recipe.train.extra_metrics}.items():
        for name in names:
            if name not in known:
                fitting = fitting_names(Metric, task.kind, known, name)
                raise SpecError(f"train.{key} = '{name}' does not fit {task.name}{fitting}")
    if loss not in task.losses and not (is_known(Loss, loss) and task.kind in find(Loss, loss).targets):
        fitting = fitting_names(Loss, task.kind, task.losses, loss)
        raise SpecError(f"train.loss = '{loss}' does not fit {task.name}{fitting}")
    texts_per_row = int(corpus.split("train").texts.shape[1])
    head = task.head(recipe.probe, texts_per_row)
    weights = task.balanced_weights(corpus.split("train")) if recipe.train.class_weights == "balanced" else None
    if recipe.train.class_weights == "balanced" and weights is None:
        raise SpecError(
            f'train.class_weights = "balanced" weighs classes or labels, which {task.name} has not; set '
            'train.class_weights = "none".'
        )
    if weights is not None and loss not in task.losses:
        raise SpecError(
            f"the loss '{loss}' takes no weights of classes; set train.class_weights = \"none\", or use "
            f"{' or '.join(task.losses)}."
        )
    return Problem(
        corpus=corpus, task=task, head=head, loss=loss, metric=metric, own_metrics=own_metrics, weights=weights
    )


def check_probe(spec: ProbeSpec, problem: Problem, views: Sequence[str]) -> None:
    """Raise :class:`SpecError` if the settings of a probe contradict each other, its task or the views it reads."""
    head, by_token = problem.head, problem.task.reads_tokens
    if "tokens" in views and len(set(views)) > 1:
        raise SpecError("the view tokens cannot be combined with other views; set probe.inputs to one or the other.")
    if by_token and "tokens" not in views:
        raise SpecError(
            f"the head '{head}' reads tokens, and the probe is given {', '.join(views)}: put tokens into plan.views "
            "and probe.inputs, as the recipes ner and qa do."
        )
    if not by_token and spec.context != "none":
        raise SpecError(f"probe.context = '{spec.context}' is for the heads tags and span, this one is '{head}'.")
    if spec.head not in Head.built_in and spec.hidden:
        raise SpecError(
            f"probe.hidden = {spec.hidden} is not for the head '{spec.head}', which has its sizes in "
            "probe.head_options; set probe.hidden = 0, or run other variants alone (--only)."
        )
    if by_token and spec.hidden:
        raise SpecError(f"probe.hidden = {spec.hidden} is for whole rows, the head '{head}' is linear; use a context.")
    if head != "span" and spec.match:
        raise SpecError(f"probe.match = true is for questions and contexts, the head 'span'; this one is '{head}'.")
    if head != "cosine" and spec.mixer == "mlp":
        raise SpecError(f"probe.mixer = 'mlp' mixes cosines, which the head '{head}' does not have; use 'softmax'.")
