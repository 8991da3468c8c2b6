"""Tasks: what a kind of target implies, the losses that train it, the metric that chooses, the head that reads."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError, Kind
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.models.member_layout import MemberLayout
from permafrost.probes.models.pair_features import cosines
from permafrost.probes.models.probe import Probe
from permafrost.probes.models.sentence_probes import ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.models.token_probes import SpanProbe, TagProbe
from permafrost.probes.tasks.base import Answer, Answers, Columns, Item, Line, Objective, Read, Scorer, Task
from permafrost.probes.tasks.entity_spans import answer_entities
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.sentences import (
    RowObjective,
    RowScorer,
    answer_classes,
    answer_scores,
    by_class,
    by_pattern,
    class_columns,
    commonest_class,
    pair_of_texts,
    score_columns,
)
from permafrost.probes.tasks.span import (
    AnswerScorer,
    SpanObjective,
    answer_columns,
    answer_spans,
    by_question_word,
    likeliest_sentences,
    question_word,
)
from permafrost.probes.tasks.tagging import (
    NOTHING,
    SEVERAL,
    TagObjective,
    TagScorer,
    by_type,
    commonest_tags,
    tag_columns,
)

TASKS: dict[Kind, Task] = {
    "score": Task(
        "similarity", "log_variance", ("mse", "log_variance"), "spearman", ("pearson", "spearman"),
        ("cosine", "regression"),
    ),
    "class": Task(
        "classification", "cross_entropy", ("cross_entropy",), "accuracy", ("accuracy", "macro_f1"), ("classes",)
    ),
    "tags": Task(
        "tagging", "cross_entropy", ("cross_entropy",), "f1", ("f1", "precision", "recall", "accuracy"), ("tags",)
    ),
    "answers": Task("answering", "span", ("span",), "f1", ("f1", "exact_match"), ("span",)),
}  # fmt: skip

HEADS: dict[str, Callable[[ProbeSpec, MemberLayout, int, int], Probe]] = {
    "cosine": lambda spec, layout, sides, labels: ScoreProbe(spec, layout),
    "regression": lambda spec, layout, sides, labels: RegressionProbe(spec, layout, sides, 1),
    "classes": ClassProbe,
    "tags": lambda spec, layout, sides, labels: TagProbe(spec, layout, labels),
    "span": lambda spec, layout, sides, labels: SpanProbe(spec, layout, 2),
}
"""Name -> a fresh probe, of its spec, its seats, the texts of a row and the labels of the corpus."""

ONE_BY_ONE = ("tags", "span")
"""Heads that read every token of a text; they need tokens."""


def task_of(corpus: Corpus) -> Task:
    """The task that a corpus poses; raises :class:`CorpusError` where it has no targets or no training rows."""
    if corpus.kind == "none":
        raise CorpusError(
            f"{corpus.name}: it has no targets to learn; set corpus.target to score, class, tags or answers."
        )
    if corpus.kind == "class" and len(corpus.labels) < 2:
        raise CorpusError(f"{corpus.name}: all its training rows are of the class '{corpus.labels[0]}'.")
    for split in ("train", corpus.selection):
        corpus.split(split)
    if corpus.kind == "score" and np.ptp(corpus.split(corpus.selection).targets) == 0:
        raise CorpusError(
            f"{corpus.name}: all its {corpus.selection} scores are the same, a constant correlates with nothing."
        )
    task = TASKS[corpus.kind]
    if corpus.kind == "class" and len(corpus.labels) == 2:
        return Task(task.name, task.loss, task.losses, task.metric, (*task.metrics, "f1"), task.heads)
    return task


def texts_per_row(corpus: Corpus) -> int:
    """How many texts a row has."""
    return int(corpus.split("train").texts.shape[1])


def head_of(spec: ProbeSpec, kind: Kind, sides: int) -> str:
    """The head that reads what a corpus has; raises :class:`SpecError` where a recipe names one that cannot."""
    heads = TASKS[kind].heads
    if spec.head == "auto":
        return "regression" if kind == "score" and sides == 1 else heads[0]
    if spec.head not in heads:
        raise SpecError(f"probe.head = '{spec.head}' does not fit {TASKS[kind].name}; use one of: {', '.join(heads)}.")
    if spec.head == "cosine" and sides == 1:
        raise SpecError("probe.head = 'cosine' needs two texts a row; corpus.columns names one: use 'regression'.")
    return spec.head


def check_probe(spec: ProbeSpec, kind: Kind, sides: int, views: Sequence[str]) -> None:
    """Raise a :class:`SpecError` where a probe's parts do not fit each other, or the views it reads."""
    head = head_of(spec, kind, sides)
    if "tokens" in views and len(set(views)) > 1:
        raise SpecError("tokens are read alone; set probe.inputs to them or to the others.")
    if head in ONE_BY_ONE and "tokens" not in views:
        raise SpecError(
            f"the head '{head}' reads tokens, and the probe is given {', '.join(views)}: put tokens into plan.views "
            "and probe.inputs."
        )
    if head not in ONE_BY_ONE and spec.context != "none":
        raise SpecError(f"probe.context = '{spec.context}' is for the heads tags and span, this one is '{head}'.")
    if head in ONE_BY_ONE and spec.hidden:
        raise SpecError(f"probe.hidden = {spec.hidden} is for whole rows, the head '{head}' is linear; use a context.")
    if head != "span" and spec.match:
        raise SpecError(f"probe.match = true is for questions and contexts, the head 'span'; this one is '{head}'.")
    if head != "cosine" and spec.mixer == "mlp":
        raise SpecError(f"probe.mixer = 'mlp' mixes cosines, which the head '{head}' does not have; use 'softmax'.")


