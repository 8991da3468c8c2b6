"""The recipes of every task, each from its sample corpus to a run folder that answers new texts."""

import json

import pandas as pd
import pytest

import tests.end_to_end.test_pretrain as test_pretrain_command
from permafrost import api
from permafrost.data.errors import InputError
from permafrost.probes.config.load import load_recipe
from permafrost.probes.metrics import bootstrap
from permafrost.probes.metrics.squad import exact_match, token_f1
from permafrost.probes.reports.report import result_grids
from tests.support.bench import Bench
from tests.support.page_reader import Page

SENTENCE = "Elon Musk  spoke in Reykjavík."
QUESTION = ("How high is it?", "The peak, at 8,848.86 metres, is the highest.")
WINDOWS = ["plan.max_tokens=48", "plan.stride=4"]
SMALL = {
    "nli": (["corpus.name=samples-nli", "probe.hidden=8"], ("A man sleeps.", "He is awake.")),
    "sentiment": (["corpus.name=samples-tones", "probe.hidden=8"], "I loved it."),
    "question": (["corpus.name=samples-topics", "probe.hidden=8"], "What is that?"),
    "ner": (["corpus.name=samples-tags", "corpus.held_out=0.2", "probe.context_width=8"], SENTENCE),
    "qa": (["corpus.name=samples-questions", "corpus.limits={train=30,test=10}", "probe.context_width=8"], QUESTION),
}
SMALL["qa"][0].extend(WINDOWS)
TUNED = {
    "sentiment-tuned": (["corpus.name=samples-tones", "corpus.limits={train=16,validation=9,test=9}"], "I loved it."),
    "ner-tuned": (["corpus.limits={train=16,validation=8,test=8}", *SMALL["ner"][0]], SENTENCE),
    "qa-tuned": (["corpus.name=samples-questions", "corpus.limits={train=4,validation=3,test=3}", *WINDOWS], QUESTION),
}
"""Recipes whose backbone learns; they cut one of six blocks."""

LAYERS = {
    "similarity": ["corpus.name=samples-pairs"],
    "nli": ["corpus.name=samples-nli"],
    "sentiment": ["corpus.name=samples-tones"],
    "question": ["corpus.name=samples-topics"],
    "ner": ["corpus.name=samples-tags", "plan.max_tokens=32"],
    "qa": ["corpus.name=samples-questions", *WINDOWS],
}


@pytest.fixture
def bench(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", bootstrap.CHUNK)
    return Bench(tmp_path, tiny("bert"))


@pytest.mark.parametrize("name", SMALL)
def test_a_task_runs_on_its_samples_and_answers_new_texts(name, bench):
    changes, item = SMALL[name]
    done = api.run(name, bench.settings(*changes), bench.runs)
    recipe = load_recipe(name)[1]
    assert {row["variant"] for row in done.metrics} == {"raw", *recipe.variant_recipes()}
    splits = {"train", "validation", "test"} | ({"held-out"} if name == "ner" else set())
    assert {row["split"] for row in done.metrics if row["variant"] == "raw"} == splits
    assert {row["split"] for row in done.metrics if row["variant"] == done.selected} == splits - {"train"} | {""}
    assert (done.path / "report.html").stat().st_size > 10_000
    (answer,) = api.load(done.path).predict([item])
    assert set(answer) == {"ner": {"entities"}, "qa": {"answer"}}.get(name, {"label", "probabilities"})


@pytest.mark.parametrize("name", TUNED)
def test_a_task_whose_backbone_learns_runs_on_its_samples_and_answers_new_texts(name, bench, tiny):
    from transformers import AutoModel

    changes, item = TUNED[name]
    settings = Bench(bench.folder, tiny("bert", blocks=6)).settings(*changes, "train.epochs=1")
    code, out, err = bench.command("run", name, settings=settings)
    folder, splits = bench.runs / f"{name}-1", {"train", "validation", "test"}
    assert (code, out.splitlines()[-1]) == (0, f"run: {folder}")
    assert "probe, seed 0: best epoch 1 of 1, " in err
    measured, epochs = pd.read_csv(folder / "metrics.csv"), pd.read_csv(folder / "epochs.csv")
    assert set(measured["variant"]) == {"raw", "probe"}
    measured = measured[measured["split"].notna()]
    assert set(measured["split"]) == splits | ({"held-out"} if name == "ner-tuned" else set())
    for metric, values in epochs.groupby("metric"):
        assert values["epoch"].tolist() == [0, 1]
        chose = measured[(measured["metric"] == metric) & (measured["seed"] == 0)].sort_values("split")
        assert values["value"].iloc[1] == pytest.approx(chose.query("split != 'test'")["value"].iloc[0])
    assert set(epochs["metric"]) == set(measured["metric"])
    record = json.loads((folder / "record.json").read_text("utf-8"))
    backbone = AutoModel.from_pretrained(folder / "backbone")
    assert backbone.config.num_hidden_layers == 6
    assert record["parameters"]["probe"] > sum(one.numel() for one in backbone.encoder.layer[4:].parameters())
    page = Page((folder / "report.html").read_text("utf-8"))
    assert not {"nan", "None"} & set(page.text.split())
    answers = api.load(folder).predict([item, item])
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"ner-tuned": {"entities"}, "qa-tuned": {"answer"}}.get(name, {"label", "probabilities"})


