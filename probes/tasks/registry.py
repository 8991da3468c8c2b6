"""Registry of the tasks: losses, metrics, heads, objectives, scorers and prediction functions of each kind of target.

Everything that depends on the kind of a target is looked up here, in tables of functions that the modules of this
package define: ``sentences`` (scores and classes), ``tagging`` and ``entity_spans`` (word tags), ``span`` (answers).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
from permafrost.probes.tasks.base import (
    BreakdownRow,
    Decoded,
    InputReader,
    Item,
    Objective,
    Prediction,
    Scorer,
    TableColumns,
    Task,
)
from permafrost.probes.tasks.entity_spans import predict_entities
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.sentences import (
    CLASSIFICATION,
    SIMILARITY,
    RowObjective,
    RowScorer,
    breakdown_by_class,
    breakdown_by_pattern,
    class_columns,
    most_frequent_class,
    pair_of_texts,
    predict_classes,
    predict_scores,
    score_columns,
)
from permafrost.probes.tasks.span import (
    ANSWERING,
    AnswerScorer,
    SpanObjective,
    answer_columns,
    breakdown_by_question_word,
    most_similar_sentences,
    predict_answers,
    question_word,
)
from permafrost.probes.tasks.tagging import (
    NO_ENTITY,
    SEVERAL_TYPES,
    TAGGING,
    TagObjective,
    TagScorer,
    breakdown_by_entity_type,
    most_frequent_tags,
    tag_columns,
)

TASKS: dict[Kind, Task] = {
    "score": SIMILARITY,
    "class": CLASSIFICATION,
    "tags": TAGGING,
    "answers": ANSWERING,
}
"""Kind of target -> task."""

HEADS: dict[str, Callable[[ProbeSpec, MemberLayout, int, int], Probe]] = {
    "cosine": lambda spec, layout, text_count, label_count: ScoreProbe(spec, layout),
    "regression": lambda spec, layout, text_count, label_count: RegressionProbe(spec, layout, text_count, 1),
    "classes": ClassProbe,
    "tags": lambda spec, layout, text_count, label_count: TagProbe(spec, layout, label_count),
    "span": lambda spec, layout, text_count, label_count: SpanProbe(spec, layout, 2),
}
"""Head name -> function that builds a probe from its spec, member layout, texts per row and number of labels."""

TOKEN_HEADS = ("tags", "span")
"""Heads with an output per token; their inputs must be tokens."""


def task_of(corpus: Corpus) -> Task:
    """Return the task of a corpus.

    Raises:
        CorpusError: the corpus has no targets, no training or validation rows, or nothing to learn.
    """
    if corpus.kind == "none":
        raise CorpusError(
            f"{corpus.name}: it has no targets to learn; set corpus.target to score, class, tags or answers."
        )
    if corpus.kind == "class" and len(corpus.labels) < 2:
        raise CorpusError(f"{corpus.name}: all its training rows are of the class '{corpus.labels[0]}'.")
    for split in ("train", corpus.selection_split):
        corpus.split(split)
    if corpus.kind == "score" and np.ptp(corpus.split(corpus.selection_split).targets) == 0:
        raise CorpusError(
            f"{corpus.name}: all its {corpus.selection_split} scores are the same, a constant correlates with nothing."
        )
    task = TASKS[corpus.kind]
    if corpus.kind == "class" and len(corpus.labels) == 2:
        return replace(task, metrics=(*task.metrics, "f1"))
    return task


def texts_per_row(corpus: Corpus) -> int:
    """Return the number of texts in a row of the corpus."""
    return int(corpus.split("train").texts.shape[1])


def head_of(spec: ProbeSpec, kind: Kind, text_count: int) -> str:
    """Return the name of the head for a kind of target.

    Args:
        text_count: texts per row.

    Raises:
        SpecError: the recipe names a head that does not fit.
    """
    heads = TASKS[kind].heads
    if spec.head == "auto":
        return "regression" if kind == "score" and text_count == 1 else heads[0]
    if spec.head not in heads:
        raise SpecError(f"probe.head = '{spec.head}' does not fit {TASKS[kind].name}; use one of: {', '.join(heads)}.")
    if spec.head == "cosine" and text_count == 1:
        raise SpecError("probe.head = 'cosine' needs two texts a row; corpus.columns names one: use 'regression'.")
    return spec.head


def check_probe(spec: ProbeSpec, kind: Kind, text_count: int, views: Sequence[str]) -> None:
    """Raise :class:`SpecError` if the settings of a probe contradict each other, its task or the views it reads."""
    head = head_of(spec, kind, text_count)
    if "tokens" in views and len(set(views)) > 1:
        raise SpecError("the view tokens cannot be combined with other views; set probe.inputs to one or the other.")
    if head in TOKEN_HEADS and "tokens" not in views:
        raise SpecError(
            f"the head '{head}' reads tokens, and the probe is given {', '.join(views)}: put tokens into plan.views "
            "and probe.inputs."
        )
    if head not in TOKEN_HEADS and spec.context != "none":
        raise SpecError(f"probe.context = '{spec.context}' is for the heads tags and span, this one is '{head}'.")
    if head in TOKEN_HEADS and spec.hidden:
        raise SpecError(f"probe.hidden = {spec.hidden} is for whole rows, the head '{head}' is linear; use a context.")
    if head != "span" and spec.match:
        raise SpecError(f"probe.match = true is for questions and contexts, the head 'span'; this one is '{head}'.")
    if head != "cosine" and spec.mixer == "mlp":
        raise SpecError(f"probe.mixer = 'mlp' mixes cosines, which the head '{head}' does not have; use 'softmax'.")


def build(spec: ProbeSpec, kind: Kind, label_count: int, text_count: int, layout: MemberLayout) -> Probe:
    """Return an untrained probe for a kind of target.

    Args:
        label_count: number of classes or tags.
        text_count: texts per row.
    """
    return HEADS[head_of(spec, kind, text_count)](spec, layout, text_count, label_count)


def loss_and_metric(recipe: Recipe, task: Task) -> tuple[str, str]:
    """Return training loss and selection metric; raise :class:`SpecError` if the task has none of that name."""
    loss = task.loss if recipe.train.loss == "auto" else recipe.train.loss
    metric = task.metric if recipe.train.metric == "auto" else recipe.train.metric
    for key, value, known in (("loss", loss, task.losses), ("metric", metric, task.metrics)):
        if value not in known:
            raise SpecError(f"train.{key} = '{value}' does not fit {task.name}; use one of: {', '.join(known)}.")
    return loss, metric


BREAKDOWNS: dict[Kind, tuple[Callable[[Scorer, Decoded, Corpus], Iterator[BreakdownRow]], ...]] = {
    "class": (breakdown_by_class, breakdown_by_pattern),
    "tags": (breakdown_by_entity_type,),
    "answers": (breakdown_by_question_word,),
}
"""Kind of target -> functions that yield the metrics of groups of rows."""


def row_labels(corpus: Corpus, rows: Rows) -> list[Any]:
    """Return a short description of each row: its score, class, entity type or question word."""
    if corpus.kind == "tags":
        return _types_of_sentences(corpus, rows)
    if corpus.kind == "answers":
        return [question_word(pair_of_texts(corpus, text_indices)[0] or "") for text_indices in rows.texts]
    return [corpus.labels[int(code)] for code in rows.targets] if corpus.labels else rows.targets.tolist()


def _types_of_sentences(corpus: Corpus, rows: Rows) -> list[str]:
    assert rows.spans is not None
    names = np.array([label[2:] for label in corpus.labels], object)[rows.spans.codes].tolist()
    by_sentence = [set(names[low:high]) - {""} for low, high in pairwise(rows.spans.offsets.tolist())]
    return [SEVERAL_TYPES if len(types) > 1 else next(iter(types), NO_ENTITY) for types in by_sentence]


def predictions(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the predictions of each member of a probe.

    Returns:
        Scores ``[member, row]``, logits ``[member, row, class]`` or ``[member, word, tag]``, or answer spans with their
        probability ``[member, row, 3]``.
    """
    return objective_of(probe, inputs, rows).predict(probe)


