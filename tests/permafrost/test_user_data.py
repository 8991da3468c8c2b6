"""A user's own data in place of a recipe's corpus: from files and from memory, on the command line and in Python."""

import json
import tomllib

import datasets
import numpy as np
import pandas as pd
import pytest

from permafrost import api, inspection
from permafrost.data.corpora.records import CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus
from permafrost.data.spec import SpecError
from permafrost.user_data import DataArguments, source_of
from tests.support.bench import Bench, pairs, write

pytestmark = pytest.mark.usefixtures("quick")

ROWS = [(f"the {'warm' if row % 2 else 'cold'} soup of day {row} was here", "ab"[row % 2]) for row in range(60)]


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def small(bench: Bench, *more: str) -> list[str]:
    return bench.settings("variants=[]", *more)


def corpus_of(bench: Bench) -> dict[str, object]:
    """The corpus table that the last run recorded."""
    (run,) = bench.runs.iterdir()
    return tomllib.loads((run / "recipe.toml").read_text())["corpus"]


def test_data_take_the_place_of_a_named_corpus_and_what_was_found_is_recorded(bench):
    path = write(bench.folder / "rows.txt", ["text", "label"], ROWS)
    code, _, err = bench.command("run", "multilabel", "--data", str(path), "--target", "class", settings=small(bench))
    assert code == 0, err
    assert err.splitlines()[0] == "rows.txt: commas, header, UTF-8; text: text; target: label, a class"
    recorded = corpus_of(bench)
    assert (recorded["path"], recorded["columns"], recorded["target"]) == (str(path), ["text", "label"], "class")
    assert recorded.get("name", "") == ""


def test_a_kind_of_target_that_the_recipe_is_not_made_for_is_told(bench):
    path = write(bench.folder / "rows.csv", ["first", "second", "score"], [row[:3] for row in pairs()])
    code, _, err = bench.command("run", "classify", "--data", str(path), settings=small(bench))
    assert code == 0, err
    assert err.splitlines()[0] == (
        "the recipe classify is made for the kind of target 'class', and 'score' was found: use the recipe pairs, or "
        "set corpus.target (--target) to class if that is what they are."
    )


def test_the_rule_of_a_recipe_stays_and_what_belongs_to_its_corpus_goes(bench):
    path = write(bench.folder / "rows.csv", ["text", "label"], [(f"who was day {row}?", "x") for row in range(20)])
    arguments = DataArguments(str(path))
    question = arguments.corpus_table(api.load_recipe("question")[1])
    assert (question["rule"], question["path"]) == ("question", str(path))
    assert "name" not in question
    assert "limits" not in arguments.corpus_table(api.load_recipe("qa")[1])


def test_a_range_of_scores_is_found_and_predictions_have_its_unit(bench):
    rows = [(first, second, 1 + 4 * score) for first, second, score, _ in pairs()]
    path = write(bench.folder / "scored.csv", ["first", "second", "score"], rows)
    result = api.run("pairs", small(bench), bench.runs, data=path)
    assert corpus_of(bench)["score_range"] == [1.0, 5.0]
    assert 1 <= api.load(result.path).predict([rows[0][:2]])[0]["score"] <= 5


@pytest.mark.parametrize("extension", ["csv", "frame", "dataset", "splits", "dicts", "tuples"])
def test_rows_in_memory_run_like_those_of_a_file(bench, extension):
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    data = {
        "csv": lambda: write(bench.folder / "rows.csv", ["text", "label"], ROWS),
        "frame": lambda: frame,
        "dataset": lambda: datasets.Dataset.from_pandas(frame),
        "splits": lambda: datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)}),
        "dicts": lambda: frame.to_dict("records"),
        "tuples": lambda: ROWS,
    }[extension]()
    summary, lengths = inspection.look(data, backbone=str(bench.backbone), cache=bench.folder / "cache")
    assert summary.labels == {"a": 30, "b": 30}
    assert len(lengths) == len(summary.texts) == 60
    assert summary.problem == ""


def test_rows_in_memory_are_kept_under_their_digest(tmp_path):
    first, again = (source_of(ROWS, str(tmp_path)) for _ in range(2))
    assert first == again
    assert first != source_of(ROWS[:-1], str(tmp_path))
    assert len(list((tmp_path / "data").iterdir())) == 2


@pytest.mark.parametrize("data", [[], 7, [1, 2]])
def test_what_is_no_rows_is_refused(data, tmp_path):
    with pytest.raises(CorpusError, match=r"give a file, a folder, a name, a pandas or datasets table, or a list"):
        source_of(data, str(tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([("a dog", "a"), (7, "b")], "row 2, column 1: 7, of type int, after str"),
        ([{"text": "a dog"}, {"text": None}, {"text": ["a"]}], r"row 3, column text: \['a'\], of type list, after str"),
        (["a dog", None], "row 2 is None, of type NoneType"),
        (["a dog", ("a cat", 1)], "row 2 is .*of type tuple"),
    ],
)
def test_a_value_that_fits_no_table_is_named_with_its_place_and_type(data, message, tmp_path):
    with pytest.raises(CorpusError, match=message):
        source_of(data, str(tmp_path))