def test_a_bert_from_scratch_is_put_to_inference_frozen_and_trained_with_a_report_by_class(bench):
    settings = [*test_pretrain_command.of_nli(bench), "corpus.limits={train=24,validation=12,test=12}"]
    code, out, err = bench.command("run", "mlm-nli", settings=settings)
    assert code == 0, err
    folder = bench.runs / "mlm-nli-1"
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["raw", "frozen", "trained-faster", "trained"]
    of_class = pd.read_csv(folder / "breakdown.csv").query("kind == 'class' and split == 'test'")
    assert set(of_class["group"]) == {"entailment", "neutral", "contradiction"}
    assert set(of_class["metric"]) == {"precision", "recall", "f1"}
    assert set(pd.read_csv(folder / "epochs.csv")["variant"]) == {"trained", "trained-faster"}
    assert "figure-confusion" in Page((folder / "report.html").read_text("utf-8")).ids


def test_a_gpt2_from_scratch_climbs_the_ladder_of_freeze_sts(bench, monkeypatch, trained_only):
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    model = api.pretrain("gpt-small", test_pretrain_command.small(bench, "blocks=3"), bench.runs).model.folder
    changes = ["corpus.name=samples-pairs", "corpus.limits={train=24,validation=12,test=12}", "train.epochs=1"]
    changes += ["pretraining.corpus.name=samples-sentences", "pretraining.corpus.limit=20", f"plan.backbone={model}"]
    done = api.run("freeze-sts", bench.settings(*changes, "pretraining.train.epochs=1"), bench.runs)
    untrained = {"raw", "raw (prompt-eol)"}
    assert {row["variant"] for row in done.metrics} == {*untrained, *load_recipe("freeze-sts")[1].variant_recipes()}
    assert {row["backbone"] for row in done.metrics} == {str(model)}


def test_what_a_tagger_says_of_the_test_split_is_what_its_figures_count(bench):
    done = api.run("ner", bench.settings(*SMALL["ner"][0]), bench.runs)
    said = pd.read_csv(done.path / "predictions.csv", keep_default_na=False)
    share = (said["label"] == said["target"]).mean()
    (accuracy,) = (
        row["value"]
        for row in done.metrics
        if (row["variant"], row["split"], row["metric"], row["seed"]) == ("probe", "test", "accuracy", None)
    )
    assert accuracy == pytest.approx(share)
    assert said["sentence"].nunique() == 20
    (grid,) = result_grids(done.path)
    metrics = ("F1", "precision", "recall", "accuracy")
    assert grid.heads[2:-3] == [
        f"{metric} on {split}" for split in ("test", "validation") for metric in metrics  # a part of train chose
    ]  # fmt: skip
    assert grid.heads[-3:] == ["trained", "took", "memory"]
    assert [line[0] for line in grid.rows] == ["raw", "probe"]


