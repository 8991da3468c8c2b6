"""Finished runs on labelled data: their own figures again, and those of data from elsewhere."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import permafrost as pf
from permafrost import api
from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress
from permafrost.probes.reports.report import result_grids, write_report
from tests.conftest import leave_out_raw
from tests.support.bench import Bench, pairs, write
from tests.support.damage import resealed

pytestmark = pytest.mark.usefixtures("quick", "trained_only")

MEASURED = ("value", "low", "high", "n")

MEAN = ("train.seeds=0,1", "train.average=true")
KINDS = {
    "classes in float16": ("classify", "topics", ["plan.stored_dtype=float16", "train.seeds=0"]),
    "classes in bfloat16, seeds averaged": ("classify", "topics", ["plan.stored_dtype=bfloat16", *MEAN]),
    "scores, seeds averaged": ("pairs", "pairs", [*MEAN]),
    "scores, the best of two seeds": ("pairs", "pairs", ["train.seeds=0,1"]),
    "two plans": ("pairs", "pairs", ["plans.loud.template={text} !", "probe.inputs=mean,loud/mean:-1"]),
    "labels": ("multilabel", "samples-labels", []),
    "tags": ("ner", "samples-tags", []),
    "answers": ("qa", "samples-questions", ["plan.stride=8"]),
    "ranks": ("rank", "samples-ranking", []),
}


QUICK = ("classes in bfloat16, seeds averaged", "scores, the best of two seeds")


@pytest.mark.parametrize(
    "name", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in KINDS]
)
def test_a_run_on_its_own_test_split_has_its_own_figures_to_the_last_digit(name, tmp_path, tiny):
    recipe, corpus, more = KINDS[name]
    bench = Bench(tmp_path, tiny("bert"))
    own = {"topics": bench.of_topics, "pairs": bench.of_pairs}.get(corpus)
    settings = own(*more) if own else bench.settings(f"corpus.name={corpus}", "corpus.path=", *more)
    done = api.run(recipe, settings, bench.runs)
    result = pf.evaluate(done.path, folder=bench.runs)
    assert result.selected == done.selected
    assert result.texts_run == 0
    before, again = _figures(done), _figures(result)
    alone = len({seed for _, _, seed in before}) <= 2 or "train.average=true" in more
    compared = [key for key in again if alone or key[-1] is not None]
    assert compared
    assert {key: again[key] for key in compared} == {key: before[key] for key in compared}


def _figures(result):
    """Metric, layer and seed -> the figures of the chosen variant on the test split."""
    return {
        (row["metric"], row["layer"], row["seed"]): [row[name] for name in MEASURED]
        for row in result.metrics
        if row["split"] == "test" and row["variant"] == result.selected
    }


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, tiny):
    """Two runs of classes on corpora of their own, and a third set, whose labels have other names."""
    bench = Bench(tmp_path_factory.mktemp("two"), tiny("bert"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        leave_out_raw(patch)
        first = api.run("classify", bench.of_topics(), bench.runs)
        second = api.run("classify", bench.of_topics("plan.views=cls"), bench.runs)
    rows = [(row[0], "SAME" if row[2] > 0.4 else "other") for row in pairs(seed=3)]
    return bench, first, second, write(bench.folder / "third.csv", ["sentence", "label"], rows)


def test_runs_and_data_make_a_transfer_matrix_with_paired_tests_and_a_page(two_runs):
    bench, first, second, third = two_runs
    own = bench.folder / "topics1.csv"
    words = ["evaluate", str(first.path), str(second.path), "--data", str(own), "--data", str(third)]
    code, out, err = bench.command(*words, "--label-map", "SAME=same", "--runs", str(bench.runs), "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["selected"] == ""
    values = {
        (row["variant"], row["corpus"], row["metric"]): row["value"]
        for row in result["metrics"]
        if row["seed"] is None and not row["against"]
    }
    names = [run.path.name for run in (first, second)]
    for run, name in zip((first, second), names, strict=True):
        of_run = {row["metric"]: row["value"] for row in run.metrics
                  if row["variant"] == run.selected and row["split"] == "test" and row["seed"] is None}  # fmt: skip
        assert {metric: values[name, own.name, metric] for metric in of_run} == of_run
        assert 0 <= values[name, third.name, "accuracy"] <= 1
    differences = {row["corpus"]: row for row in result["metrics"] if row["against"]}
    assert set(differences) == {own.name, third.name}
    for corpus, row in differences.items():
        assert (row["variant"], row["against"]) == (names[1], names[0])
        assert row["value"] == pytest.approx(
            values[names[1], corpus, row["metric"]] - values[names[0], corpus, row["metric"]]
        )
        assert 0 < row["p"] <= 1
    folder = bench.folder / result["run"]
    (matrix, comparisons) = result_grids(folder)
    assert [line[0] for line in matrix.rows] == names
    assert list(matrix.heads) == ["run", own.name, third.name]
    assert len(comparisons.rows) == 2
    record = json.loads((folder / "record.json").read_text("utf-8"))
    assert [about["rows"] for about in record["evaluations"].values()] == [15, 70, 15, 70]
    page = write_report(folder).read_text("utf-8")
    assert (folder / "figures" / "transfer.svg").is_file()
    assert f"{names[0]} on {third.name}" in page


def test_tables_are_data_sets_of_their_own_and_a_run_that_is_named_twice_counts_once(two_runs):
    bench, first, _, third = two_runs
    table = pd.read_csv(third)
    result = pf.evaluate(
        [first.path, str(first.path)], [table, table[:40]], label_map={"SAME": "same"}, folder=bench.runs
    )
    assert {row["corpus"] for row in result.metrics} == {"data", "data (2)"}
    assert not any(row["against"] for row in result.metrics)
    assert {row["corpus"]: row["n"] for row in result.metrics} == {"data": 70, "data (2)": 40}


@pytest.mark.parametrize(
    ("rows", "given", "message"),
    [(70, {"SAEM": "same"}, "no row that is evaluated has the label 'SAEM'"), (1, {}, "need more rows .* than 1")],
)
def test_a_map_that_nothing_uses_and_a_single_row_are_refused(two_runs, rows, given, message):
    bench, first, _, third = two_runs
    table = pd.read_csv(third).sort_values("label", ascending=False)[:rows]
    with pytest.raises(InputError, match=message):
        pf.evaluate(first.path, table, label_map=given, folder=bench.runs)


def test_a_named_evaluation_is_done_until_a_label_a_row_or_the_run_is_another(two_runs, monkeypatch):
    bench, first, second, third = two_runs
    table = pd.read_csv(third)
    asked = {"label_map": {"SAME": "same"}, "folder": bench.runs, "name": "elsewhere"}
    done = pf.evaluate(first.path, str(third), **asked)
    assert done.path == bench.runs / "elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr("permafrost.evaluation.evaluate_runs", None)
        assert pf.evaluate(first.path, str(third), **asked).metrics == done.metrics
        words = ["evaluate", str(first.path), "--data", str(third), "--label-map", "SAME=same", "--name", "elsewhere"]
        code, out, err = bench.command(*words, "--runs", str(bench.runs), "--json", "--if-done", "skip")
        assert (code, json.loads(out)["metrics"]) == (0, done.metrics), err
        for more, message in [
            ({"if_done": "fail"}, "is done; use --if-done"),
            ({"label_map": {"SAME": "other"}}, "label_map.SAME = .*same.* there, .*other.* here"),
            ({"label_map": {}, "data": str(bench.folder / "topics1.csv")}, "is another run"),
        ]:
            with pytest.raises(InputError, match=message):
                pf.evaluate(first.path, **{"data": str(third)} | asked | more)
        with pytest.raises(InputError, match="is another run"):
            pf.evaluate(second.path, str(third), **asked)
    table[:-1].to_csv(third, index=False)
    try:
        with pytest.raises(InputError, match=r"rows of .* on third.csv.*--if-done again"):
            pf.evaluate(first.path, str(third), **asked)
        again = pf.evaluate(first.path, str(third), **asked, if_done="again")
    finally:
        table.to_csv(third, index=False)
    assert again.path == done.path
    assert again.metrics != done.metrics


def test_rows_of_pairs_that_the_run_was_trained_on_are_counted(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    done = api.run("pairs", bench.of_pairs("train.seeds=0"), bench.runs)
    notes = []
    progress = NoProgress()
    progress.note = notes.append
    pf.evaluate(done.path, split="train", folder=bench.runs, progress=progress)
    assert any("have the same texts as a training row of the run" in note for note in notes)


def test_a_single_evaluation_has_the_page_of_a_run_and_counts_what_is_left_out(two_runs):
    bench, first, _, third = two_runs
    result = api.load(first.path).evaluate(str(third), folder=bench.runs)
    table = pd.read_csv(result.path / "predictions.csv")
    others = sum(row[2] <= 0.4 for row in pairs(seed=3))
    assert set(table["target"]) == {"other"}
    assert len(table) == others
    assert len(pd.read_csv(result.path / "skipped.csv")) == 70 - others
    page = write_report(result.path).read_text("utf-8")
    assert f"{70 - others}" in page
    assert "Confusion" in page
    shown = " ".join(result._repr_html_().split())
    value = next(row for row in result.metrics if row["metric"] == "accuracy" and row["variant"] == result.selected)[
        "value"
    ]
    for tiles in (page, shown):
        assert "accuracy on test" in tiles
        assert f"{value:.3f}" in tiles


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("pairs.csv", {}, "has targets of the kind 'score', and .* predicts 'class'"),
        ("missing.csv", {}, "there is no such file or folder"),
        ("third.csv", {"split": "trian"}, "Did you mean 'train'"),
        ("third.csv", {"overrides": ["plan.views=cls"]}, "sets device, and keys of corpus and extract"),
        ("third.csv", {"backbone": "nowhere/at-all"}, "nowhere/at-all"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_a_line_that_names_both_sides(two_runs, data, more, message):
    bench, first, _, _ = two_runs
    bench.of_pairs()
    with pytest.raises(InputError, match=message):
        pf.evaluate(first.path, str(bench.folder / data), folder=bench.runs, **more)


def test_a_run_that_was_copied_to_a_machine_without_its_cache_finds_its_backbone_in_another_place(tmp_path, tiny):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny("bert"), here / "model")
    bench = Bench(here, here / "model")
    done = api.run(
        "classify", bench.of_topics("plans.loud.template={text} !", "probe.inputs=mean,loud/mean"), bench.runs
    )
    texts = [row[0] for row in pairs(seed=5)][:4]
    before = api.load(done.path).predict(texts)
    shutil.copytree(done.path, there / "run")
    shutil.move(here / "model", there / "elsewhere")
    shutil.move(here / "topics1.csv", there / "data.csv")
    shutil.rmtree(here)
    data, cache = str(there / "data.csv"), [f"extract.cache={there / 'cache'}"]

    with pytest.raises(InputError, match="--backbone"):
        api.load(there / "run").predict(texts)
    with pytest.raises(InputError, match="has other weights"):
        api.load(there / "run", backbone=str(tiny("bert", 48)))
    predictor = api.load(there / "run", backbone=str(there / "elsewhere"))
    assert [answer["label"] for answer in predictor.predict(texts)] == [answer["label"] for answer in before]
    result = predictor.evaluate(data, folder=there / "runs", overrides=cache)
    assert result.texts_run > 0
    own = {
        row["metric"]: row["value"]
        for row in done.metrics
        if row["variant"] == done.selected and row["split"] == "test"
    }
    again = {row["metric"]: row["value"] for row in result.metrics if row["variant"] == done.selected}
    assert again == pytest.approx(own)


@pytest.fixture
def at_temperatures(two_runs, tmp_path):
    """The first run at temperature 2, and as if it had been written before there was a temperature."""
    _, first, _, _ = two_runs
    made = []
    for name, own in [("hot", {"calibration.temperature": torch.tensor([2.0], dtype=torch.float64)}), ("old", {})]:
        path = shutil.copytree(first.path, tmp_path / name) / "probe.safetensors"
        with safe_open(path, "pt") as file:
            about = file.metadata()
        tensors = load_file(path)
        assert tensors.pop("calibration.temperature").shape == (1,)
        save_file(tensors | own, path, about)
        made.append(resealed(path.parent))
    return made


def test_a_run_from_before_the_temperature_predicts_and_is_evaluated_at_temperature_1(two_runs, at_temperatures):
    bench, _, _, third = two_runs
    texts = [row[0] for row in pairs(seed=5)][:6]
    hot, old = ([*api.load(path).predict(texts)] for path in at_temperatures)
    assert [answer["label"] for answer in hot] == [answer["label"] for answer in old]
    for first, second in zip(hot, old, strict=True):
        ratios = [np.log(each["same"] / each["other"]) for each in (first["probabilities"], second["probabilities"])]
        assert 2 * ratios[0] == pytest.approx(ratios[1], rel=1e-4)
    measured = [
        pf.evaluate(path, str(third), label_map={"SAME": "same"}, folder=bench.runs) for path in at_temperatures
    ]
    assert [row["value"] for row in measured[0].metrics] == [row["value"] for row in measured[1].metrics]
    stages = [set(pd.read_csv(each.path / "calibration.csv")["stage"]) for each in measured]
    assert stages == [{"uncalibrated", "calibrated"}, {"uncalibrated"}]


TWO_TASKS = """
[finetune]
cut = 2
[probe]
layers = [-1]
encoder = "none"
mixer = "last"
[multitask]
schedule = "joint"
[tasks.topic]
corpus = {{ path = "{0}/topics1.csv", columns = ["sentence", "label"], target = "class" }}
[tasks.closeness]
corpus = {{ path = "{0}/pairs.csv", columns = ["first", "second", "score"], target = "score" }}
"""


def test_a_run_of_several_tasks_is_evaluated_by_those_that_the_data_fit(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    bench.of_pairs()
    bench.of_topics()
    (tmp_path / "two.toml").write_text(TWO_TASKS.format(tmp_path))
    done = api.run(
        str(tmp_path / "two.toml"), bench.settings("train.epochs=1", "plan.stored_dtype=float32"), bench.runs
    )
    kinds = {"topics1.csv": ("topic", "accuracy"), "pairs.csv": ("closeness", "pearson")}
    for name, (task, metric) in kinds.items():
        other = shutil.copy(tmp_path / name, tmp_path / f"other-{name}")
        progress, notes = NoProgress(), []
        progress.note = notes.append
        result = pf.evaluate(done.path, str(other), folder=bench.runs, progress=progress)
        record = json.loads((result.path / "record.json").read_text("utf-8"))
        assert [about["task"] for about in record["evaluations"].values()] == [task]
        found = next(row for row in result.metrics if row["metric"] == metric and row["variant"] == result.selected)
        own = next(
            row
            for row in done.metrics
            if (row["task"], row["metric"], row["split"]) == (task, metric, "test")
            and row["variant"] == done.selected
            and row["seed"] is None
        )
        assert (found["n"], found["value"]) == (own["n"], pytest.approx(own["value"], abs=1e-5))
        assert [note.partition(":")[0] for note in notes if "left out" in note] == ["left out"]
    with pytest.raises(InputError, match="targets of the kind"):
        pf.evaluate(done.path, str(tmp_path / "other-pairs.csv"), task="topic", folder=bench.runs)


def test_a_fine_tuned_run_is_evaluated_through_its_own_folder_as_it_predicts(tmp_path, tiny):
    bench = Bench(tmp_path, tiny("bert"))
    settings = bench.of_topics("finetune.cut=2", "plan.views=tokens", "probe.inputs=mean:-1", "train.epochs=1")
    recipe = tmp_path / "own.toml"
    recipe.write_text("[train]\nseeds = [0]\n")
    done = api.run(str(recipe), [*settings, "corpus.target=class"], bench.runs)
    result = pf.evaluate(done.path, folder=bench.runs)
    table = pd.read_csv(result.path / "predictions.csv")
    answers = api.load(done.path).predict(table["sentence"].tolist())
    assert [answer["label"] for answer in answers] == table["label"].tolist()
    own, again = (
        {
            row["metric"]: row["value"]
            for row in each.metrics
            if row["variant"] == done.selected and row["split"] == "test"
        }
        for each in (done, result)
    )
    assert {name: value for name, value in own.items() if name in again} == pytest.approx(again)
