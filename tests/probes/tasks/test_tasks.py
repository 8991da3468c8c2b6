"""Every kind of task keeps the contract of Task on a sample corpus, from its objective's predictions to its answers."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.text import Segments
from permafrost.data.writing.words import split_words
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import PROBABILITY
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives.base import untrained_cosines
from permafrost.probes.objectives.heads import objective_of, predictions
from permafrost.probes.objectives.losses import LOSSES
from permafrost.probes.tasks.registry import TASKS, make_problem
from permafrost.probes.tasks.rows import shuffle_targets
from permafrost.probes.variants.members import initial_probe
from tests.support.synthetic import SPECIAL, WIDE, moved, pieces, token_inputs
from tests.support.trainings import member_config

SAMPLES = {
    "score": "samples-pairs",
    "class": "samples-topics",
    "labels": "samples-labels",
    "tags": "samples-tags",
    "answers": "samples-questions",
    "rank": "samples-ranking",
}
KINDS = pytest.mark.parametrize("kind", TASKS)  # a new kind without a sample corpus fails here
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Space:
    """What a trained probe predicts."""

    labels: tuple[str, ...]
    score_range: tuple[float, float] | None
    calibration: Any


@cache
def sample(kind: str) -> Corpus:
    return load_corpus(CorpusSpec(name=SAMPLES[kind]))


@cache
def states(kind: str) -> ProbeInputs:
    """Random latents of every text of a sample corpus; of its tokens if the heads of the task read them."""
    texts = sample(kind).texts
    if not TASKS[kind].reads_tokens:
        values = torch.randn(1, len(texts), WIDE, generator=torch.Generator().manual_seed(0))
        return PooledInputs(values=values, columns=(Column("", "mean", 0),), widths=(WIDE,))
    spans = [pieces(text.second if isinstance(text, Segments) else str(text), size=3) for text in texts]
    return token_inputs([[SPECIAL, *tokens, SPECIAL] for tokens in spans], layers=1)


@cache
def predicted(kind: str, split: str) -> np.ndarray:
    """Predictions of an untrained probe for a split."""
    recipe = Recipe(probe=ProbeSpec(encoder="none"))
    probe = moved(initial_probe(member_config(recipe, states(kind), sample(kind)))).eval()
    with torch.inference_mode():
        return predictions(probe, states(kind), sample(kind).split(split))[0]


def calibration(kind: str) -> Any:
    output = predicted(kind, "validation")
    return TASKS[kind].calibrate(output, sample(kind), float(output.max()))


@KINDS
def test_the_metrics_of_a_corpus_contain_the_default_and_the_defaults_are_known(kind):
    task, corpus = TASKS[kind], sample(kind)
    assert task.kind == corpus.kind == kind
    assert task.metric in task.metric_names(corpus)
    assert set(task.metric_names(corpus)) <= task.metrics.keys()
    assert task.loss in task.losses
    assert set(task.losses) <= LOSSES.keys()
    assert corpus.split("train").texts.shape[1] in task.text_counts
    assert task.reference


@KINDS
@pytest.mark.parametrize("split", SPLITS)
def test_a_scorer_decodes_and_measures_what_the_objective_predicts(kind, split):
    task, corpus = TASKS[kind], sample(kind)
    scorer, output = task.scorer(corpus, split), predicted(kind, split)
    decoded = scorer.decode(output, calibration(kind))
    assert len(decoded) == len(output)
    assert np.isfinite(decoded).all()
    for metric in task.metric_names(corpus):
        resampled = scorer.resampled(metric, [decoded, decoded])
        assert resampled.value == pytest.approx(scorer.value(metric, decoded))
        rows = corpus.split(split)
        assert resampled.n == (len(set(rows.texts[rows.targets > 0, 0])) if kind == "rank" else len(rows))


@KINDS
def test_the_untrained_reference_is_measured_like_predictions(kind):
    task, corpus = TASKS[kind], sample(kind)
    scorer = task.scorer(corpus, "test")
    reference = task.untrained(corpus, scorer.rows)
    if reference is None:  # the cosine of the latents
        (reference,) = untrained_cosines(states(kind), scorer.rows)
    shape = scorer.decode(predicted(kind, "test"), calibration(kind)).shape
    assert reference.shape == shape
    for metric in task.metric_names(corpus):
        assert np.isfinite(scorer.value(metric, reference))
    again = task.untrained(corpus, corpus.split("test"))
    assert again is None or np.array_equal(again, reference)


@KINDS
@pytest.mark.parametrize("split", SPLITS)
def test_the_columns_of_predictions_are_equally_long_and_hold_the_targets(kind, split):
    task, corpus = TASKS[kind], sample(kind)
    scorer = task.scorer(corpus, split)
    columns = task.prediction_columns(predicted(kind, split), scorer, calibration(kind))
    assert "target" in columns
    assert set(task.required) <= columns.keys()
    words = scorer.rows.spans is not None and kind == "tags"
    assert {len(values) for values in columns.values()} == {len(scorer.rows.spans.codes if words else scorer.rows)}
    for name in task.numbers:
        assert np.isfinite(np.asarray(columns[name], float)).all()
    for name in columns:
        if name.startswith(PROBABILITY):
            assert ((columns[name] >= 0) & (columns[name] <= 1)).all()


@KINDS
def test_random_targets_have_the_shape_of_the_targets_and_could_be_in_the_corpus(kind):
    task, corpus = TASKS[kind], sample(kind)
    control = shuffle_targets(task, corpus, seed=0)
    before, after = corpus.split("train"), control.split("train")
    assert control.splits.keys() == {"train", "validation"}
    assert control.split("validation") is after  # memory is measured where it was made
    assert np.array_equal(after.texts, before.texts)
    assert after.targets.shape == before.targets.shape
    assert sorted(after.targets.tolist()) == sorted(before.targets.tolist())
    assert (after.spans is None) == (before.spans is None)
    if kind == "tags":
        assert np.array_equal(after.spans.characters, before.spans.characters)
        assert np.array_equal(after.spans.offsets, before.spans.offsets)
        logits = 20 * np.eye(len(corpus.labels))[after.spans.codes]
        assert np.array_equal(task.scorer(control, "train").decode(logits), after.spans.codes)  # IOB2 allows them
    elif kind == "answers":
        contexts = [corpus.texts[index].second for index in after.texts[:, 0]]
        chosen = [context[slice(*span)] for context, span in zip(contexts, after.spans.characters, strict=True)]
        assert all(answer.strip() == answer != "" for answer in chosen)
    assert task.row_labels(corpus, after) != task.row_labels(corpus, before) or kind == "answers"
    again = shuffle_targets(task, corpus, seed=0).split("train")
    assert np.array_equal(again.targets, after.targets)
    assert again.spans is None or np.array_equal(again.spans.characters, after.spans.characters)
    assert len(task.row_labels(corpus, after)) == len(after)
    make_problem(Recipe(), control)  # there is something to learn


def items(kind: str) -> list[tuple[str, ...]]:
    """The texts of some test rows, as users give them."""
    corpus = sample(kind)
    rows = corpus.split("test").texts[:7]
    texts = [[corpus.texts[index] for index in row] for row in rows]
    if kind == "answers":
        return [(text.first, text.second) for (text,) in texts]
    return [tuple(map(str, row)) for row in texts]


KEYS = {
    "score": {"score", "raw"},
    "class": {"label", "probabilities"},
    "labels": {"labels", "probabilities"},
    "tags": {"entities"},
    "answers": {"answer"},
    "rank": {"score"},
}


@KINDS
def test_every_new_item_has_one_prediction_whatever_is_asked_beside_it(kind):
    task, corpus = TASKS[kind], sample(kind)
    space, asked = Space(corpus.labels, corpus.score_range, calibration(kind)), items(kind)
    assert task.is_complete(space)
    assert task.label_problem(space.labels) == ""
    assert all(len(item) == len(task.text_names(corpus.split("train").texts.shape[1])) for item in asked)

    def predict(texts, rows: Rows) -> np.ndarray:
        """What a probe could predict of a text alone: it depends on the characters of a row's texts and no more."""
        sizes = np.array([sum(len(str(texts[index])) for index in row) for row in rows.texts])
        if kind in ("score", "rank"):
            return np.sin(sizes).astype(np.float32)
        if kind == "answers":
            return np.array([(0, min(9, len(texts[index].second)), 0.5) for (index,) in rows.texts], np.float32)
        if kind == "tags":
            words = [len(split_words(texts[index])) for (index,) in rows.texts]
            sizes = np.concatenate([np.arange(count) for count in words])
        return np.sin(sizes[:, None] + np.arange(len(corpus.labels))).astype(np.float32)

    answers = task.answers(space, asked, predict)
    assert len(answers) == len(asked)
    assert {frozenset(answer) for answer in answers} == {frozenset(KEYS[kind])}
    assert task.answers(space, asked[::-1] + asked, predict) == answers[::-1] + answers
    assert [task.answers(space, [item], predict) for item in asked] == [[answer] for answer in answers]


