"""Predictions on files: which columns are read, what is refused at which line, and what is written."""

import gzip
import json
import os
import re
from dataclasses import replace

import pandas as pd
import pytest

from permafrost import api
from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import NoProgress
from permafrost.probes.config.names import PROBE
from permafrost.probes.prediction.output import write_predictions
from permafrost.probes.prediction.predictor import Predictor
from permafrost.probes.prediction.requests import PredictionRequest, requests_from_file
from tests.support.bench import Bench, pairs, write

OWN = '[probe]\nencoder = "none"\nmixer = "softmax"\n'


@pytest.fixture(scope="module")
def runs_of_kinds(tmp_path_factory, tiny):
    """A run of each kind of target on a tiny backbone: its folder by kind."""
    bench = Bench(tmp_path_factory.mktemp("kinds"), tiny("bert"))
    (bench.folder / "own.toml").write_text(OWN, "utf-8")
    rows = [(row[0], "same" if row[2] > 0.4 else "other", row[3]) for row in pairs()]
    own = write(bench.folder / "own.csv", ["first", "label", "split"], rows)
    tokens = ["plan.views=tokens", "train.epochs=1", "plan.max_tokens=48"]
    kinds = {
        "score": bench.of_pairs("corpus.target=score"),
        "class": bench.settings(f"corpus.path={own}", "corpus.columns=first,label", "corpus.target=class"),
        "named": bench.settings("corpus.name=samples-tones", "train.epochs=1"),
        "labels": bench.settings("corpus.name=samples-labels", "train.epochs=1"),
        "tags": bench.settings("corpus.name=samples-tags", *tokens),
        "answers": bench.settings("corpus.name=samples-questions", *tokens, "plan.truncation=windows", "plan.stride=8"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
        patch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
        recipe = str(bench.folder / "own.toml")
        return bench, {kind: api.run(recipe, some, bench.runs).path for kind, some in kinds.items()}


@pytest.fixture
def put(tmp_path):
    """Name and content -> a file."""

    def made(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return made


def requests_of(folder, path):
    """The items of a file for the single task of a run."""
    return requests_from_file(api.load(folder).tasks, path)[PROBE]


READ = {
    "its own columns": ("class", "a.csv", 'first,label\n"The dog, old",same\nIt,\n', ["The dog, old", "It"]),
    "sentence": ("class", "a.tsv", "id\tsentence\n7\tThe dog\n", ["The dog"]),
    "text": ("class", "a.jsonl", '{"text": "The dog"}\n\n{"text": "It", "more": 1}\n', ["The dog", "It"]),
    "lines": ("tags", "a.txt", "The dog.\n\nIt runs.\n", ["The dog.", "It runs."]),
    "gzip": ("named", "a.csv.gz", gzip.compress(b"sentence\nThe dog\n"), ["The dog"]),
    "a byte order mark": ("named", "a.csv", b"\xef\xbb\xbfsentence\nThe dog\n", ["The dog"]),
    "sentences": ("score", "a.csv", "sentence2,sentence1\nb,a\n", [("a", "b")]),
    "premise": ("score", "a.jsonl", '{"premise": "a", "hypothesis": "b"}', [("a", "b")]),
    "question": ("answers", "a.csv", 'context,question\n"The dog\nran.",Who?\n', [("Who?", "The dog\nran.")]),
}


@pytest.mark.parametrize("case", READ)
def test_the_texts_of_a_file_are_found_by_their_columns(case, runs_of_kinds, put):
    kind, name, content, expected = READ[case]
    asked = requests_of(runs_of_kinds[1][kind], put(name, content))
    assert [one.texts for one in asked] == [(item,) if isinstance(item, str) else item for item in expected]


def test_a_file_that_is_not_utf_8_is_read_in_the_encoding_of_the_corpus_of_the_run(runs_of_kinds, put):
    _, runs = runs_of_kinds
    tasks = dict(api.load(runs["class"]).tasks)
    corpus = replace(tasks[PROBE].recipe.corpus, encoding="cp1252")
    tasks[PROBE] = replace(tasks[PROBE], recipe=replace(tasks[PROBE].recipe, corpus=corpus))
    text = "first\nUn chien à l'été.\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        path = put("p.csv", text.encode(encoding))
        assert requests_from_file(tasks, path)[PROBE][0].texts == ("Un chien à l'été.",), encoding


@pytest.mark.parametrize("named", [["Question", "answer"], ["2", "1"]])
def test_columns_of_texts_may_be_named_and_that_of_a_target_after_them(named, runs_of_kinds, put):
    bench, runs = runs_of_kinds
    path = put("p.csv", "answer,question\nother,It sleeps\n,It eats\n")
    tasks = api.load(runs["class"]).tasks
    for columns, targets in ((named, ["other", None]), (named[:1], [None, None])):
        requests = requests_from_file(tasks, path, None, columns)[PROBE]
        assert [(request.texts, request.target) for request in requests] == [
            (("It sleeps",), targets[0]), (("It eats",), targets[1]),
        ]  # fmt: skip
        assert "label" in predicted(bench, runs["class"], "--file", str(path), "--columns", ",".join(columns))
    with pytest.raises(CorpusError, match=r"--columns answer,question,answer: this run reads one text an item; name"):
        requests_from_file(tasks, path, None, ["1", "2", "1"])
    with pytest.raises(CorpusError, match=r"no column 'texts'; set corpus\.columns \(--columns\)"):
        requests_from_file(tasks, path, None, ["texts"])


def test_rows_of_empty_cells_are_left_out_and_counted(runs_of_kinds, put):
    progress, notes = NoProgress(), []
    progress.note = notes.append
    path = put("a.csv", "first,label\nThe dog,same\n,\nIt,\n,\n")
    found = requests_from_file(api.load(runs_of_kinds[1]["class"]).tasks, path, progress)[PROBE]
    assert [request.texts for request in found] == [("The dog",), ("It",)]
    assert notes == [f"a.csv: 2 rows of empty cells are left out; the first: {path}:3"]


def test_parquet_is_read_too(runs_of_kinds, tmp_path):
    pd.DataFrame({"sentence": ["The dog", "It"], "tone": ["neutral", None]}).to_parquet(tmp_path / "a.parquet")
    asked = requests_of(runs_of_kinds[1]["named"], tmp_path / "a.parquet")
    assert [(one.texts, one.target) for one in asked] == [(("The dog",), "neutral"), (("It",), None)]


def test_a_target_is_known_by_name_or_number_or_not_at_all(runs_of_kinds, put):
    path = put("a.csv", "sentence,tone\nThe dog,negative\nIt,2\nA stove,\n")
    asked = requests_of(runs_of_kinds[1]["named"], path)
    assert [one.target for one in asked] == ["negative", "positive", None]
    asked = requests_of(runs_of_kinds[1]["score"], put("b.csv", "first,second,score\na,b,0.25\n"))
    assert [one.target for one in asked] == [0.25]


REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    "an empty text": ("class", 'first\na\n" "\n', r":3: the text is empty"),
    "an empty second text": ("score", "first,second\na,b\nc,\n", r":3: the second text is empty"),
    "an empty context": ("answers", "question,context\nWho?,\n", r":2: the context is empty; a question needs"),
    "no context": ("answers", "question\nWho?\n", r":2: expected the columns question, context: a question needs"),
    "other columns": ("score", "a,b\nc,d\n", r"columns first, second or sentence1, .*; found a, b; name"),
    "a missing field": ("class", '{"text": "a"}\n{"txt": "b"}', r":2: no column 'text'.*'txt'"),
    "a question as long as a window": (
        "answers",
        f"question,context\nWho?,Ada.\n{'Who is it? ' * 20},Ada.\n",
        r":3: text 'Who is it\? .* leaves no room",
    ),
    "a question that leaves less than windows overlap by": (
        "answers",
        f"question,context\n{'who ' * 38},{'Ada. ' * 60}\n",
        r":2: plan\.stride = 8 is too much for text",
    ),
    "half a character beside": ("class", '{"first": "a", "id": "\\ud800"}', r":1: it holds half a character"),
    "two encodings": ("class", b"first\nok\nna\xefve\n", r":3: the text is not UTF-8; save the file as UTF-8"),
    "a short row": ("score", "first,second\na\n", r":2: expected 2 fields"),
    "no rows": ("class", "first\n", r"it holds no rows"),
    "json": ("answers", b"{}", r": expected a list of objects, an object of lists by split or by column"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_faulty_file_is_refused_with_its_line(case, runs_of_kinds, put):
    bench, folders = runs_of_kinds
    kind, content, message = REFUSED[case]
    name = "a.jsonl" if str(content).startswith("{") else "a.json" if case == "json" else "a.csv"
    path = put(name, content)
    code, out, err = bench.command("predict", str(folders[kind]), "--file", str(path), "--out", f"{path}.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"CorpusError: {path}")
    assert re.search(message, err)
    assert not path.with_name(f"{path.name}.csv").exists()


FOREIGN = {
    "an unknown label": ("named", "sentence,tone\na,neutral\nb,negatve\n", r":3: unknown label 'negatve'.*'negative'"),
    "a number no label has": ("named", "sentence,tone\na,3\n", r":2: unknown label '3'"),
    "a number where none are given": ("class", "first,label\na,1\n", r":2: unknown label '1'"),
    "a score outside": ("score", "first,second,score\na,b,7\n", r":2: expected a score from 0 to 1 .*'7'"),
    "no score": ("score", "first,second,score\na,b,nan\n", r":2: expected a score"),
    "an unknown label of several": (
        "labels",
        "sentence,labels\na,none of these\n",
        r":2: unknown label 'none of these'",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_target_column_of_something_else_is_carried_along_and_named_in_one_note(case, runs_of_kinds, put):
    bench, folders = runs_of_kinds
    kind, content, message = FOREIGN[case]
    path = put("a.csv", content)
    code, _, err = bench.command("predict", str(folders[kind]), "--file", str(path), "--out", f"{path}.csv")
    assert code == 0, err
    (note,) = (line for line in err.splitlines() if "carried along" in line)
    assert re.search(message, note)
    given, answered = pd.read_csv(path, dtype=str), pd.read_csv(f"{path}.csv", dtype=str)
    assert "target" not in answered
    column = given.columns[-1]
    kept = f"input_{column}" if f"input_{column}" in answered else column
    assert answered[kept].tolist() == given[column].tolist()


def predicted(bench, folder, *words):
    code, out, err = bench.command("predict", str(folder), *words)
    assert code == 0, err
    return out


def test_classes_are_written_with_their_inputs_target_and_a_column_a_probability(runs_of_kinds, tmp_path):
    bench, folders = runs_of_kinds
    rows = [(1, "The dog", "neutral", "x"), (2, 'It "sleeps", then\nruns', "", "y")]
    path, out = write(tmp_path / "a.csv", ["id", "sentence", "tone", "label"], rows), tmp_path / "new" / "out.csv"
    assert "predictions: 2" in predicted(bench, folders["named"], "--file", str(path), "--out", str(out))
    table = pd.read_csv(out, keep_default_na=False)
    shares = [f"probability_{label}" for label in ("negative", "neutral", "positive")]
    assert list(table) == ["id", "sentence", "input_label", "target", "label", *shares]
    assert table["sentence"].tolist() == ["The dog", rows[1][1]]
    assert table["target"].tolist() == ["neutral", ""]
    assert table[shares].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    said = json.loads(predicted(bench, folders["named"], "--file", str(path), "--json"))["predictions"]
    assert [one["target"] for one in said] == ["neutral", None]
    assert [one["label"] for one in said] == table["label"].tolist()
    assert [list(one["probabilities"].values()) for one in said] == table[shares].to_numpy().tolist()


def test_entities_are_written_a_line_each_and_an_item_without_any_has_one(runs_of_kinds, tmp_path, monkeypatch):
    bench, folders = runs_of_kinds
    entities = [
        {"text": "Elon  Musk", "start": 0, "end": 10, "label": "PER", "probability": 0.5},
        {"text": "Kenya", "start": 15, "end": 20, "label": "LOC", "probability": 0.75},
    ]
    answers = [{"entities": entities}, {"entities": []}]
    monkeypatch.setattr(Predictor, "predict_task", lambda *_: answers)
    path, out = write(tmp_path / "a.csv", ["text", "label"], [("Elon  Musk saw Kenya", "a"), ("No", "b")]), "out.csv"
    predicted(bench, folders["tags"], "--file", str(path), "--out", str(tmp_path / out))
    lines = (tmp_path / out).read_text("utf-8").splitlines()
    assert lines == [
        "text,input_label,item,entity,label,start,end,probability",
        "Elon  Musk saw Kenya,a,1,Elon  Musk,PER,0,10,0.5",
        "Elon  Musk saw Kenya,a,1,Kenya,LOC,15,20,0.75",
        "No,b,2,,,,,",
    ]
    predicted(bench, folders["tags"], "--file", str(path), "--out", str(tmp_path / "out.jsonl"))
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert objects[0] == {"text": "Elon  Musk saw Kenya", "label": "a", "entities": entities}
    shown = predicted(bench, folders["tags"], "--file", str(path)).split("\n")
    assert shown[0].split() == ["text", "entity", "label", "start", "end", "probability"]
    assert shown[2].split() == ["Kenya", "LOC", "15", "20", "0.7500"]


def test_an_empty_field_is_a_text_without_labels_and_else_an_unknown_target(runs_of_kinds, put):
    folders = runs_of_kinds[1]
    targets = [one.target for one in requests_of(folders["labels"], put("a.csv", "sentence,labels\na,\nb,[]\n"))]
    assert targets == ["", ""]
    assert [one.target for one in requests_of(folders["class"], put("b.csv", "first,label\na,\nb,same\n"))] == [
        None,
        "same",
    ]


def test_label_sets_are_written_as_one_cell_beside_a_column_a_probability(tmp_path):
    request = PredictionRequest(texts=("The dog",), names=("text",), location="item 1", columns={"text": "The dog"})
    predictions = [{"labels": labels, "probabilities": {"a": 0.75, "b": 0.5}} for labels in (["a", "b"], [])]
    write_predictions(tmp_path / "out.csv", [request] * 2, predictions)
    assert (tmp_path / "out.csv").read_text("utf-8").splitlines() == [
        "text,labels,probability_a,probability_b",
        'The dog,"a, b",0.75,0.5',
        "The dog,,0.75,0.5",
    ]


def test_answers_are_written_beside_question_and_context(runs_of_kinds, tmp_path):
    bench, folders = runs_of_kinds
    item = ("Who slept near the stove?", "In winter  the small dog sleeps; it is 8,848.86 metres, near a stove.")
    asked = (str(folders["answers"]), *item)
    code, shown, _ = bench.command("predict", *asked)
    assert (code, shown.split()[:5]) == (0, ["question", "answer", "start", "end", "score"])
    predicted(bench, *asked, "--out", str(tmp_path / "out.csv"))
    (row,) = pd.read_csv(tmp_path / "out.csv").to_dict("records")
    assert list(row) == ["question", "context", "answer", "start", "end", "score"]
    assert item[1][row["start"] : row["end"]] == row["answer"] != ""
    (said,) = json.loads(predicted(bench, *asked, "--json"))["predictions"]
    assert said["answer"]["text"] == row["answer"]
    code, _, err = bench.command("predict", *asked, "Who ran?")
    assert code == 2
    assert "a question, then its context: give an even number of texts, got 3" in err


def test_a_place_where_answers_cannot_go_is_refused_before_they_are_made(runs_of_kinds, tmp_path, monkeypatch):
    bench, folders = runs_of_kinds
    monkeypatch.setattr(api, "load", None)
    path = write(tmp_path / "a.csv", ["sentence"], [("It",)])
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.csv").symlink_to("/dev/null")
    places = {"a.xlsx": "written as .csv or .jsonl", "folder.csv": "it is a folder", "a.csv": "the file that is read"}
    places |= {"pipe.csv": "it is a device or pipe", "null.csv": "it is a device or pipe"}
    for name, message in places.items():
        words = ("--file", str(path), "--out", str(tmp_path / name))
        code, _, err = bench.command("predict", str(folders["named"]), *words)
        assert code == 2
        assert message in err
    assert path.read_text("utf-8") == "sentence\nIt\n"


def test_the_backbone_is_loaded_once_for_all_that_is_asked(runs_of_kinds, monkeypatch):
    from permafrost.extract import loader

    loads, load = [], loader.load_backbone
    monkeypatch.setattr(loader, "load_backbone", lambda *some: loads.append(some) or load(*some))
    monkeypatch.setattr("permafrost.probes.prediction.predictor.SLICE_TEXTS", 2)
    predictor = api.load(runs_of_kinds[1]["class"])
    assert len(predictor.predict([f"the dog {number}" for number in range(9)])) == 9
    predictor.predict(["it"])
    assert len(loads) == 1
