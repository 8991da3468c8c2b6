"""Registry: task, head, loss and metric follow from recipe and corpus; what does not fit is refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import PretrainingSpec, TrainSpec
from permafrost.probes.experiments.checks import resolve_problems
from permafrost.probes.tasks.registry import TASKS, Problem, check_probe, make_problem, task_of
from tests.support.synthetic import answered, classed, inputs, labelled, ranked, scored, tagged


def regressed(sides: int) -> Corpus:
    """Scores of pairs, or the same scores of their first texts alone."""
    corpus = scored(inputs())
    first = {name: replace(rows, texts=rows.texts[:, :sides]) for name, rows in corpus.splits.items()}
    return replace(corpus, splits=first)


TOYS = {
    "score": regressed,
    "class": lambda sides: classed(inputs(), sides),
    "labels": lambda sides: labelled(inputs(), sides),
    "tags": lambda sides: tagged()[1],
    "answers": lambda sides: answered()[1],
    "rank": lambda sides: ranked(inputs()),
}


@pytest.mark.parametrize(
    ("kind", "sides", "head"),
    [
        ("score", 2, "cosine"),
        ("score", 1, "regression"),
        ("class", 1, "classes"),
        ("class", 2, "classes"),
        ("labels", 1, "labels"),
        ("labels", 2, "labels"),
        ("tags", 1, "tags"),
        ("answers", 1, "span"),
        ("rank", 2, "cosine"),
    ],
)
def test_where_none_is_named_the_head_is_that_of_the_targets(kind, sides, head):
    assert TASKS[kind].head(ProbeSpec(), sides) == head
    assert make_problem(Recipe(), TOYS[kind](sides)).head == head


REFUSED = [
    (
        {"head": "tags"}, "tags", 1, ["mean", "cls"],
        "the head 'tags' reads tokens, and the probe is given mean, cls: put tokens into plan.views and probe.inputs, "
        "as the recipes ner and qa do.",
    ),
    (
        {}, "answers", 1, ["mean"],
        "the head 'span' reads tokens, and the probe is given mean: put tokens into plan.views and probe.inputs, as "
        "the recipes ner and qa do.",
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
        {"head": "classes"}, "labels", 1, ["mean"],
        "probe.head = 'classes' does not fit multi-label classification; use one of: labels.",
    ),
    (
        {}, "class", 1, ["mean", "tokens"],
        "the view tokens cannot be combined with other views; set probe.inputs to one or the other.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "kind", "sides", "views", "message"), REFUSED)
def test_parts_that_do_not_fit_are_refused_with_the_way_out(settings, kind, sides, views, message):
    with pytest.raises(SpecError) as refused:
        check_probe(spec := ProbeSpec(**settings), make_problem(Recipe(probe=spec), TOYS[kind](sides)), views)
    assert str(refused.value) == message


@pytest.mark.parametrize(("kind", "head"), [(kind, head) for kind, task in TASKS.items() for head in task.heads])
def test_every_head_that_fits_a_kind_passes_the_check(kind, head):
    spec = ProbeSpec(head=head)
    for sides in (2,) if head == "cosine" else TASKS[kind].text_counts:
        problem = make_problem(Recipe(probe=spec), TOYS[kind](sides))
        assert (problem.head, problem.texts_per_row) == (head, sides)
        check_probe(spec, problem, ["tokens" if TASKS[kind].reads_tokens else "mean"])


def recipe_of(**train) -> Recipe:
    return Recipe(train=TrainSpec(**train))


@pytest.mark.parametrize(
    ("kind", "train", "message"),
    [
        ("score", {"loss": "span"}, "loss = 'span' does not fit similarity; use one of: mse, log_variance."),
        ("tags", {"loss": "mse"}, "loss = 'mse' does not fit tagging; use one of: cross_entropy."),
        ("answers", {"metric": "accuracy"}, "metric = 'accuracy' does not fit answering; use one of: f1, exact_match."),
        (
            "labels", {"loss": "cross_entropy"},
            "loss = 'cross_entropy' does not fit multi-label classification; use one of: binary_cross_entropy.",
        ),
        ("class", {"metric": "f1"}, "metric = 'f1' does not fit classification; use one of: accuracy, macro_f1."),
    ],
)  # fmt: skip
def test_a_loss_or_a_metric_that_does_not_fit_is_refused(kind, train, message):
    with pytest.raises(SpecError) as refused:
        make_problem(recipe_of(**train), TOYS[kind](1))
    assert str(refused.value) == f"train.{message}"


def checked(recipe: Recipe, corpus: Corpus) -> Problem:
    """The problem of a variant's only task, after all checks of the variant."""
    workspace = SimpleNamespace(problem=lambda recipe: make_problem(recipe, corpus))
    return resolve_problems({"own": recipe}, workspace)["probe"]


