"""Tasks that learnt together answer together: every one that can read what is asked, or the one that is named."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open

from permafrost import api
from permafrost.data.corpora.records import CorpusError
from permafrost.probes.prediction.predictor import Predictor
from permafrost.probes.results.run_folder import RunError
from permafrost.probes.runs.load import load_tasks
from tests.support.bench import Bench, pairs, write
from tests.support.damage import loaded, outcomes
from tests.support.marks import slow_but_first

OWN = '[probe]\nlayers = [-1]\nencoder = "none"\nmixer = "last"\n[train]\nbatch_rows = 8\n'
MESSAGES = """
[tasks.topic.corpus]
path = "{path}"
columns = ["sentence", "topic"]
target = "class"
[tasks.tone.corpus]
path = "{path}"
columns = ["sentence", "tone"]
target = "class"
"""
READING = """
[tasks.ner]
corpus = {{ name = "samples-tags", limits = {{ train = 12, validation = 6, test = 6 }} }}
plan = {{ max_tokens = 60 }}
[tasks.qa]
corpus = {{ name = "samples-questions", limits = {{ train = 12, validation = 6, test = 6 }} }}
plan = {{ max_tokens = 48, truncation = "windows", stride = 8 }}
"""
PAIRED = """
[tasks.like.corpus]
path = "{pairs}"
columns = ["first", "second", "score"]
target = "score"
[tasks.topic.corpus]
path = "{path}"
columns = ["sentence", "topic"]
target = "class"
"""
TOKENS = ["plan.views=tokens", "probe.center=false", "multitask.schedule=round_robin"]
KEEPING = {
    "messages": (MESSAGES, ["multitask.schedule=joint", "finetune.cut=1"]),
    "frozen": (MESSAGES, ["multitask.schedule=joint"]),
    "reading": (READING, [*TOKENS, "multitask.keep=one", "finetune.cut=2"]),
    "one state": (MESSAGES, ["multitask.schedule=joint", "finetune.cut=1", "multitask.keep=one", "train.seeds=0,1,2"]),
    "paired": (PAIRED, ["multitask.schedule=round_robin", "finetune.cut=none"]),
}
QUESTION = ("Who slept near the stove?", "In winter the small dog sleeps; it is 8,848.86 metres, near a stove.")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory, tiny):
    """Name of a recipe above -> a bench and the folder of its run, made once."""
    made = {}

    def folder(name):
        if name not in made:
            bench = Bench(tmp_path_factory.mktemp(name), tiny("bert"))
            rows = [
                (row[0], "same" if row[2] > 0.4 else "other", "long" if len(row[0].split()) > 3 else "short", row[3])
                for row in pairs()
            ]
            path = write(bench.folder / "own.csv", ["sentence", "topic", "tone", "split"], rows)
            scored = write(bench.folder / "pairs.csv", ["first", "second", "score", "split"], pairs())
            tasks, more = KEEPING[name]
            (bench.folder / "own.toml").write_text(OWN + tasks.format(path=path, pairs=scored), "utf-8")
            exact = ["plan.stored_dtype=float32", "train.epochs=2", "train.learning_rate=0.02"]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
                patch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
                settings = bench.settings(*exact, *more)
                made[name] = bench, api.run(str(bench.folder / "own.toml"), settings, bench.runs).path
        return made[name]

    return folder


def table_of(folder, task):
    return pd.read_csv(folder / "tasks" / task / "predictions.csv", keep_default_na=False)


def seed_of(folder, task):
    with safe_open(folder / "tasks" / task / "probe.safetensors", "pt") as file:
        (seed,) = json.loads(file.metadata()["about"])["seeds"]
    return seed


def shares_of(answers, label):
    return [one["probabilities"][label] for one in answers]


def told(bench, folder, *words):
    code, out, err = bench.command("predict", str(folder), *words)
    assert code == 0, err
    return out


def refused(bench, folder, *words, exit_code=2):
    code, out, err = bench.command("predict", str(folder), *words)
    assert (code, out, err.count("\n")) == (exit_code, "", 1)
    return err


@pytest.mark.parametrize("name", slow_but_first(["messages", "frozen", "one state"]))
def test_every_task_answers_as_the_run_did(name, run_of):
    _, folder = run_of(name)
    tables = {task: table_of(folder, task) for task in ("topic", "tone")}
    answers = api.load(folder).predict(tables["topic"]["sentence"].tolist()[:15])
    assert [list(one) for one in answers] == [["tasks"]] * 15
    tables = {task: table[table["seed"] == seed_of(folder, task)] for task, table in tables.items()}
    for task, label in (("topic", "same"), ("tone", "long")):
        said = [one["tasks"][task] for one in answers]
        assert [one["label"] for one in said] == tables[task]["label"].tolist()
        np.testing.assert_allclose(shares_of(said, label), tables[task][f"probability_{label}"], atol=1e-4)
        assert api.load(folder, task).predict(tables[task]["sentence"].tolist()) == said


def test_tasks_of_tokens_answer_as_the_run_did(run_of):
    _, folder = run_of("reading")
    table = table_of(folder, "qa")
    answers = api.load(folder).predict(list(zip(table["question"], table["context"], strict=True)))
    said = pd.DataFrame([one["answer"] for one in answers])
    assert said["text"].tolist() == table["answer"].tolist()
    np.testing.assert_allclose(said["score"], table["score"], atol=1e-4)
    (found,) = api.load(folder).predict("The dog runs.")
    assert list(found) == ["entities"]


def test_each_item_is_answered_by_the_tasks_that_read_as_many_texts(run_of):
    _, folder = run_of("paired")
    table = table_of(folder, "like")
    items = [*zip(table["sentence1"], table["sentence2"], strict=True), "the dog", ("a small dog",)]
    answers = api.load(folder).predict(items)
    assert [list(one) for one in answers] == [["score", "raw"]] * 15 + [["label", "probabilities"]] * 2
    np.testing.assert_allclose([one["score"] for one in answers[:15]], table["score"], atol=1e-4)
    assert api.load(folder, "topic").predict(["the dog", "a small dog"]) == answers[15:]
    for wrong, message in (
        (
            [("a", "b"), ("a", "b", "c")],
            r"item 2: this run reads two texts \(like\) or one text \(topic\) an item, got 3",
        ),
        (["a", ("b", " ")], "item 2: the second text is empty"),
        ([("a", "b"), "\t"], "item 2: the text is empty"),
    ):
        with pytest.raises(CorpusError, match=message):
            api.load(folder).predict(wrong)


def test_one_task_is_asked_by_its_name(run_of):
    bench, folder = run_of("messages")
    both = json.loads(told(bench, folder, "the dog runs", "it sleeps", "--json"))["predictions"]
    for task in ("topic", "tone"):
        one = json.loads(told(bench, folder, "the dog runs", "it sleeps", "--task", task, "--json"))["predictions"]
        assert one == [answer["tasks"][task] for answer in both]
    assert "has no task 'tpic'. Did you mean 'topic'?" in refused(bench, folder, "the dog", "--task", "tpic")
    with pytest.raises(RunError, match="It has one task without a name: leave --task out"):
        load_tasks(folder / "tasks" / "topic", "topic")
    with pytest.raises(RunError, match=r"is no finished run: there is no such folder"):
        load_tasks(folder / "nowhere", "topic")


def test_texts_of_the_command_line_go_to_the_tasks_that_they_can_be_meant_for(run_of):
    bench, folder = run_of("reading")
    code, out, err = bench.command("predict", str(folder), "The dog runs.", "--json")
    assert (code, err) == (0, "left out, because they read other inputs: qa\n")
    assert [list(one) for one in json.loads(out)["predictions"]] == [["entities"]]
    message = "2 texts: an item may be one text (ner) or a question and its context (qa); name the task with --task."
    assert message in refused(bench, folder, *QUESTION)
    (one,) = json.loads(told(bench, folder, *QUESTION, "--task", "qa", "--json"))["predictions"]
    assert QUESTION[1][one["answer"]["start"] : one["answer"]["end"]] == one["answer"]["text"]
    assert len(json.loads(told(bench, folder, *QUESTION, "--task", "ner", "--json"))["predictions"]) == 2


def test_a_file_is_answered_by_the_tasks_whose_columns_it_has(run_of, tmp_path):
    bench, folder = run_of("reading")
    files = {
        ("sentence",): ["entities"], ("question", "context"): ["answer"],
        ("sentence", "question", "context"): ["tasks"], ("id", "context", "question", "text"): ["tasks"],
    }  # fmt: skip
    for columns, fields in files.items():
        texts = {"question": QUESTION[0], "context": QUESTION[1], "id": "7"}
        path = write(tmp_path / "a.csv", columns, [[texts.get(name, "The dog runs.") for name in columns]])
        (one,) = json.loads(told(bench, folder, "--file", str(path), "--json"))["predictions"]
        assert list(one) == fields
    assert {task: list(said) for task, said in one["tasks"].items()} == {"ner": ["entities"], "qa": ["answer"]}
    path = write(tmp_path / "b.csv", ["words", "context"], [("a", "b")])
    expected = "expected the columns sentence or text or question, context; found words, context; name its"
    assert f"{path}:2: {expected}" in refused(bench, folder, "--file", str(path))


def test_targets_of_each_task_stand_beside_its_answer(run_of, tmp_path):
    bench, folder = run_of("messages")
    rows = [(1, "the dog runs", "same", ""), (2, "it sleeps", "other", "long")]
    path = write(tmp_path / "a.csv", ["id", "sentence", "topic", "tone"], rows)
    said = json.loads(told(bench, folder, "--file", str(path), "--json"))["predictions"]
    found = [{task: answer["target"] for task, answer in one["tasks"].items()} for one in said]
    assert found == [{"topic": "same", "tone": None}, {"topic": "other", "tone": "long"}]
    out = tmp_path / "out.csv"
    told(bench, folder, "--file", str(path), "--out", str(out))
    table = pd.read_csv(out, keep_default_na=False)
    assert list(table) == [
        "id", "sentence", "tone_target", "tone_label", "tone_probability_long", "tone_probability_short",
        "topic_target", "topic_label", "topic_probability_other", "topic_probability_same",
    ]  # fmt: skip
    assert table["tone_target"].tolist() == ["", "long"]
    assert table["tone_label"].tolist() == [one["tasks"]["tone"]["label"] for one in said]
    told(bench, folder, "--file", str(path), "--out", str(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert lines == [{"id": str(row[0]), "sentence": row[1]} | one for row, one in zip(rows, said, strict=True)]
    shown = told(bench, folder, "--file", str(path)).splitlines()
    assert shown[0].split() == ["sentence", *(f"{task}_{key}" for task in ("tone", "topic") for key in
                                              ("target", "label", "probabilities"))]  # fmt: skip
    assert len(shown) == 3
    write(path, ["sentence", "tone"], [("the dog", "loud")])
    code, _, err = bench.command("predict", str(folder), "--file", str(path))
    assert code == 0
    assert f"carried along: {path}:2: unknown label 'loud' in column 'tone'" in err


def test_a_row_of_several_texts_is_shown_and_written_with_a_line_for_each_entity(run_of, tmp_path, monkeypatch):
    bench, folder = run_of("reading")
    names = [
        {"text": text, "start": start, "end": start + 3, "label": "PER", "probability": 0.5}
        for text, start in (("Ann", 0), ("Bob", 8))
    ]
    answer = {"text": "dog", "start": 4, "end": 7, "score": 0.25}

    def predict_task(self, task, items, progress, locations):
        is_answer = self.tasks[task].kind == "answers"
        return [{"answer": answer}] * 2 if is_answer else [{"entities": names}, {"entities": []}]

    monkeypatch.setattr(Predictor, "predict_task", predict_task)
    rows = [("Ann met Bob", "Who?", "The dog."), ("No", "What?", "A dog.")]
    path, out = write(tmp_path / "a.csv", ["text", "question", "context"], rows), tmp_path / "out.csv"
    told(bench, folder, "--file", str(path), "--out", str(out))
    assert out.read_text("utf-8").splitlines() == [
        "text,question,context,item,ner_entity,ner_label,ner_start,ner_end,ner_probability,"
        "qa_answer,qa_start,qa_end,qa_score",
        "Ann met Bob,Who?,The dog.,1,Ann,PER,0,3,0.5,dog,4,7,0.25",
        "Ann met Bob,Who?,The dog.,1,Bob,PER,8,11,0.5,,,,",
        "No,What?,A dog.,2,,,,,,dog,4,7,0.25",
    ]
    shown = [line.split() for line in told(bench, folder, "--file", str(path)).splitlines()]
    assert shown[0][:3] == ["text", "question", "ner_entity"]
    assert [line[:1] for line in shown[1:]] == [["Ann"], ["Bob"], ["No"]]


@pytest.mark.parametrize(("name", "most"), [("frozen", 1), ("reading", 1), ("messages", 2)])
def test_a_backbone_that_tasks_have_in_common_is_loaded_once(name, most, run_of, monkeypatch):
    from permafrost.extract import loader

    _, folder = run_of(name)
    runs, loads, load = load_tasks(folder), [], loader.load_backbone
    if most == 2:  # as if each task had left blocks of its own
        backbone_key = "permafrost.probes.objectives.fitted.LoadedRun.backbone_key"
        monkeypatch.setattr(backbone_key, lambda self, plan: (self.path.name,))
    monkeypatch.setattr(loader, "load_backbone", lambda *some: loads.append(some) or load(*some))
    predictor = api.load(folder)
    said = predictor.predict(["the dog runs"] + [QUESTION] * (name == "reading"))
    predictor.predict("it sleeps")
    assert len(runs) == 2
    assert len(loads) == most
    assert len({run.backbone_key("") for run in runs.values()}) == most
    if name == "reading":  # whose tasks read it by different plans
        assert [
            api.load(folder, "ner").predict("the dog runs")[0],
            *api.load(folder, "qa").predict([QUESTION]),
        ] == said


def test_tasks_that_keep_one_state_leave_its_blocks_once_and_go_where_the_run_goes(run_of, tmp_path):
    bench, whole = run_of("one state")
    assert seed_of(whole, "topic") == seed_of(whole, "tone")
    assert [path.relative_to(whole) for path in whole.rglob("model.safetensors")] == [
        Path("backbone/model.safetensors")
    ]
    assert {run.backbone_folder for run in load_tasks(whole).values()} == {whole / "backbone"}
    folder = Path(shutil.copytree(whole, tmp_path / "elsewhere" / "run"))
    assert told(bench, folder, "the dog runs", "--json") == told(bench, whole, "the dog runs", "--json")
    (folder / "backbone" / "model.safetensors").unlink()
    err = refused(bench, folder, "the dog", exit_code=3)
    assert f"{folder}: its fine-tuned blocks: backbone/model.safetensors is not there; copy the whole run again" in err
    alone = shutil.copytree(whole / "tasks" / "tone", tmp_path / "far" / "away" / "tone")
    assert "the folder 'backbone' that has them is not there; copy the whole run again" in refused(
        bench, alone, "the dog", exit_code=3
    )


@pytest.mark.parametrize("name", ["tasks", "tasks/tone"])
def test_a_task_that_is_a_link_is_refused(name, run_of, tmp_path):
    bench, whole = run_of("frozen")
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    (folder / name).rename(tmp_path / "moved")
    (folder / name).symlink_to(tmp_path / "moved")
    assert f"{folder / name} is a link; a run folder holds its files itself." in refused(bench, folder, "the dog")


@pytest.mark.parametrize("name", ["messages", "one state"])
def test_no_flipped_bit_of_a_task_or_of_its_blocks_changes_an_answer(name, run_of, tmp_path):
    folder = Path(shutil.copytree(run_of(name)[1], tmp_path / "run"))
    shutil.rmtree(folder / "figures", ignore_errors=True)
    counted = outcomes(folder, 60, loaded)
    assert counted["loaded refused"] > 20


def test_a_task_of_another_run_or_that_is_gone_is_named(run_of, tmp_path):
    bench, whole = run_of("messages")
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(folder / "tasks" / "tone")
    assert f"{folder}/tasks/tone/record.json is missing" in refused(bench, folder, "the dog", exit_code=3)
    shutil.copytree(whole / "tasks" / "topic", folder / "tasks" / "tone")
    assert "tasks/tone/record.json is not as the run wrote it" in refused(bench, folder, "the dog", exit_code=3)
    shutil.rmtree(folder / "tasks")
    assert "record.json is missing" in refused(bench, folder, "the dog", exit_code=3)
    folder = Path(shutil.copytree(whole, tmp_path / "other"))
    shutil.copytree(folder / "tasks" / "tone", folder / "tasks" / "third")
    assert "tasks/third was not written by the run" in refused(bench, folder, "the dog", exit_code=3)


def test_a_task_that_was_damaged_is_named(run_of, tmp_path):
    bench, whole = run_of("messages")
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "tasks" / "tone" / "backbone" / "model.safetensors").unlink()
    err = refused(bench, folder, "the dog", exit_code=3)
    assert f"{folder}/tasks/tone: its fine-tuned blocks: backbone/model.safetensors is not there" in err
    assert told(bench, folder, "the dog", "--task", "topic")
