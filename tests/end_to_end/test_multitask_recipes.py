"""The recipes whose tasks learn together, from their sample corpora to what a reader finds in the run folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from permafrost.probes.config.load import load_recipe
from permafrost.probes.metrics import bootstrap
from tests.support.bench import Bench
from tests.support.page_reader import Page

pytestmark = pytest.mark.slow

FEW = "limits={train=12,validation=9,test=9}"
WORDS = "limits={train=16,validation=8,test=8}"
QUESTIONS = "limits={train=2,validation=2,test=3}"
SMALL = {
    "topic-sentiment": [f"topic.corpus.{FEW}", f"tone.corpus.{FEW}"],
    "sst2-question": [
        "sentiment.corpus.name=samples-tones", f"sentiment.corpus.{FEW}",
        "question.corpus.name=samples-topics", f"question.corpus.{FEW}",
    ],
    "ner-qa": [
        "ner.corpus.name=samples-tags", f"ner.corpus.{WORDS}", "ner.plan.max_tokens=48",
        "qa.corpus.name=samples-questions", f"qa.corpus.{QUESTIONS}", "qa.plan.max_tokens=64", "qa.plan.stride=8",
    ],
}  # fmt: skip
EVERY_TASK = pytest.mark.parametrize("name", SMALL)
REAL = ("sst2-question",)
"""Recipes that run on the backbone they name; the others have variants without number."""


@dataclass(frozen=True)
class Ran:
    """A recipe that was run by the command line."""

    bench: Bench
    folder: Path
    out: str
    err: str

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "record.json").read_text("utf-8"))

    @property
    def counts(self) -> pd.DataFrame:
        """Variant -> its numbers of parameters, in the order of the variants."""
        rows = self.table("metrics").query("split != split")
        return rows.pivot(index="variant", columns="metric", values="value").loc[rows["variant"].unique()]

    @property
    def comparisons(self) -> pd.DataFrame:
        return self.table("metrics").dropna(subset="against")

    def figure(self, variant: str, task: str, metric: str, split: str) -> float:
        """Of the one seed, as ``metrics.csv`` has it."""
        table = self.table("metrics")
        asked = {"variant": variant, "task": task, "metric": metric, "split": split, "seed": 0}
        (value,) = table.loc[np.logical_and.reduce([table[key] == of for key, of in asked.items()]), "value"]
        return value

    @property
    def page(self) -> Page:
        return Page((self.folder / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny):
    """Name of a recipe -> its run of one epoch, made once."""
    made = {}

    def run(name: str) -> Ran:
        if name not in made:
            bench = Bench(tmp_path_factory.mktemp(name), tiny("bert", blocks=6))  # as many as the one that is cut
            settings = [*bench.settings("train.epochs=1"), *(f"tasks.{change}" for change in SMALL[name])]
            settings += ["plan.backbone=minilm"] if name in REAL else []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(bootstrap, "RESAMPLES", bootstrap.CHUNK)
                code, out, err = bench.command("run", name, settings=settings)
            assert code == 0, err
            made[name] = Ran(bench, bench.runs / f"{name}-1", out, err)
        return made[name]

    return run


@pytest.mark.slow
@EVERY_TASK
def test_every_variant_is_trained_and_told_of_with_its_figures_and_costs(name, ran):
    run, recipe = ran(name), load_recipe(name)[1]
    assert list(run.counts.index) == list(recipe.variant_recipes())
    assert run.record["refused"] == {}
    head, *lines = run.out.splitlines()
    costs = ["trained", *(["saved"] if run.counts["saved_parameters"].any() else []), "took", "memory"]
    assert head.split()[-len(costs) :] == costs
    assert [line.split()[0] for line in lines[: len(run.counts) + 1]] == ["raw", *recipe.variant_recipes()]
    assert lines[-3].removeprefix("chosen on validation: ") in recipe.variant_recipes()
    assert lines[-1] == f"run: {run.folder}"
    assert [path.name for path in run.bench.runs.iterdir()] == [run.folder.name]  # nothing is unfinished


@EVERY_TASK
def test_every_task_is_followed_from_before_training_to_the_figures_of_the_table(name, ran):
    run, recipe = ran(name), load_recipe(name)[1]
    epochs = run.table("epochs")
    for variant, one in recipe.variant_recipes().items():
        mine = epochs[epochs["variant"] == variant]
        assert set(mine["task"]) == set(one.task_recipes())
        for (task, metric), rows in mine.groupby(["task", "metric"]):
            assert rows["epoch"].tolist() == [0, 1]
            assert rows["value"].iloc[1] == pytest.approx(run.figure(variant, task, metric, "validation"))
    assert not epochs["value"].isna().any()
    measured = run.table("metrics").groupby("task")["metric"].unique().map(set)
    assert epochs.groupby("task")["metric"].unique().map(set).to_dict() == measured.to_dict()


@EVERY_TASK
def test_the_page_shows_all_tasks_and_nothing_that_is_no_number(name, ran):
    run, recipe = ran(name), load_recipe(name)[1]
    page = run.page
    assert {"figure-training", "figure-by_epoch"} <= set(page.ids)
    assert {f"task-{task}" for task in recipe.tasks} <= set(page.ids)
    for text in (page.text, run.out, run.err):
        assert not {"nan", "NaN", "inf", "None"} & set(text.replace(",", " ").split())


def test_topics_and_tones_have_every_figure_of_classes_and_confusion_matrices(ran):
    run = ran("topic-sentiment")
    classes = {"topic": {"billing", "technical", "general"}, "tone": {"negative", "neutral", "positive"}}
    variants = set(load_recipe("topic-sentiment")[1].variant_recipes())
    for task, names in classes.items():
        told = run.table("training").query("task == @task and weight > 0 and loss > 0")
        assert set(told["variant"]) == variants - {"everything-frozen"}
        table = run.table(f"tasks/{task}/breakdown")
        of_class = table[(table["kind"] == "class") & (table["split"] == "test")]
        assert set(of_class["group"]) == names
        assert set(of_class["metric"]) == {"precision", "recall", "f1"}
        confusion = run.table(f"tasks/{task}/confusion")
        assert set(of_class["variant"]) == set(confusion["variant"]) == variants
        for variant in variants:
            mine = of_class[(of_class["variant"] == variant) & (of_class["metric"] == "f1")]
            assert mine["value"].mean() == pytest.approx(run.figure(variant, task, "macro_f1", "test"))
            pairs = confusion[confusion["variant"] == variant]
            right = pairs.loc[pairs["target"] == pairs["label"], "n"].sum() / pairs["n"].sum()
            assert right == pytest.approx(run.figure(variant, task, "accuracy", "test"))
        assert f"figure-{task}-confusions" in run.page.ids
        assert set(run.table("metrics").query("task == @task")["metric"]) == {"accuracy", "macro_f1"}
        assert f"figure-{task}-confusion" in run.page.ids
        said = run.table(f"tasks/{task}/predictions")
        chosen = run.record["selected"]
        right = (said["label"] == said["target"]).mean()
        assert right == pytest.approx(run.figure(chosen, task, "accuracy", "test"))


def test_the_less_is_frozen_the_more_numbers_learn(ran):
    run = ran("topic-sentiment")
    trained, parameters = run.counts["trained_parameters"], run.counts["parameters"]
    order = ["everything-frozen", "backbone-frozen", "tone-frozen", "upper", "everything"]
    assert trained[order].is_monotonic_increasing
    assert trained[order].is_unique
    assert trained["everything-frozen"] == 0
    assert trained["everything"] == parameters["everything"]
    assert parameters.nunique() == 1
    assert set(trained[["upper-slow", "uncertainty", "gradnorm", "pcgrad", "equal"]]) == {trained["upper"]}
    costs = run.record["costs"]
    assert list(costs) == list(trained.index)
    assert all(cost["seconds"] > 0 and cost["memory"] >= 0 for cost in costs.values())


def test_what_is_frozen_stays_as_it_was_and_has_no_loss_where_nothing_learns(ran):
    run = ran("topic-sentiment")
    values = run.table("epochs").set_index(["variant", "task", "metric", "epoch"])["value"].unstack()
    assert (values.loc["everything-frozen", 0] == values.loc["everything-frozen", 1]).all()
    lines = run.table("training")
    still = lines["variant"] == "everything-frozen"
    assert lines.loc[still, "loss"].isna().all()
    assert (lines.loc[~still, "loss"] > 0).all()
    frozen = run.table("frozen").groupby("variant")["component"].agg(set).to_dict()
    assert frozen == {"everything-frozen": {"topic", "tone"}, "tone-frozen": {"tone"}}
    assert "training tone-frozen, seed 0: tone is frozen after 0 epochs" in run.err


def test_balancers_are_held_against_equal_weights_and_tell_weights_and_conflicts(ran):
    run = ran("topic-sentiment")
    against = run.comparisons.groupby("variant")["against"].agg(set).to_dict()
    assert {against[name].pop() for name in ("upper", "uncertainty", "gradnorm", "pcgrad")} == {"equal"}
    weights = run.table("training").groupby("variant")["weight"].first()
    assert weights[["upper", "everything", "equal"]].tolist() == [0.5, 0.5, 1.0]
    conflicts = run.table("conflicts")
    sharing = set(load_recipe("topic-sentiment")[1].variant_recipes()) - {"everything-frozen", "backbone-frozen"}
    assert set(conflicts["variant"]) == sharing
    assert conflicts["cosine"].between(-1, 1).all()


def test_telling_questions_is_chosen_and_shown_by_f1_first(ran):
    run = ran("sst2-question")
    assert "question: F1" in run.out.splitlines()[0]
    table = run.table("metrics")
    assert table.dropna(subset="task").drop_duplicates("task").set_index("task")["metric"].to_dict() == {
        "sentiment": "accuracy", "question": "f1",
    }  # fmt: skip
    assert set(table.query("task == 'question'")["metric"]) == {"f1", "accuracy", "macro_f1"}


def test_what_sentiment_and_questions_freeze_is_not_trained_and_stays_as_it_was(ran):
    run = ran("sst2-question")
    trained, parameters = run.counts["trained_parameters"], run.counts["parameters"].max()
    assert 0.1 < trained["blocks-and-heads"] / parameters < 0.2  # two blocks of six, and no embeddings
    heads = {task: trained["blocks-and-heads"] - trained[f"{task}-head-frozen"] for task in ("sentiment", "question")}
    assert min(heads.values()) > 0
    assert trained["backbone-frozen"] == sum(heads.values())
    assert trained["everything-frozen"] == 0
    assert run.table("frozen").groupby("variant")["component"].agg(set).to_dict() == {
        "everything-frozen": {"backbone", "sentiment", "question"},
        "backbone-frozen": {"backbone"},
        "sentiment-head-frozen": {"sentiment"},
        "question-head-frozen": {"question"},
    }
    values = run.table("epochs").set_index(["variant", "task", "metric", "epoch"])["value"].unstack()
    assert (values.loc["everything-frozen", 0] == values.loc["everything-frozen", 1]).all()


def test_each_task_leaves_an_ordinary_model_folder_and_both_answer(ran):
    from transformers import AutoModel

    run = ran("sst2-question")
    found = [AutoModel.from_pretrained(run.folder / "tasks" / task / "backbone") for task in ("sentiment", "question")]
    assert [model.config.num_hidden_layers for model in found] == [6, 6]
    code, out, _ = run.bench.command("predict", str(run.folder), "What is that?", "It is fine.", "--json")
    assert code == 0
    answers = [one["tasks"] for one in json.loads(out)["predictions"]]
    assert [set(one) for one in answers] == [{"sentiment", "question"}] * 2
    assert set(answers[0]["question"]["probabilities"]) == {"question", "statement"}


def test_sharing_entities_and_answers_is_held_against_each_task_alone(ran):
    run = ran("ner-qa")
    recipe = load_recipe("ner-qa")[1]
    compared = run.comparisons
    assert set(compared["metric"]) == {"f1"}
    assert compared["p"].between(0, 1).all()
    for task, rows in (("ner", 8), ("qa", 3)):
        mine = compared[(compared["task"] == task) & (compared["against"] == f"{task}-only")]
        assert set(mine["variant"]) == {name for name in recipe.variant_recipes() if not name.endswith("-only")}
        assert set(mine["n"]) == {rows}
    trained = run.table("metrics").dropna(subset="task").groupby("variant")["task"].agg(set)
    assert trained[["ner-only", "qa-only", "both"]].tolist() == [{"ner"}, {"qa"}, {"ner", "qa"}]


def test_sharing_saves_a_backbone_a_task_where_it_is_trained(ran):
    counts = ran("ner-qa").counts
    trained, saved = counts["trained_parameters"], counts["saved_parameters"]
    assert saved[["ner-only", "qa-only", "both-frozen"]].tolist() == [0, 0, 0]
    assert trained["both"] + saved["both"] == trained[["ner-only", "qa-only"]].sum()
    assert 0 < saved["both-upper"] < saved["both"]


def test_entities_and_answers_are_broken_down_and_shown_in_their_texts(ran):
    run = ran("ner-qa")
    assert set(run.table("tasks/ner/breakdown")["kind"]) >= {"entity type"}
    assert set(run.table("tasks/qa/breakdown")["kind"]) >= {"question word"}
    said = pd.read_csv(run.folder / "tasks" / "qa" / "predictions.csv", keep_default_na=False)
    assert all(row.answer == row.context[row.start : row.end] for row in said.itertuples())
    assert {"figure-ner-confusion", "figure-qa-by_question_word"} <= set(run.page.ids)


KILLS = """
import os
from permafrost.probes.training.checkpoint import Checkpoint
save, saved = Checkpoint.save, []