def build(spec: ProbeSpec, kind: Kind, labels: int, sides: int, layout: MemberLayout) -> Probe:
    """A fresh probe for a kind of target.

    Args:
        labels: how many classes or tags there are.
        sides: texts of a row.
    """
    return HEADS[head_of(spec, kind, sides)](spec, layout, sides, labels)


def loss_and_metric(recipe: Recipe, task: Task) -> tuple[str, str]:
    """The loss that trains and the validation metric that chooses; raises :class:`SpecError` where one does not fit."""
    loss = task.loss if recipe.train.loss == "auto" else recipe.train.loss
    metric = task.metric if recipe.train.metric == "auto" else recipe.train.metric
    for key, value, known in (("loss", loss, task.losses), ("metric", metric, task.metrics)):
        if value not in known:
            raise SpecError(f"train.{key} = '{value}' does not fit {task.name}; use one of: {', '.join(known)}.")
    return loss, metric


PARTS: dict[Kind, tuple[Callable[[Scorer, Answers, Corpus], Iterator[Line]], ...]] = {
    "class": (by_class, by_pattern),
    "tags": (by_type,),
    "answers": (by_question_word,),
}
"""By what rows are grouped."""


def row_labels(corpus: Corpus, rows: Rows) -> list[Any]:
    """``[row]``: what a row is, in a word: its score, its class, what its entities are of, or its question word."""
    if corpus.kind == "tags":
        assert rows.spans is not None
        names = np.array([label[2:] for label in corpus.labels], object)[rows.spans.codes].tolist()
        found = [set(names[low:high]) - {""} for low, high in pairwise(rows.spans.offsets.tolist())]
        return [SEVERAL if len(types) > 1 else next(iter(types), NOTHING) for types in found]
    if corpus.kind == "answers":
        return [question_word(pair_of_texts(corpus, sides)[0] or "") for sides in rows.texts]
    return [corpus.labels[int(code)] for code in rows.targets] if corpus.labels else rows.targets.tolist()


def predictions(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """What each member of a probe says of rows: ``[member, row]`` numbers, ``[member, row, class]`` or ``[member, word,
    tag]`` logits, or ``[member, row, 3]`` places of answers.
    """
    return objective_of(probe, inputs, rows).predict(probe)


def mean_prediction(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """What the members of a probe say of rows together, shaped as what one says."""
    return objective_of(probe, inputs, rows).predict_mean(probe)


def untrained_cosines(inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """The untrained reference for scores: ``[layer, row]``, plain cosines of the latents."""
    said = torch.empty(len(inputs.columns), len(rows))
    for layer in range(len(inputs.columns)):
        first, second = (inputs.pooled(layer, column) for column in rows.texts.T)
        said[layer] = cosines(first, second)
    return said.numpy()


OBJECTIVES: dict[type[Probe], Callable[[ProbeInputs, Rows], Objective]] = {
    TagProbe: TagObjective,
    SpanProbe: SpanObjective,
}
"""Where rows are not labelled as a whole."""


def objective_of(probe: Probe, inputs: ProbeInputs, rows: Rows) -> Objective:
    """How a probe learns rows and speaks of them."""
    return OBJECTIVES.get(type(probe), RowObjective)(inputs, rows)


ANSWERED: dict[Kind, Callable[[LoadedRun, Sequence[Item], Read], list[Answer]]] = {
    "score": answer_scores,
    "class": answer_classes,
    "tags": answer_entities,
    "answers": answer_spans,
}

SAID: dict[Kind, Callable[[NDArray[np.float32], Scorer, Corpus, Calibration | None], Columns]] = {
    "score": score_columns,
    "class": class_columns,
    "tags": tag_columns,
    "answers": answer_columns,
}

UNTRAINED_ANSWERS = {"class": commonest_class, "tags": commonest_tags, "answers": likeliest_sentences}

SCORERS: dict[Kind, Callable[[Corpus, str], Scorer]] = {
    "score": RowScorer,
    "class": RowScorer,
    "tags": TagScorer,
    "answers": AnswerScorer,
}


def scorer_of(corpus: Corpus, split: str) -> Scorer:
    """How what is said of a split is scored."""
    return SCORERS[corpus.kind](corpus, split)