def mean_prediction(probe: Probe, inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the combined prediction of all members, in the shape of one member's."""
    return objective_of(probe, inputs, rows).predict_mean(probe)


def untrained_cosines(inputs: ProbeInputs, rows: Rows) -> NDArray[np.float32]:
    """Return the untrained baseline for scores: cosines of the raw latents of each pair, ``[layer, row]``."""
    by_layer = torch.empty(len(inputs.columns), len(rows))
    for layer in range(len(inputs.columns)):
        first, second = (inputs.pooled(layer, column) for column in rows.texts.T)
        by_layer[layer] = cosines(first, second)
    return by_layer.numpy()


OBJECTIVES: dict[type[Probe], Callable[[ProbeInputs, Rows], Objective]] = {
    TagProbe: TagObjective,
    SpanProbe: SpanObjective,
}
"""Probe class -> objective; all other probes have one target per row, see :class:`RowObjective`."""


def objective_of(probe: Probe, inputs: ProbeInputs, rows: Rows) -> Objective:
    """Return the objective of a probe on some rows."""
    return OBJECTIVES.get(type(probe), RowObjective)(inputs, rows)


PREDICT_FUNCTIONS: dict[Kind, Callable[[LoadedRun, Sequence[Item], InputReader], list[Prediction]]] = {
    "score": predict_scores,
    "class": predict_classes,
    "tags": predict_entities,
    "answers": predict_answers,
}
"""Kind of target -> function from new items to their predictions."""

PREDICTION_COLUMNS: dict[Kind, Callable[[NDArray[np.float32], Scorer, Corpus, Calibration | None], TableColumns]] = {
    "score": score_columns,
    "class": class_columns,
    "tags": tag_columns,
    "answers": answer_columns,
}
"""Kind of target -> function that returns the columns of the prediction table of a split."""

UNTRAINED_PREDICTIONS = {"class": most_frequent_class, "tags": most_frequent_tags, "answers": most_similar_sentences}
"""Kind of target -> function that returns the decoded predictions of a baseline without a probe."""

SCORERS: dict[Kind, Callable[[Corpus, str], Scorer]] = {
    "score": RowScorer,
    "class": RowScorer,
    "tags": TagScorer,
    "answers": AnswerScorer,
}
"""Kind of target -> scorer of one split."""


def scorer_of(corpus: Corpus, split: str) -> Scorer:
    """Return the scorer of a split."""
    return SCORERS[corpus.kind](corpus, split)