def save_and_die(self, state):
    save(self, state)
    saved.append(self.path)
    if len(set(saved)) > 1 and len(saved) > 6:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = save_and_die
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_ends_as_one_that_was_not(tmp_path, tiny, quick):
    bench = Bench(tmp_path, tiny("bert", blocks=6))
    words = ["run", "topic-sentiment", "--only", "upper", "--only", "gradnorm"]
    settings = bench.settings("train.epochs=2", *(f"tasks.{change}" for change in SMALL["topic-sentiment"]))
    killed = bench.process(*words, settings=[*settings, "train.checkpoint_seconds=0"], before=KILLS)
    out, err = killed.communicate(timeout=120)
    assert (killed.returncode, out, err.count("best epoch")) == (-9, "", 2)
    assert [path.name for path in bench.runs.iterdir()] == ["unfinished"]
    _, _, resumed = bench.command(*words, settings=settings)
    assert "training gradnorm, seed 0: resuming after 0 epochs and 2 steps" in resumed
    _, _, whole = bench.command(*words, settings=settings)
    assert "resuming" not in whole
    assert sorted(path.name for path in bench.runs.iterdir()) == ["topic-sentiment-1", "topic-sentiment-2"]
    one, other = (bench.runs / f"topic-sentiment-{number}" for number in (1, 2))
    names = [*(f"{table}.csv" for table in ("metrics", "training", "epochs", "conflicts"))]
    names += [f"tasks/{task}/{name}" for task in ("topic", "tone") for name in ("predictions.csv", "probe.safetensors")]
    for name in (*names, "tasks/topic/backbone/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
