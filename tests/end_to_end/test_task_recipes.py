"""The recipes of every task, each from its sample corpus to a run folder that answers new texts."""

import json

import pandas as pd
import pytest

import tests.end_to_end.test_pretrain as test_pretrain_command
from permafrost import api
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.errors import InputError
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.registry import SAMPLES
from permafrost.probes.config.load import load_recipe
from permafrost.probes.metrics import bootstrap
from permafrost.probes.metrics.squad import exact_match, token_f1
from permafrost.probes.reports.compare import comparison
from permafrost.probes.reports.report import result_grids
from permafrost.probes.results.read_result import read_result
from permafrost.probes.tasks.registry import TASKS
from tests.support.bench import Bench
from tests.support.marks import slow_but_first
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


@pytest.mark.parametrize("name", slow_but_first(SMALL))
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_gpt2_from_scratch_climbs_the_ladder_of_freeze_sts(bench, monkeypatch, trained_only):
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    model = api.pretrain("gpt-small", test_pretrain_command.small(bench, "blocks=3"), bench.runs).model.folder
    changes = ["corpus.name=samples-pairs", "corpus.limits={train=24,validation=12,test=12}", "train.epochs=1"]
    changes += ["pretraining.corpus.name=samples-sentences", "pretraining.corpus.limit=20", f"plan.backbone={model}"]
    done = api.run("freeze-sts", bench.settings(*changes, "pretraining.train.epochs=1"), bench.runs)
    untrained = {"raw", "raw (prompt-eol)"}
    assert {row["variant"] for row in done.metrics} == {*untrained, *load_recipe("freeze-sts")[1].variant_recipes()}
    assert {row["backbone"] for row in done.metrics} == {str(model)}


@pytest.fixture(scope="module")
def tagged(tmp_path_factory, tiny):
    """What the command prints of a run of the recipe ner, and its folder."""
    bench = Bench(tmp_path_factory.mktemp("tagged"), tiny("bert"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", bootstrap.CHUNK)
        code, out, err = bench.command("run", "ner", settings=bench.settings(*SMALL["ner"][0]))
    assert code == 0, err
    return out, next(bench.runs.iterdir())


def test_what_a_tagger_says_of_the_test_split_is_what_its_figures_count(tagged):
    _, folder = tagged
    said = pd.read_csv(folder / "predictions.csv", keep_default_na=False)
    share = (said["label"] == said["target"]).mean()
    (accuracy,) = (
        row["value"]
        for row in read_result(folder).metrics
        if (row["variant"], row["split"], row["metric"], row["seed"]) == ("probe", "test", "accuracy", None)
    )
    assert accuracy == pytest.approx(share)
    assert said["sentence"].nunique() == 20
    (grid,) = result_grids(folder)
    metrics = ("F1", "precision", "recall", "accuracy")
    assert grid.heads[2:-3] == [
        f"{metric} on {split}" for split in ("test", "validation") for metric in metrics  # a part of train chose
    ]  # fmt: skip
    assert grid.heads[-3:] == ["trained", "took", "memory"]
    assert [line[0] for line in grid.rows] == ["raw", "probe"]


def test_a_held_out_part_that_chose_is_named_and_tagged_sentences_are_called_by_what_they_hold(tagged):
    out, folder = tagged
    assert "chosen on held-out: probe" in out
    assert "Chosen on held-out by f1." in (folder / "report.html").read_text("utf-8")
    labels = set(pd.read_csv(folder / "latents.csv", keep_default_na=False)["label"])
    assert len(labels) > 2
    assert labels <= {"PER", "ORG", "LOC", "MISC", "no entity", "several types"}


def test_every_predicted_answer_is_a_substring_of_its_context_and_its_figures_are_those_of_the_table(bench, quick):
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


@pytest.mark.slow
def test_questions_without_an_answer_are_learnt_and_answered_by_a_threshold_of_validation(bench, tmp_path):
    content = json.loads((SAMPLES / "questions.json").read_text("utf-8"))
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    for number, item in enumerate(item for paragraph in paragraphs for item in paragraph["qas"]):
        item.update({"is_impossible": True, "answers": []} if number % 3 == 0 else {})
    (tmp_path / "two.json").write_text(json.dumps(content), "utf-8")
    corpus = ["corpus.name=", f"corpus.path={tmp_path / 'two.json'}", "corpus.target=answers"]
    done = api.run("qa", bench.settings(*SMALL["qa"][0], *corpus), bench.runs)
    told = pd.read_csv(done.path / "predictions.csv", keep_default_na=False)
    assert (told["target"] == "").any()
    assert ((told["answer"] != "") == told["has_answer"]).all()
    right = told["exact_match"][told["target"] == ""]
    assert (right == (told["answer"][told["target"] == ""] == "")).all()
    by_answer = pd.read_csv(done.path / "breakdown.csv").query("split == 'test' and kind == 'answer'")
    (row,) = by_answer.query("group == 'no answer' and metric == 'exact_match'").itertuples()
    assert (row.n, row.value) == (len(right), pytest.approx(right.mean()))
    run = api.load(done.path)
    again = pd.DataFrame(
        [one["answer"] for one in run.predict(list(told[["question", "context"]].itertuples(index=False, name=None)))]
    )
    assert again["text"].tolist() == told["answer"].tolist()
    assert again["has_answer"].tolist() == told["has_answer"].tolist()
    assert again["null_score"].tolist() == pytest.approx(told["null_score"].tolist(), abs=1e-2)
    assert "gold is no answer" in Page((done.path / "report.html").read_text("utf-8")).text


ABROAD = {"zh": "野马队在{}年赢了比赛，他们很高兴。", "ar": "فاز الفريق في القاهرة عام {}، وهم سعداء."}


@pytest.mark.parametrize("language", slow_but_first(ABROAD))
def test_one_file_of_xquad_is_split_and_answered_in_its_language(bench, tmp_path, language, quick):
    items = []
    for year in range(1990, 2014):
        context = ABROAD[language].format(year)
        gold = {"zh": "野马队", "ar": "القاهرة"}[language] if year % 2 else str(year)
        answer = {"text": gold, "answer_start": context.index(gold)}
        items.append(
            {"context": context, "qas": [{"id": str(year), "question": "؟" * (year % 9 + 1), "answers": [answer]}]}
        )
    path = tmp_path / f"xquad.{language}.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": items}]}), "utf-8")
    changes = [*SMALL["qa"][0], "corpus.name=", f"corpus.path={path}", "corpus.target=answers", "corpus.limits={}"]
    done = api.run("qa", bench.settings(*changes), bench.runs)
    told = pd.read_csv(done.path / "predictions.csv", keep_default_na=False, dtype={"answer": str, "target": str})
    assert len(told) > 0
    for row in told.itertuples():
        assert row.answer == row.context[row.start : row.end]
        assert row.f1 == pytest.approx(token_f1(row.answer, row.target, "", language))
    (note,) = load_corpus(CorpusSpec(path=str(path), target="answers")).notes
    rules = f"MLQA's rules for '{language}', as the name {path.name} says"
    assert note == f"answers are compared by {rules}; corpus.language sets others"