@KINDS
def test_the_breakdown_is_of_the_scored_split_and_its_parts_have_rows(kind):
    task, corpus = TASKS[kind], sample(kind)
    scorer = task.scorer(corpus, "test")
    decoded = scorer.decode(predicted(kind, "test"), calibration(kind))
    rows = list(task.breakdown(scorer, [decoded]))
    assert bool(rows) == (kind != "score")
    assert len({(row.kind, row.group, row.metric) for row in rows}) == len(rows)
    for row in rows:
        assert 0 <= row.measured.value <= 1
        assert row.measured.n >= 0
    confusion = task.confusion(scorer, decoded)
    assert (confusion is not None) == (kind in ("class", "tags"))
    if confusion:
        gold, label = confusion
        assert len(gold) == len(label) == len(decoded)
        assert {*gold, *label} <= set(corpus.labels)


@KINDS
def test_the_objective_has_a_finite_loss_for_every_loss_of_the_task(kind):
    config = member_config(Recipe(probe=ProbeSpec(encoder="none")), states(kind), sample(kind))
    probe = initial_probe(config)
    for loss in TASKS[kind].losses:
        objective = objective_of(probe, states(kind), sample(kind).split("train"), None, kind == "rank")
        values = objective.loss(probe, shared_reads(probe.layout), np.arange(6)[None], np.zeros(1, np.int64), loss)
        assert values.shape == (1,)
        assert values.isfinite().all()


def test_tasks_are_imported_without_torch():
    program = "import sys, permafrost.probes.tasks.registry; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