def test_a_missing_value_may_be_not_a_number(tmp_path):
    rows = [*ROWS, (float("nan"), "a")]
    table = pd.read_parquet(source_of(rows, str(tmp_path))["path"])
    assert list(table["1"].isna()) == [False] * len(ROWS) + [True]


def test_a_name_that_is_nothing_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(CorpusError, match=r"--data stsbb: there is no such file or folder, .* Did you mean 'stsb'\?"):
        source_of("stsbb", str(tmp_path))
    assert source_of("stsb", str(tmp_path)) == {"name": "stsb"}
    assert source_of("someone/pairs", str(tmp_path)) == {"name": "someone/pairs"}


def test_several_tasks_do_not_take_one_corpus(bench):
    path = write(bench.folder / "rows.csv", ["text", "label"], ROWS)
    with pytest.raises(SpecError, match=r"--data gives one corpus.*tasks\.similarity\.corpus\.path=FILE"):
        api.run("layers", small(bench), bench.runs, data=path)


def test_texts_without_a_target_are_extracted(bench):
    (bench.folder / "lines.txt").write_text("\n".join(text for text, _ in ROWS))
    code, out, err = bench.command(
        "extract", "pairs", "--data", str(bench.folder / "lines.txt"), "--json", settings=small(bench)
    )
    assert code == 0, err
    assert json.loads(out)["texts_run"] == 60


def test_look_says_what_a_run_reads(bench, capsys):
    path = write(bench.folder / "rows.csv", ["text", "label", "split"], [(*row, "train") for row in ROWS])
    words = ("look", str(path), "--backbone", str(bench.backbone))
    code, out, _ = bench.command(*words, "--json")
    found = json.loads(out)["look"]
    assert code == 0
    assert found["description"] == "rows.csv: commas, header, UTF-8; text: text; target: label, a class"
    assert found["labels"] == {"a": 30, "b": 30}
    assert sum(found["splits"].values()) == 60
    assert [column["column"] for column in found["columns"]] == ["text", "label", "split"]
    assert found["tokens"]["shortest"] >= 3
    code, out, _ = bench.command(*words)
    assert code == 0
    assert "the cold soup of day 0 was here" in out
    assert [line.rstrip() for line in out.splitlines() if line.startswith("labels")] == ["labels  a 30; b 30"]


def test_look_tells_why_a_run_would_stop(bench):
    path = write(bench.folder / "rows.csv", ["text", "label"], [*ROWS[:9], ("", "a")])
    code, out, _ = bench.command("look", str(path), "--backbone", str(bench.backbone))
    assert code == 0
    assert "a run would stop: " in out
    assert "corpus.most_skipped" in out


def test_a_run_on_lines_predicts_on_such_lines_and_on_plain_ones(bench):
    (bench.folder / "lines.txt").write_text("\n".join(f"{label.upper()}:kind {text}" for text, label in ROWS))
    result = api.run(
        "classify",
        small(bench),
        bench.runs,
        data=bench.folder / "lines.txt",
        columns=[r"(?P<label>[A-Z]+):\w+ (?P<text>.*)"],
    )
    (bench.folder / "new.txt").write_text("A:kind the cold soup\nthe warm soup\n")
    out = bench.folder / "out.csv"
    code, _, err = bench.command(
        "predict", str(result.path), "--file", str(bench.folder / "new.txt"), "--out", str(out)
    )
    assert code == 0, err
    predicted = pd.read_csv(out)
    assert predicted["text"].tolist() == ["the cold soup", "the warm soup"]
    assert predicted["target"].fillna("").tolist() == ["A", ""]


@pytest.mark.parametrize(
    "make",
    [
        lambda columns: columns,
        lambda columns: {name: np.array(values) for name, values in columns.items()},
        lambda columns: pd.DataFrame(columns).astype({"label": "category"}).set_index(pd.Index(range(60), name="id")),
        lambda columns: pd.DataFrame(columns, index=pd.MultiIndex.from_product([range(6), range(10)])),
        datasets.Dataset.from_dict,
        lambda columns: np.array(ROWS),
        lambda columns: iter(ROWS),
        lambda columns: [(text.encode(), label) for text, label in ROWS],
    ],
)
def test_rows_are_the_same_in_whatever_form_python_has_them(tmp_path, make):
    data = make({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    corpus = load_corpus(CorpusSpec(path=source_of(data, str(tmp_path))["path"]))
    assert (sorted(map(str, corpus.texts)), corpus.labels) == (sorted(text for text, _ in ROWS), ("a", "b"))


def test_a_table_that_is_no_split_is_refused():
    with pytest.raises(CorpusError, match=r"data\['unsupervised'\]: no word for a split; leave it out, or call"):
        source_of({"train": ROWS, "unsupervised": ROWS}, "cache")


@pytest.mark.parametrize("data", ["~/rows", "./rows", "../rows", "-", "rows.csv"])
def test_a_path_that_is_missing_is_no_data_set_of_the_hub(data):
    with pytest.raises(CorpusError, match="there is no such file or folder, and no corpus of this name"):
        source_of(data, "cache")
