"""Tasks: every head is built for its kind and learns its toy; parts that do not fit each other are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.metrics import METRICS
from permafrost.probes.models.context import CONTEXTS
from permafrost.probes.models.member_layout import MemberLayout
from permafrost.probes.models.mixers import CODE_MIXERS
from permafrost.probes.models.sentence_probes import ClassProbe, RegressionProbe, ScoreProbe
from permafrost.probes.models.token_probes import SpanProbe, TagProbe
from permafrost.probes.tasks.losses import LOSSES
from permafrost.probes.tasks.registry import (
    HEADS,
    TASKS,
    build,
    check_probe,
    head_of,
    loss_and_metric,
    predictions,
    task_of,
    texts_per_row,
)
from permafrost.probes.training.encoder_pretraining import pretrain
from permafrost.probes.variants.members import MemberConfig, initial_probe, train_members
from tests.support.synthetic import answered, classed, inputs, layout, scored, sentences, tagged

FITTING = [(kind, head) for kind, task in TASKS.items() for head in task.heads]
PROBES = {
    "cosine": ScoreProbe,
    "regression": RegressionProbe,
    "classes": ClassProbe,
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


TOYS = {
    "cosine": (paired, 0.7),
    "regression": (lambda: along(1), 0.8),
    "classes": (topics, 0.6),  # chance is a third
    "tags": (lambda: tagged(60), 0.8),
    "span": (lambda: answered(60), 0.7),
}


def result(found: ProbeInputs, corpus: Corpus, spec: ProbeSpec, **train) -> float:
    settings = TrainSpec(**({"epochs": 30, "batch_rows": 8, "learning_rate": 0.01, "patience": 30} | train))
    member = MemberConfig(
        variant="toy",
        recipe=Recipe(probe=spec, train=settings),
        inputs=found,
        layers=tuple(range(len(found.columns))),
        seed=0,
    )
    (trained,) = train_members([member], corpus)
    return trained.history.best_value


@pytest.mark.parametrize("head", HEADS)  # a new head without a toy fails here
def test_a_head_learns_its_toy(head):
    make, least = TOYS[head]
    assert result(*make(), ProbeSpec(head=head)) > least


@pytest.mark.parametrize("loss", TASKS["score"].losses)
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
    for sides in (1, 2) if head in ("regression", "classes") else (2,) if head == "cosine" else (1,):
        probe = build(spec, kind, 3, sides, of)
        assert type(probe) is PROBES[head]
        check_probe(spec, kind, sides, ["tokens" if of.tokens else "mean"])
        wanted = {"regression": 1, "classes": 3, "tags": 3, "span": 2}
        assert head == "cosine" or probe.outputs == wanted[head]


@pytest.mark.parametrize(
    ("kind", "sides", "head"),
    [
        ("score", 2, "cosine"),
        ("score", 1, "regression"),
        ("class", 1, "classes"),
        ("class", 2, "classes"),
        ("tags", 1, "tags"),
        ("answers", 1, "span"),
    ],
)
def test_where_none_is_named_the_head_is_that_of_the_targets(kind, sides, head):
    assert head_of(ProbeSpec(), kind, sides) == head


def test_every_task_names_losses_metrics_and_heads_that_there_are():
    for task in TASKS.values():
        assert task.loss in task.losses
        assert task.metric in task.metrics
        assert set(task.losses) <= LOSSES.keys()
        assert set(task.heads) <= HEADS.keys()
        if task.name in ("similarity", "classification"):
            assert set(task.metrics) <= METRICS.keys()
    assert {head for task in TASKS.values() for head in task.heads} == HEADS.keys()


REFUSED = [
    (
        {"head": "tags"}, "tags", 1, ["mean", "cls"],
        "the head 'tags' reads tokens, and the probe is given mean, cls: put tokens into plan.views and probe.inputs.",
    ),
    (
        {}, "answers", 1, ["mean"],
        "the head 'span' reads tokens, and the probe is given mean: put tokens into plan.views and probe.inputs.",
    ),
    (
        {"head": "classes"}, "score", 2, ["mean"],
        "probe.head = 'classes' does not fit similarity; use one of: cosine, regression.",
    ),
    (
        {"head": "cosine"}, "class", 2, ["mean"],
        "probe.head = 'cosine' does not fit classification; use one of: classes.",
    ),
    (
        {"head": "cosine"}, "score", 1, ["mean"],
        "probe.head = 'cosine' needs two texts a row; corpus.columns names one: use 'regression'.",
    ),
    (
        {"context": "bilstm"}, "class", 1, ["tokens"],
        "probe.context = 'bilstm' is for the heads tags and span, this one is 'classes'.",
    ),
    (
        {"context": "transformer"}, "score", 2, ["mean"],
        "probe.context = 'transformer' is for the heads tags and span, this one is 'cosine'.",
    ),
    (
        {"hidden": 8}, "tags", 1, ["tokens"],
        "probe.hidden = 8 is for whole rows, the head 'tags' is linear; use a context.",
    ),
    (
        {"mixer": "mlp"}, "tags", 1, ["tokens"],
        "probe.mixer = 'mlp' mixes cosines, which the head 'tags' does not have; use 'softmax'.",
    ),
    (
        {"mixer": "mlp", "head": "regression"}, "score", 2, ["mean"],
        "probe.mixer = 'mlp' mixes cosines, which the head 'regression' does not have; use 'softmax'.",
    ),
    (
        {}, "class", 1, ["mean", "tokens"],
        "the view tokens cannot be combined with other views; set probe.inputs to one or the other.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "kind", "sides", "views", "message"), REFUSED)
def test_parts_that_do_not_fit_are_refused_with_the_way_out(settings, kind, sides, views, message):
    with pytest.raises(SpecError) as refused:
        check_probe(ProbeSpec(**settings), kind, sides, views)
    assert str(refused.value) == message


def recipe_of(**train) -> Recipe:
    return Recipe(train=TrainSpec(**train))


@pytest.mark.parametrize(
    ("kind", "train", "message"),
    [
        ("score", {"loss": "span"}, "loss = 'span' does not fit similarity; use one of: mse, log_variance."),
        ("tags", {"loss": "mse"}, "loss = 'mse' does not fit tagging; use one of: cross_entropy."),
        ("answers", {"metric": "accuracy"}, "metric = 'accuracy' does not fit answering; use one of: f1, exact_match."),
        ("class", {"metric": "f1"}, "metric = 'f1' does not fit classification; use one of: accuracy, macro_f1."),
    ],
)  # fmt: skip
def test_a_loss_or_a_metric_that_does_not_fit_is_refused(kind, train, message):
    with pytest.raises(SpecError) as refused:
        loss_and_metric(recipe_of(**train), TASKS[kind])
    assert str(refused.value) == f"train.{message}"


@pytest.mark.parametrize("head", ["tags", "span"])
def test_an_encoder_of_tokens_is_not_pretrained(head):
    corpus = TOYS[head][0]()[1]
    plan = replace(Recipe().plan, views=("tokens",))
    recipe = Recipe(plan=plan, probe=ProbeSpec(), pretraining=PretrainingSpec(task="autoencoder"))
    with pytest.raises(
        SpecError, match=rf"own: pretraining works on whole texts, but {task_of(corpus).name} reads single tokens"
    ):
        check_variants(recipe, {"own": recipe}, corpus)
    plain = replace(recipe, pretraining=PretrainingSpec())
    assert check_variants(plain, {"own": plain}, corpus) == "f1"


@pytest.mark.parametrize("head", ["classes", "regression"])
def test_a_unified_embedding_is_pretrained_for_every_head_of_whole_rows(head):
    found, corpus = TOYS[head][0]()
    train = TrainSpec(epochs=2, batch_rows=16)
    spec = ProbeSpec(mixer="unified", code=(0.5,), head=head)
    pretraining = PretrainingSpec(task="autoencoder", train=train)
    member = MemberConfig(
        variant="toy",
        recipe=Recipe(probe=spec, pretraining=pretraining, train=train),
        inputs=found,
        layers=(0, 1, 2, 3),
        seed=0,
    )
    made = pretrain(initial_probe(member, corpus), pretraining, sentences(found), found, 0)
    assert made.mixer.keys() == {"mixer.up"}
    begun = initial_probe(replace(member, pretrained=made), corpus)
    torch.testing.assert_close(begun.mixer.up[0], made.mixer["mixer.up"])
    (trained,) = train_members([replace(member, pretrained=made)], corpus)
    assert len(trained.history.values) == 2


def test_what_is_not_named_is_that_of_the_task():
    found = {kind: loss_and_metric(Recipe(), task) for kind, task in TASKS.items()}
    assert found == {
        "score": ("log_variance", "spearman"),
        "class": ("cross_entropy", "accuracy"),
        "tags": ("cross_entropy", "f1"),
        "answers": ("span", "f1"),
    }


def test_two_classes_have_the_f1_of_the_second_and_may_choose_by_it():
    corpus = topics()[1]
    assert "f1" not in task_of(corpus).metrics
    rows = {name: Rows(one.texts, one.targets.clip(max=1)) for name, one in corpus.splits.items()}
    task = task_of(replace(corpus, splits=rows, labels=("no", "yes")))
    assert "f1" in task.metrics
    assert loss_and_metric(recipe_of(metric="f1"), task)[1] == "f1"


def test_a_corpus_that_poses_no_task_is_refused():
    corpus = scored(inputs())
    with pytest.raises(CorpusError, match=r"it has no targets to learn; set corpus\.target to score, class, tags or"):
        task_of(replace(corpus, kind="none"))
    with pytest.raises(CorpusError, match="all its training rows are of the class 'a'"):
        task_of(replace(corpus, kind="class", labels=("a",)))
    with pytest.raises(CorpusError, match="no split 'train'"):
        task_of(replace(corpus, splits={"validation": corpus.split("validation")}))
    one = corpus.split("validation")
    constant = {"train": corpus.split("train"), "validation": Rows(one.texts, np.full(len(one), 0.5))}
    with pytest.raises(CorpusError, match="all its validation scores are the same"):
        task_of(replace(corpus, splits=constant))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_texts_of_a_row_are_counted(sides):
    assert texts_per_row(classed(inputs(), sides)) == sides


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
        member = MemberConfig(
            variant="toy",
            recipe=Recipe(probe=spec, train=train),
            inputs=found,
            layers=tuple(range(len(found.columns))),
            seed=0,
        )
        (trained,) = train_members([member], corpus)
        assert all(part.dtype == torch.float32 for part in trained.probe.parameters())
        said = predictions(trained.probe, found, corpus.split("validation"))
        assert said.dtype == np.float32
        values.append(trained.history.losses[0])
    assert values[1] == pytest.approx(values[0], rel=0.05, abs=0.05)  # eight bits are a part in 256
    assert values[1] != values[0]
