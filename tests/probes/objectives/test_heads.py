"""Heads: every one is built for the kinds that it fits, and learns its toy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.mixers import CODE_MIXERS
from permafrost.probes.models.sentence_probes import ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.models.shared_reads import MemberLayout
from permafrost.probes.models.token_probes import SpanProbe, TagProbe
from permafrost.probes.objectives.heads import HEADS, predictions
from permafrost.probes.objectives.losses import LOSSES
from permafrost.probes.tasks.registry import TASKS
from permafrost.probes.training.encoder_pretraining import pretrain
from permafrost.probes.variants.members import initial_probe
from tests.support.marks import slow_but_first
from tests.support.synthetic import answered, classed, inputs, labelled, layout, scored, sentences, tagged
from tests.support.trainings import build, member_config, train_all

FITTING = [(kind, head) for kind, task in TASKS.items() for head in task.heads]
PROBES = {
    "cosine": ScoreProbe,
    "regression": RegressionProbe,
    "classes": ClassProbe,
    "labels": ClassProbe,
    "tags": TagProbe,
    "span": SpanProbe,
}


def along(sides: int) -> tuple[ProbeInputs, Corpus]:
    """One text or two whose score is where their latents lie along a direction of one layer."""
    found = inputs(texts=300 * sides)
    rows = np.arange(300 * sides).reshape(-1, sides)
    places = found.values[1, :, 0].numpy()[rows].sum(1).astype(np.float64)
    places = (places - places.min()) / np.ptp(places)
    bound = len(rows) * 2 // 3
    splits = {"train": Rows(rows[:bound], places[:bound]), "validation": Rows(rows[bound:], places[bound:])}
    return found, Corpus(
        name="toy",
        texts=tuple(map(str, range(300 * sides))),
        splits=splits,
        labels=(),
        score_range=(0.0, 1.0),
        kind="score",
    )


def paired() -> tuple[ProbeInputs, Corpus]:
    found = inputs(texts=400)
    return found, scored(found)


def topics() -> tuple[ProbeInputs, Corpus]:
    found = inputs(texts=300)
    return found, classed(found, sides=1)


def themes() -> tuple[ProbeInputs, Corpus]:
    found = inputs(texts=300)
    return found, labelled(found, sides=1)


TOYS = {
    "cosine": (paired, 0.7),
    "regression": (lambda: along(1), 0.8),
    "classes": (topics, 0.6),  # chance is a third
    "labels": (themes, 0.7),  # chance is the mean share of rows that have a label, under one half
    "tags": (lambda: tagged(60), 0.8),
    "span": (lambda: answered(60), 0.7),
}


def result(found: ProbeInputs, corpus: Corpus, spec: ProbeSpec, **train) -> float:
    settings = TrainSpec(**({"epochs": 30, "batch_rows": 8, "learning_rate": 0.01, "patience": 30} | train))
    (trained,) = train_all([member_config(Recipe(probe=spec, train=settings), found, corpus)])
    return trained.history.best_value


@pytest.mark.parametrize("head", HEADS)  # a new head without a toy fails here
def test_a_head_learns_its_toy(head):
    make, least = TOYS[head]
    assert result(*make(), ProbeSpec(head=head)) > least


@pytest.mark.parametrize("loss", slow_but_first(TASKS["score"].losses))
@pytest.mark.parametrize("sides", [1, 2])
def test_a_regression_reads_one_text_or_two_with_either_loss(sides, loss):
    assert result(*along(sides), ProbeSpec(head="regression"), loss=loss) > 0.7


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_hidden_layer_tells_what_a_line_cannot(activation):
    found = inputs(texts=600)
    places = found.values[1, :, 0].numpy()
    codes = (np.abs(places - 0.5) > 0.67).astype(np.int64)  # both ends against the middle, half of the texts each
    rows = Rows(np.arange(600)[:, None], codes)
    splits = {"train": rows.select(np.arange(400)), "validation": rows.select(np.arange(400, 600))}
    corpus = Corpus(
        name="toy", texts=tuple(map(str, range(600))), splits=splits, labels=("middle", "end"), kind="class"
    )
    spec = ProbeSpec(encoder="none", mixer="concat", hidden=32, activation=activation)
    fast = {"batch_rows": 32, "learning_rate": 0.02}
    line = result(found, corpus, replace(spec, hidden=0), **fast)
    assert result(found, corpus, spec, **fast) > line + 0.15


@pytest.mark.parametrize(("kind", "head"), FITTING)
def test_every_head_that_fits_a_kind_is_built(kind, head):
    spec = ProbeSpec(head=head)
    of = replace(layout(), tokens=True) if kind in ("tags", "answers") else layout()
    for sides in (1, 2) if head in ("regression", "classes", "labels") else (2,) if head == "cosine" else (1,):
        probe = build(spec, kind, 3, sides, of)
        assert type(probe) is PROBES[head]
        wanted = {"regression": 1, "classes": 3, "labels": 3, "tags": 3, "span": 2}
        assert head == "cosine" or probe.outputs == wanted[head]


def test_every_task_names_losses_metrics_and_heads_that_there_are():
    for task in TASKS.values():
        assert task.loss in task.losses
        assert task.metric in task.metrics
        assert set(task.losses) <= LOSSES.keys()
        assert set(task.heads) <= HEADS.keys()
    assert {head for task in TASKS.values() for head in task.heads} == HEADS.keys()


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_a_unified_embedding_is_pretrained_for_every_head_of_whole_rows(head):
    found, corpus = TOYS[head][0]()
    train = TrainSpec(epochs=2, batch_rows=16)
    spec = ProbeSpec(mixer="unified", code=(0.5,), head=head)
    pretraining = PretrainingSpec(task="autoencoder", train=train)
    member = member_config(Recipe(probe=spec, pretraining=pretraining, train=train), found, corpus)
    made = pretrain(initial_probe(member), pretraining, sentences(found), found, 0)
    assert made.mixer.keys() == {"mixer.up"}
    begun = initial_probe(replace(member, pretrained=made))
    torch.testing.assert_close(begun.mixer.up[0], made.mixer["mixer.up"])
    (trained,) = train_all([replace(member, pretrained=made)])
    assert len(trained.history.values) == 2


def test_tokens_are_pooled_for_heads_of_whole_rows():
    of = MemberLayout(((0, 1),), (8, 8), (8, 8), tokens=True)
    assert build(ProbeSpec(), "class", 3, 1, of).pooling is not None
    assert build(ProbeSpec(), "tags", 3, 1, of).pooling is None


LOWERED = [(head, {}) for head in HEADS]
LOWERED += [(head, {"context": context}) for head in ("tags", "span") for context in CONTEXTS]
LOWERED += [("cosine", {"encoder": "lowrank"}), ("cosine", {"encoder": "none", "mixer": "mlp"})]
LOWERED += [("classes", {"mixer": mixer, "encoder": "mlp", "norm": True, "dropout": 0.1}) for mixer in CODE_MIXERS]


@pytest.mark.parametrize(("head", "settings"), LOWERED)
def test_a_training_in_bfloat16_ends_near_one_in_float32_and_answers_in_float32(head, settings):
    found, corpus = TOYS[head][0]()
    spec = ProbeSpec(**({"head": head, "context_width": 8} | settings))
    values = []
    for dtype in ("float32", "bfloat16"):
        train = TrainSpec(epochs=2, batch_rows=32, learning_rate=0.01, compute_dtype=dtype)
        (trained,) = train_all([member_config(Recipe(probe=spec, train=train), found, corpus)])
        assert all(part.dtype == torch.float32 for part in trained.probe.parameters())
        said = predictions(trained.probe, found, corpus.split("validation"))
        assert said.dtype == np.float32
        values.append(trained.history.losses[0])
    assert values[1] == pytest.approx(values[0], rel=0.05, abs=0.05)  # eight bits are a part in 256
    assert values[1] != values[0]