@pytest.mark.slow
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


@pytest.mark.slow
def test_passages_are_ranked_by_a_run_that_is_compared_by_query_and_ranks_new_ones(bench, monkeypatch):
    done = api.run("rank", bench.settings("train.seeds=0"), bench.runs)
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    again = api.run("rank", bench.settings("train.seeds=1", "train.epochs=1"), bench.runs)
    rows = pd.DataFrame(done.metrics)
    assert {"raw", "weights", "lowrank"} <= set(rows["variant"])
    assert set(rows.loc[rows["variant"] == "raw", "split"]) == {"train", "validation", "test"}
    test = rows[(rows["split"] == "test") & (rows["variant"] == done.selected) & rows["seed"].isna()]
    assert dict(zip(test["metric"], test["n"], strict=True)) == dict.fromkeys(TASKS["rank"].metrics, 8)
    table = pd.read_csv(done.path / "predictions.csv")
    assert list(table) == ["query", "passage", "target", "score", "rank", "seed"]
    assert table.groupby("query")["rank"].apply(sorted).tolist() == [[1, 2, 3, 4]] * 9
    page = Page((done.path / "report.html").read_text("utf-8"))
    assert "over queries" in page.text
    assert not {"nan", "None"} & set(page.text.split())
    compared = comparison([done.path, again.path])
    assert compared["n"].tolist() == [8, 8]
    assert compared["difference"].notna().tolist() == [False, True]

    file, out = bench.folder / "asked.csv", bench.folder / "ranked.csv"
    table[["passage", "query"]].head(8).to_csv(file, index=False)
    code, _, err = bench.command("predict", str(done.path), "--file", str(file), "--out", str(out), settings=[])
    assert code == 0, err
    answered = pd.read_csv(out)
    assert answered["rank"].tolist() == table["rank"].head(8).tolist()
    assert answered["score"].to_numpy() == pytest.approx(table["score"].head(8).to_numpy(), abs=1e-4)