@pytest.mark.parametrize("kind", ["tags", "answers"])
def test_an_encoder_of_tokens_is_not_pretrained(kind):
    corpus = TOYS[kind](1)
    plan = replace(Recipe().plan, views=("tokens",))
    recipe = Recipe(plan=plan, probe=ProbeSpec(), pretraining=PretrainingSpec(task="autoencoder"))
    with pytest.raises(
        SpecError, match=rf"own: pretraining works on whole texts, but {task_of(corpus).name} reads single tokens"
    ):
        checked(recipe, corpus)
    assert checked(replace(recipe, pretraining=PretrainingSpec()), corpus).metric == "f1"


def test_what_is_not_named_is_that_of_the_task():
    problems = {kind: make_problem(Recipe(), TOYS[kind](1)) for kind in TASKS}
    assert {kind: (problem.loss, problem.metric) for kind, problem in problems.items()} == {
        "score": ("log_variance", "spearman"),
        "class": ("cross_entropy", "accuracy"),
        "labels": ("binary_cross_entropy", "mean_average_precision"),
        "tags": ("cross_entropy", "f1"),
        "answers": ("span", "f1"),
        "rank": ("multiple_negatives_ranking", "ndcg@10"),
    }


def test_two_classes_have_the_f1_of_the_second_and_may_choose_by_it():
    corpus = classed(inputs(texts=300), sides=1)
    assert "f1" not in make_problem(Recipe(), corpus).metrics
    rows = {name: Rows(one.texts, one.targets.clip(max=1)) for name, one in corpus.splits.items()}
    problem = make_problem(recipe_of(metric="f1"), replace(corpus, splits=rows, labels=("no", "yes")))
    assert "f1" in problem.metrics
    assert problem.metric == "f1"


def test_a_corpus_that_poses_no_task_is_refused():
    corpus = scored(inputs())
    kinds = r"it has no targets to learn; set corpus\.columns .* to score, class, labels, tags, answers or"
    with pytest.raises(CorpusError, match=kinds):
        task_of(replace(corpus, kind="none"))
    with pytest.raises(
        CorpusError,
        match=r"all its training rows are of the class 'a'; add rows of a second class, or .* corpus\.columns",
    ):
        task_of(replace(corpus, kind="class", labels=("a",)))
    with pytest.raises(CorpusError, match="no rows of train, only of validation"):
        task_of(replace(corpus, splits={"validation": corpus.split("validation")}))
    one = corpus.split("validation")
    constant = {"train": corpus.split("train"), "validation": Rows(one.texts, np.full(len(one), 0.5))}
    with pytest.raises(
        CorpusError,
        match=r"all its validation scores are the same \(\d+ of them\), .*; add rows with other scores to it",
    ):
        task_of(replace(corpus, splits=constant))
    sets = labelled(inputs())
    empty = sets.splits | {"validation": replace(sets.split("validation"), targets=np.zeros((10, 3)))}
    with pytest.raises(CorpusError, match="none of its validation rows has a label"):
        task_of(replace(sets, splits=empty))


@pytest.mark.parametrize("sides", [1, 2])
def test_the_texts_of_a_row_are_counted(sides):
    assert make_problem(Recipe(), classed(inputs(), sides)).texts_per_row == sides