def test_a_held_out_part_that_chose_is_named_and_tagged_sentences_are_called_by_what_they_hold(bench):
    code, out, _ = bench.command("run", "ner", settings=bench.settings(*SMALL["ner"][0], "train.epochs=1"))
    assert code == 0
    assert "chosen on held-out: probe" in out
    (folder,) = bench.runs.iterdir()
    assert "Chosen on held-out by f1." in (folder / "report.html").read_text("utf-8")
    labels = set(pd.read_csv(folder / "latents.csv", keep_default_na=False)["label"])
    assert len(labels) > 2
    assert labels <= {"PER", "ORG", "LOC", "MISC", "no entity", "several types"}


def test_every_predicted_answer_is_a_substring_of_its_context_and_its_figures_are_those_of_the_table(bench):
    done = api.run("qa", bench.settings(*SMALL["qa"][0]), bench.runs)
    said = pd.read_csv(done.path / "predictions.csv", keep_default_na=False)
    assert len(said) == 10
    for row in said.itertuples():
        assert row.answer == row.context[row.start : row.end]
        assert row.context[row.target_start :].startswith(row.target)
        assert row.f1 >= token_f1(row.answer, row.target)
        assert row.exact_match >= exact_match(row.answer, row.target)
    figures = {
        row["metric"]: row["value"]
        for row in done.metrics
        if (row["variant"], row["split"], row["seed"]) == ("probe", "test", None)
    }
    assert figures == pytest.approx({"f1": said["f1"].mean(), "exact_match": said["exact_match"].mean()})


def test_layers_trains_every_task_on_every_layer_alone_with_controls(bench, tiny):
    changes = [f"tasks.{task}.{change}" for task, some in LAYERS.items() for change in some]
    done = api.run("layers", bench.settings("ablation.greedy=1", "train.epochs=1", *changes), bench.runs)
    table = pd.read_csv(done.path / "metrics.csv", keep_default_na=False)
    record = json.loads((done.path / "record.json").read_text())
    assert set(table["task"]) == set(LAYERS)
    assert set(table["variant"]) == {"probe"}
    assert set(table["control"]) == {"", "untrained", "random targets"}
    for task, rows in table.groupby("task"):
        subsets = {"all", *(f"single {layer}" for layer in range(4))}
        assert set(rows.loc[rows["control"] == "", "subset"]) == subsets, task
        assert rows["metric"].iloc[0] == record["metrics"][task]
    assert {row["task"] for row in done.metrics} == set(LAYERS)
    assert set(record["costs"]) == set(LAYERS)
    assert record["metrics"]["question"] == "f1"
    again = api.run("layers", bench.settings("train.epochs=1", *changes), bench.runs)
    assert again.texts_run == 0
    assert [row["value"] for row in again.metrics] == [row["value"] for row in done.metrics]


@pytest.mark.parametrize("verb", [api.ablate, api.study])
def test_layers_of_several_tasks_are_run_and_nothing_else(verb, bench):
    with pytest.raises(InputError, match="recipe 'layers' trains layers on 6 tasks: 'run' it"):
        verb("layers", bench.settings(), runs=bench.runs)


def test_stage_one_alone_runs_the_texts_of_every_task(bench):
    changes = [f"tasks.{task}.{change}" for task, some in LAYERS.items() for change in some]
    corpora, stored = api.extract("layers", bench.settings(*changes))
    assert [corpus.name for corpus in corpora] == [some[0].split("=")[1] for some in LAYERS.values()]
    assert sum(one.texts_run for one in stored) >= len({text for corpus in corpora for text in corpus.texts})
