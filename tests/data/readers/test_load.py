"""Corpora of every kind: a user's own files, the samples that ship, the real ones, and the hub offline."""

import csv
import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.records import HELD_OUT, SPLITS, CorpusError
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.corpora.targets import TARGETS, Scores
from permafrost.data.readers.load import load_corpus
from permafrost.data.readers.registry import CORPORA, ENTITIES, SAMPLES
from permafrost.data.spec import SpecError
from tests.support.marks import slow_but_first
from tests.support.real import REAL_DATA, real_data

PAIRS = ("first", "second", "score")


def table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def pairs(count: int, start: int = 0) -> list[tuple[str, ...]]:
    return [(f"a{n}", f"b{n}", "0.5") for n in range(start, start + count)]


def own(path: Path, columns: tuple[str, ...] = PAIRS, target: Any = "score", **others: Any) -> Corpus:
    return load_corpus(CorpusSpec(path=str(path), columns=columns, target=target, **others))


def sizes(corpus: Corpus) -> dict[str, int]:
    return {split: len(rows) for split, rows in corpus.splits.items()}


def test_a_file_without_splits_is_cut_by_seed(tmp_path):
    path = table(tmp_path / "p.csv", [PAIRS, *pairs(50)])
    corpus = own(path)
    assert sum(sizes(corpus).values()) == 50
    assert min(sizes(corpus).values()) >= 2
    tests = [own(path, split_seed=seed).split("test").texts.tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    assert list(sizes(own(path, fractions=(0.5, 0.0, 0.5)))) == ["train", "test"]
    assert sizes(own(path, limit=2)) == {"train": 2, "validation": 2, "test": 2}


def test_fifty_rows_added_to_a_file_leave_validation_and_test_as_they_were(tmp_path):
    path, splits = tmp_path / "p.csv", []
    for count in (60, 110):
        corpus = own(table(path, [PAIRS, *pairs(count)]))
        splits.append({split: [corpus.texts[text] for text, _ in rows.texts] for split, rows in corpus.splits.items()})
    before, after = splits
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)


def test_six_rows_of_three_classes_are_enough_and_each_split_has_some(tmp_path):
    rows = [(f"text {number}", "abc"[number % 3]) for number in range(6)]
    corpus = own(table(tmp_path / "m.csv", [("text", "mood"), *rows]), ("text", "mood"), "class")
    assert sizes(corpus) == {"train": 3, "validation": 1, "test": 2}
    assert corpus.labels == ("a", "b", "c")


@pytest.mark.parametrize("settings", [{}, {"labels": ("a", "b", "c")}])
def test_a_class_with_one_row_stays_in_train_and_is_told(tmp_path, settings):
    rows = [(f"text {number}", "ab"[number % 2]) for number in range(100)]
    for number in range(8):  # the digest of some would be of test
        path = table(tmp_path / f"m{number}.csv", [("text", "mood"), *rows, (f"alone {number}", "c")])
        corpus = own(path, ("text", "mood"), "class", **settings)
        assert (corpus.split("train").targets == 2).sum() == 1
        assert "a single training row is of 'c'" in corpus.notes
        assert "no row of test is of 'c': it is not measured there" in corpus.notes
        assert corpus.skipped == ()


def test_a_split_column_is_obeyed_and_its_name_is_free(tmp_path):
    rows = [(*row, split) for row, split in zip(pairs(4), ("train", "test", "train", "validation"), strict=True)]
    path = table(tmp_path / "p.csv", [(*PAIRS, "part"), *rows])
    corpus = own(path, split_column="part")
    assert sizes(corpus) == {"train": 2, "validation": 1, "test": 1}
    assert [corpus.texts[text] for text in corpus.split("test").texts[0]] == ["a1", "b1"]


@pytest.mark.parametrize(("first", "second"), [("", "test"), ("train", "")])
def test_a_split_column_filled_in_part_is_refused_and_leaks_no_test_row(tmp_path, first, second):
    path = table(tmp_path / "p.csv", [(*PAIRS, "split"), ("a", "b", "0", first), ("c", "d", "1", second)])
    with pytest.raises(CorpusError, match=r"p\.csv:3: some rows have a split and some have none; fill 'split' in"):
        own(path)


def test_an_unknown_split_names_the_known_ones(tmp_path):
    path = table(tmp_path / "p.csv", [(*PAIRS, "split"), ("a", "b", "0", "valide")])
    with pytest.raises(
        CorpusError, match=r"p\.csv:2: unknown split 'valide'; write one of train, .*corpus\.split_column"
    ):
        own(path)


@pytest.mark.parametrize("value", [["a", "b"], {"role": "user", "content": "a"}], ids=["a list", "a table"])
def test_a_column_of_texts_that_holds_lists_or_tables_is_refused(tmp_path, value):
    rows = [{"text": value, "label": "x"}, {"text": value, "label": "y"}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CorpusError, match=r"own\.jsonl:1: column 'text' holds a (list|table), not a text"):
        own(tmp_path / "own.jsonl", ("text", "label"), "class")


def test_columns_are_named_by_the_user_in_any_order(tmp_path):
    path = table(tmp_path / "p.csv", [("id", "score", "second", "first"), ("7", "3", "b", "a")])
    corpus = own(path, score_range=(1.0, 5.0), fractions=(1.0, 0.0, 0.0))
    assert (corpus.texts, corpus.split("train").targets.tolist()) == (("a", "b"), [0.5])
    with pytest.raises(CorpusError, match=r"p\.csv: no column 'scores'; set corpus.columns.*Did you mean 'score'\?"):
        own(path, ("first", "second", "scores"))


def test_a_folder_holds_one_file_a_split_of_any_kind(tmp_path):
    table(tmp_path / "train.csv", [PAIRS, *pairs(3)])
    (tmp_path / "dev.jsonl").write_text('{"first": "x", "second": "y", "score": 1}\n')
    (tmp_path / "test.tsv.gz").write_bytes(gzip.compress(b"first\tsecond\tscore\nu\tv\t0\nu\tw\t0\n"))
    corpus = own(tmp_path)
    assert sizes(corpus) == {"train": 3, "validation": 1, "test": 2}
    assert corpus.name == tmp_path.name


def test_a_folder_without_training_rows_is_refused(tmp_path):
    table(tmp_path / "test.csv", [PAIRS, *pairs(3)])
    with pytest.raises(CorpusError, match=r"expected a file called train, .*found none"):
        own(tmp_path)


def test_plain_sentences_are_all_of_one_split(tmp_path):
    (tmp_path / "s.txt").write_text("one\n\n two \none\n")
    corpus = own(tmp_path / "s.txt", ("sentence",), "")
    assert (corpus.texts, sizes(corpus)) == (("one", "two"), {"train": 3})


def test_single_sentences_carry_classes_by_name_or_by_number(tmp_path):
    rows = [("text", "mood"), ("a", "glad"), ("b", "1"), ("c", "sad")]
    corpus = own(
        table(tmp_path / "m.csv", rows), ("text", "mood"), "class", labels=("sad", "glad"), fractions=(1.0, 0.0, 0.0)
    )
    train = corpus.split("train")
    found = {corpus.texts[side[0]]: target for side, target in zip(train.texts, train.targets, strict=True)}
    assert found == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b", "p.csv:3: expected 3 fields (first, second, score), found 2; 1 of 2 rows"),
        (
            "a,,1",
            "p.csv:3: text 2 is empty; 1 of 2 rows of p.csv cannot be used (empty text: 1), and corpus.most_skipped = "
            "0.01 allows 0; correct them, or set corpus.most_skipped = 0.5 to leave them out.",
        ),
        ("a,b,1.5", "p.csv:3: the score 1.5 is outside corpus.score_range = [0, 1]; 1 of 2 rows"),
        ("a,b,NaN", "p.csv:3: the score is NaN; 1 of 2 rows"),
        ("a,b,x", "p.csv:3: the score must be a number, got 'x'; 1 of 2 rows"),
    ],
)
def test_a_bad_row_of_the_users_file_is_told_with_file_and_line(tmp_path, line, message):
    (tmp_path / "p.csv").write_text(f"first,second,score\na,b,1\n{line}\n")
    with pytest.raises(CorpusError) as error:
        own(tmp_path / "p.csv", score_range=(0.0, 1.0))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert error.value.exit_code == 2


def test_one_row_in_a_hundred_may_be_left_out_and_no_limit_counts_it(tmp_path):
    path = table(tmp_path / "p.csv", [PAIRS, *pairs(50), ("a", "b", ""), *pairs(50, start=50)])
    for settings in ({}, {"limit": 2}):
        corpus = own(path, **settings)
        assert corpus.notes == (f"1 of 101 rows (0.99%) are left out, no score; the first: {path}:52",)
        assert corpus.skipped == ((f"{path}:52", "no score", "the score is missing"),)
    for settings, message in (
        ({"strict": True}, r"p\.csv:52: the score is missing; correct it, or leave out --strict"),
        (
            {"most_skipped": 0.009},
            r"p\.csv:52: the score is missing; 1 of 101 rows .* set corpus\.most_skipped = 0\.01 ",
        ),
    ):
        with pytest.raises(CorpusError, match=message):
            own(path, **settings)
    with pytest.raises(SpecError, match="most_skipped must be a share of all rows, from 0 to 1, got 2"):
        own(path, most_skipped=2.0)


def test_labels_that_the_user_ignores_are_left_out_without_limit_also_with_strict(tmp_path):
    rows = [(f"text {number}", ("a", "b", "-", "?")[number % 4]) for number in range(80)]
    path = table(tmp_path / "m.csv", [("text", "mood"), *rows])
    corpus = own(path, ("text", "mood"), "class", ignore=("-", "?"), strict=True)
    assert (corpus.labels, sum(sizes(corpus).values()), len(corpus.skipped)) == (("a", "b"), 40, 40)
    assert corpus.notes == (
        f"20 of 80 rows (25.00%) are left out, label '-'; the first: {path}:4",
        f"20 of 80 rows (25.00%) are left out, label '?'; the first: {path}:5",
    )


def test_leaks_of_a_folder_are_told_or_dropped(tmp_path):
    table(tmp_path / "train.csv", [PAIRS, *pairs(30)])
    table(tmp_path / "test.csv", [PAIRS, ("b3", "a3", "1"), ("a4", "b7", "1"), ("x", "y", "1")])
    corpus, dropped = own(tmp_path), own(tmp_path, drop_leaks=True)
    assert corpus.notes == (
        "1 of 3 rows of test have the same texts as a row of train, so figures read high; set corpus.drop_leaks = true "
        "(--drop-leaks) to take such rows out of train",
        "1 of 3 rows of test share one of their two texts with a row of train",
    )
    assert dropped.notes[0] == "1 of 30 rows of train are taken out: their texts are in validation or test too"
    assert sum(sizes(corpus).values()) == sum(sizes(dropped).values()) + 1


def sentence(number: int) -> str:
    return f"Ada\tB-PER\nsaw\tO\nplace{number}\tB-LOC\n\n"


def squad(contexts: int, start: int = 3) -> str:
    """Two questions on each context."""
    paragraphs = [
        {
            "context": f"It lies in Oslo{n}.",
            "qas": [
                {"id": f"{n}{word}", "question": word, "answers": [{"text": "lies", "answer_start": start}]}
                for word in ("What?", "How?")
            ],
        }
        for n in range(contexts)
    ]
    return json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]})


def test_tagged_sentences_come_as_a_folder_or_as_one_file_that_is_cut(tmp_path):
    whole = tmp_path / "all.conll"
    whole.write_text("".join(map(sentence, range(50))))
    corpus = own(whole, (), "tags")
    assert (sum(sizes(corpus).values()), list(corpus.splits)) == (50, list(SPLITS))
    assert (corpus.kind, corpus.labels) == ("tags", ("O", "B-LOC", "I-LOC", "B-PER", "I-PER"))
    for split, count in (("train", 20), ("dev", 3)):
        (tmp_path / f"{split}.tsv").write_text("".join(map(sentence, range(count))))
    (tmp_path / "test.jsonl").write_text('{"words": ["Bo"], "tags": ["B-PER"]}\n')
    corpus = own(tmp_path, (), "tags")
    assert sizes(corpus) == {"train": 20, "validation": 3, "test": 1}
    assert corpus.split("test").spans.codes.tolist() == [3]


def test_a_tag_that_training_never_saw_is_told_with_file_and_line(tmp_path):
    (tmp_path / "train.conll").write_text(sentence(0))
    (tmp_path / "test.conll").write_text("home O\n\nit O\nMars B-LOK\n")
    with pytest.raises(CorpusError, match=r"test\.conll:4: the tag 'B-LOK' never occurs in training; 1 of 3 rows"):
        own(tmp_path, (), "tags")


def test_questions_on_one_context_are_in_one_split(tmp_path):
    path = tmp_path / "q.json"
    path.write_text(squad(30))
    corpus = own(path, (), "answers")
    assert (sum(sizes(corpus).values()), list(corpus.splits)) == (60, list(SPLITS))
    for rows in corpus.splits.values():
        _, questions = np.unique([corpus.texts[text].second for text in rows.texts[:, 0]], return_counts=True)
        assert set(questions) == {2}


def test_answers_that_are_off_are_a_note_or_with_strict_an_error(tmp_path):
    path = tmp_path / "q.json"
    rows = json.loads(squad(10))
    rows["data"][0]["paragraphs"][4]["qas"][1]["answers"][0]["answer_start"] = 2
    path.write_text(json.dumps(rows))
    corpus = own(path, (), "answers")
    assert sum(sizes(corpus).values()) == 19
    assert corpus.notes[0] == (
        f"1 of 20 answers are not at their offset and are left out; the first: {path}: question '4How?'"
    )
    with pytest.raises(CorpusError, match=r"q\.json: question '4How\?': the answer 'lies' is not at its offset 2"):
        own(path, (), "answers", strict=True)


def test_the_language_of_answers_is_given_or_in_the_name_or_left_to_the_script(tmp_path):
    def read(name: str, context: str, **settings: str) -> Corpus:
        path = tmp_path / name
        path.write_text("question,context,answer\n" + "".join(f"q{n}?,{context}{n},{context}\n" for n in range(20)))
        return load_corpus(CorpusSpec(path=str(path), target="answers", **settings))

    german = read("xquad.de.csv", "Der Hund")
    assert (german.language, len(german.notes)) == ("de", 1)
    assert german.notes[0].startswith("answers are compared by MLQA's rules for 'de', as the name xquad.de.csv says; ")
    chinese = read("mine.csv", "野马队")
    rules = "the rules for the script of each context; corpus.language sets others"
    assert (chinese.language, chinese.notes) == ("", (f"answers are compared by {rules}",))
    assert [read(name, "The dog").notes for name in ("mine.csv", "xquad.en.csv", "xquad.ar.csv")] == [(), (), ()]
    for name in ("mine.csv", "xquad.de.csv"):
        assert (read(name, "Der Hund", language="es").language, read(name, "Der Hund", language="en").notes) == (
            "es",
            (),
        )
    with pytest.raises(SpecError, match=r"language = 'cn': .*Known: .*zh"):
        CorpusSpec(language="cn")


def test_where_every_answer_is_off_the_error_says_so(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text("question,context,answer,start\nWho?,Ada lives,Ada,1\nWho?,Bob lives,Bob,2\n")
    with pytest.raises(CorpusError) as error:
        own(path, (), "answers")
    assert str(error.value) == (
        "q.csv: it holds no rows that can be used: 2 of 2 answers are not at their offset and are left out; the first: "
        f"{path}:2; questions whose answers are all left out are left out too: 2."
    )


def test_a_held_out_part_of_train_is_cut_after_the_limit(tmp_path):
    for split, count in (("train", 200), ("validation", 30), ("test", 30)):
        table(tmp_path / f"{split}.csv", [PAIRS, *pairs(count)])
    corpus = own(tmp_path, held_out=0.25, limits={"train": 100, "test": 7}, limit=20)
    assert sizes(corpus) == {"train": 75, HELD_OUT: 25, "validation": 20, "test": 7}
    assert corpus.selection_split == HELD_OUT
    used = corpus.split("train").texts.ravel().tolist() + corpus.split(HELD_OUT).texts.ravel().tolist()
    assert {corpus.texts[text] for text in used} == {f"{side}{n}" for side in "ab" for n in range(100)}


def test_rows_of_a_limit_may_come_from_the_whole_split(tmp_path):
    table(tmp_path / "train.csv", [PAIRS, *pairs(40)])
    table(tmp_path / "test.csv", [PAIRS, *pairs(30, start=100)])
    corpus = own(tmp_path, limits={"test": 3}, spread=True)
    assert [corpus.texts[text] for text in corpus.split("test").texts[:, 0]] == ["a100", "a110", "a120"]
    assert len(corpus.split("train")) == 36


def test_a_rule_makes_the_labels_of_single_sentences(tmp_path):
    texts = [
        "What a day",
        "Is it?",
        '"who is it',
        "whatever",
        "So it is.",
        "the what",
        "Really? Yes",
        'he asked "why?"',
        "他赢了吗？",
        "「なぜ？」",
        "هل هذا؟",
        "什么",
        "what's that",
    ]
    path = table(tmp_path / "s.csv", [("text", "other"), *((text, "x") for text in texts)])
    corpus = own(path, ("text",), "", rule="question", fractions=(1.0, 0.0, 0.0))
    rows = corpus.split("train")
    found = {corpus.texts[text] for text, code in zip(rows.texts[:, 0], rows.targets, strict=True) if code == 1}
    assert found == {"What a day", "Is it?", '"who is it', 'he asked "why?"', *texts[8:11], "what's that"}
    assert corpus.labels == ("statement", "question")
    with pytest.raises(SpecError, match=r'corpus\.rule = "question" labels single sentences'):
        load_corpus(CorpusSpec(name="samples-pairs", rule="question"))
    topics = load_corpus(CorpusSpec(name="samples-sentences", rule="question"))
    assert 0 < topics.split("train").targets.mean() < 0.5


@pytest.mark.parametrize("labels", [(), ("sad", "glad")])
def test_a_class_that_a_given_train_lacks_is_left_out_of_test_whoever_names_it(tmp_path, labels):
    rows = [*((f"text {number}", "glad", ("train", "test")[number % 2]) for number in range(99)), ("b", "sad", "test")]
    path = table(tmp_path / "m.csv", [("text", "mood", "split"), *rows])
    corpus = own(path, ("text", "mood"), "class", labels=labels)
    assert sizes(corpus)["test"] == 49
    assert [row.problem for row in corpus.skipped] == ["the label 'sad' never occurs in training"]
    assert ("no training row is of 'sad': it cannot be learnt" in corpus.notes) == bool(labels)
    with pytest.raises(CorpusError, match=r"m\.csv:101: the label 'sad' never occurs in training; give them training"):
        own(path, ("text", "mood"), "class", labels=labels, strict=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": {"dev": 3}}, "limits.dev: there is no such split. Known: test, train, validation."),
        ({"limits": {"test": -1}}, "limits.test must not be negative, got -1."),
        ({"held_out": 1.0}, "held_out must be a share of train, at least 0 and below 1, got 1."),
        ({"held_out": -0.1}, "held_out must be a share of train"),
        ({"rule": "question", "labels": ("a", "b")}, 'rule = "question" makes the classes'),
        ({"name": "samples-tags", "target": "class"}, "corpus.columns must name your columns in order"),
        ({"rule": "question", "target": "tags"}, 'rule = "question" makes the classes'),
        ({"target": "clas"}, "target = 'clas': Did you mean 'class'?"),
        ({"label_separator": ""}, "label_separator must not be empty."),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SpecError) as error:
        load_corpus(CorpusSpec(**settings))
    assert message in str(error.value)


LABELS = (["late", "refund"], [], ["late"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_label_sets_are_the_same_from_every_kind_of_file(tmp_path, suffix):
    rows = [{"text": f"message {number}", "labels": labels} for number, labels in enumerate(LABELS)]
    path, separator = tmp_path / f"train{suffix}", "\t" if suffix == ".tsv" else ","
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [("text", "labels"), *((row["text"], "|".join(row["labels"])) for row in rows)]
        path.write_text("".join(separator.join(line) + "\n" for line in lines))
    corpus = own(tmp_path, ("text", "labels"), "labels", label_separator="|")
    assert corpus.labels == ("late", "refund")
    assert corpus.split("train").targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert corpus.notes == ()


def test_label_numbers_of_a_list_are_indices_of_the_given_labels(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "emotions": [10, 9]}\n{"text": "b", "emotions": null}\n')
    corpus = own(tmp_path, ("text", "emotions"), "labels")
    assert (corpus.labels, corpus.split("train").targets.tolist()) == (("9", "10"), [[1, 1], [0, 0]])
    given = own(tmp_path, ("text", "emotions"), "labels", labels=tuple("abcdefghijk"))
    assert np.flatnonzero(given.split("train").targets[0]).tolist() == [9, 10]
    assert given.notes[1].startswith("no training row has 'a', 'b', ")


def test_a_wrong_label_of_a_set_is_told_with_file_and_line(tmp_path):
    path = table(tmp_path / "m.csv", [("text", "labels"), ("a", "late,refund"), ("b", "late,refnd")])
    with pytest.raises(CorpusError, match=r"m\.csv:3: unknown label 'refnd'\. Did you mean 'refund'\?"):
        own(path, ("text", "labels"), "labels", labels=("late", "refund"))


def test_label_sets_survive_cuts_and_limits(tmp_path):
    rows = [(f"text {number}", "a,b" if number % 2 else "b,c") for number in range(60)]
    path = table(tmp_path / "m.csv", [("text", "labels"), *rows])
    corpus = own(path, ("text", "labels"), "labels", limits={"train": 20}, held_out=0.25)
    assert [sizes(corpus)[split] for split in ("train", HELD_OUT)] == [15, 5]
    for split in corpus.splits.values():
        for text, targets in zip(split.texts[:, 0], split.targets, strict=True):
            odd = int(corpus.texts[text].split()[1]) % 2
            assert targets.tolist() == ([1, 1, 0] if odd else [0, 1, 1])


def test_a_kind_of_target_is_added_by_one_line(tmp_path, monkeypatch):
    path = table(tmp_path / "p.csv", [PAIRS, *pairs(3)])
    with pytest.raises(SpecError, match=r"target = 'stars': "):
        own(path, target="stars")
    monkeypatch.setitem(TARGETS, "stars", Scores)
    stars, scores = own(path, target="stars"), own(path)
    assert stars.kind == "stars"
    assert stars.score_range == scores.score_range
    assert all((stars.split(name).targets == rows.targets).all() for name, rows in scores.splits.items())


def test_a_target_left_unsaid_is_found_from_the_column(tmp_path):
    assert own(table(tmp_path / "p.csv", [PAIRS, *pairs(3)]), target="").kind == "score"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (CorpusSpec(), SpecError, "there is no corpus: give your data, --data FILE"),
        (CorpusSpec(path="none.csv", columns=PAIRS), CorpusError, "none.csv: no such file."),
        (CorpusSpec(name="stbs"), CorpusError, "unknown corpus 'stbs'. Did you mean 'stsb'?"),
        (CorpusSpec(name="someone/pairs"), SpecError, "must say what the hub data set 'someone/pairs' holds"),
    ],
)
def test_a_spec_that_names_no_corpus_says_what_is_missing(spec, error, message):
    with pytest.raises(error) as raised:
        load_corpus(spec)
    assert message in str(raised.value)


def test_the_sample_pairs_are_graded_and_split():
    corpus = load_corpus(CorpusSpec(name="samples-pairs"))
    assert list(corpus.splits) == list(SPLITS)
    assert min(sizes(corpus).values()) >= 40
    assert sum(sizes(corpus).values()) >= 240
    scores = np.concatenate([rows.targets for rows in corpus.splits.values()])
    assert (scores.min(), scores.max()) == (0.0, 1.0)
    assert len(np.unique(scores)) > 4


def test_the_sample_sentences_are_many_and_distinct():
    corpus = load_corpus(CorpusSpec(name="samples-sentences"))
    assert len(corpus.texts) == corpus.text_count >= 500


def test_the_sample_topics_have_every_class_in_every_split():
    corpus = load_corpus(CorpusSpec(name="samples-topics"))
    assert list(corpus.splits) == list(SPLITS)
    for rows in corpus.splits.values():
        assert set(rows.targets.tolist()) == set(range(len(corpus.labels)))


@pytest.mark.parametrize(("name", "fewest"), [("samples-nli", 150), ("samples-tones", 120)])
def test_the_other_sample_classes_are_in_every_split_too(name, fewest):
    corpus = load_corpus(CorpusSpec(name=name))
    assert sum(sizes(corpus).values()) >= fewest
    assert [set(corpus.split(split).targets.tolist()) for split in SPLITS] == [{0, 1, 2}] * 3


def test_the_sample_tags_have_every_type_of_entity_in_every_split():
    corpus = load_corpus(CorpusSpec(name="samples-tags"))
    assert sum(sizes(corpus).values()) >= 80
    assert set(corpus.labels) == set(ENTITIES)
    begins = {code for code, label in enumerate(corpus.labels) if label.startswith("B-")}
    for split in SPLITS:
        assert begins <= set(corpus.split(split).spans.codes.tolist())


def test_the_sample_labels_are_in_every_split_and_some_rows_have_none():
    corpus = load_corpus(CorpusSpec(name="samples-labels"))
    assert corpus.labels == ("account", "billing", "delivery", "fault", "urgent")
    for rows in corpus.splits.values():
        assert rows.targets.sum(0).min() >= 5
        assert set(rows.targets.sum(1)) == {0, 1, 2, 3}
    assert corpus.notes == ("texts that occur in several rows with different labels: 6; all their rows are kept",)


def test_the_sample_answers_are_where_they_are_said_to_be():
    corpus = load_corpus(CorpusSpec(name="samples-questions", strict=True))
    assert list(corpus.splits) == list(SPLITS)
    assert (sum(sizes(corpus).values()) >= 40, corpus.notes) == (True, ())


@pytest.mark.parametrize("name", [name for name in CORPORA if CORPORA[name].folder == SAMPLES])
def test_no_sample_text_of_a_test_split_stands_in_training(name):
    corpus = load_corpus(CorpusSpec(name=name))
    used = {split: set(rows.texts.ravel().tolist()) for split, rows in corpus.splits.items()}
    assert not used["train"] & used.get("test", set())


REAL = {
    "stsb": ((5749, 1500, 1379), ()),
    "snli": ((21605, 9842, 9824), ("entailment", "neutral", "contradiction")),
    "sst2": ((67349, 872, 1821), ("negative", "positive")),
    "conll2003": ((14041, 3250, 3453), ENTITIES),
    "squad": ((3600, 400, 10268), ()),
    "genericskb": ((55260,), ()),
}


@pytest.mark.parametrize(
    "name", slow_but_first([name for name in CORPORA if CORPORA[name].hub])
)  # a new one without figures fails here
def test_a_real_corpus_has_its_published_size(name, monkeypatch):
    real_data(name)
    monkeypatch.setenv("PERMAFROST_DATA", str(REAL_DATA))
    rows, labels = REAL[name]
    corpus = load_corpus(CorpusSpec(name=name))
    assert sizes(corpus) == dict(zip(SPLITS, rows, strict=False))
    assert corpus.labels == labels
    if labels:
        test = corpus.split("test")
        assert set((test.spans.codes if test.spans else test.targets).tolist()) == set(range(len(labels)))


def test_stsb_holds_17256_sentences_of_which_15457_are_distinct(monkeypatch):
    real_data("stsb")
    monkeypatch.setenv("PERMAFROST_DATA", str(REAL_DATA))
    corpus = load_corpus(CorpusSpec(name="stsb"))
    assert (corpus.text_count, len(corpus.texts)) == (17_256, 15_457)


def test_a_named_corpus_leaves_out_rows_without_an_agreed_label(tmp_path, monkeypatch):
    lines = [f'{{"premise": "p", "hypothesis": "h{n}", "label": "{label}"}}' for n, label in enumerate("0-21")]
    (tmp_path / "snli").mkdir()
    for split in SPLITS:
        (tmp_path / "snli" / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setenv("PERMAFROST_DATA", str(tmp_path))
    assert load_corpus(CorpusSpec(name="snli")).split("train").targets.tolist() == [0, 2, 1]


def test_a_named_corpus_that_lacks_one_file_names_it(tmp_path, monkeypatch):
    (tmp_path / "stsb").mkdir()
    shutil.copy(SAMPLES / "pairs.csv", tmp_path / "stsb" / "train.csv")
    monkeypatch.setenv("PERMAFROST_DATA", str(tmp_path))
    with pytest.raises(CorpusError, match=r"stsb/validation\.csv: no such file"):
        load_corpus(CorpusSpec(name="stsb"))


@pytest.mark.parametrize("name", ["stsb", "no-one/no-such-set"])
def test_a_hub_data_set_that_cannot_be_reached_is_one_clear_line(name, monkeypatch):
    monkeypatch.delenv("PERMAFROST_DATA", raising=False)
    with pytest.raises(CorpusError) as error:
        load_corpus(CorpusSpec(name=name, columns=PAIRS, target="score"))
    message = str(error.value)
    assert message.startswith(f"'{name}': the hub data set '")
    assert "\n" not in message
    assert ("PERMAFROST_DATA" in message) == (name in CORPORA)


def test_tags_and_answers_of_the_hub_are_read_like_a_file(tmp_path, monkeypatch):
    import datasets

    names = datasets.ClassLabel(names=["O", "B-X", "I-X"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    tags = datasets.Dataset.from_list([{"tokens": ["a", "b", "c"], "ner_tags": [1, 2, 0]}], features)
    answers = {"text": ["lies"], "answer_start": [3]}
    asked = [{"question": "What?", "context": f"It lies {n}.", "answers": answers} for n in range(20)]
    hub = {
        "set/tags": {"train": tags},
        "rajpurkar/squad": {split: datasets.Dataset.from_list(asked) for split in ("train", "validation")},
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: hub[name])
    monkeypatch.delenv("PERMAFROST_DATA", raising=False)
    spec = CorpusSpec(name="set/tags", target="tags", fractions=(1.0, 0.0, 0.0))
    assert load_corpus(spec).split("train").spans.codes.tolist() == [1, 2, 0]
    corpus = load_corpus(CorpusSpec(name="squad"))
    assert sizes(corpus) == {"train": 18, "validation": 2, "test": 20}
    assert corpus.split("test").spans.characters.tolist() == [[3, 7]] * 20


def test_a_hub_data_set_is_read_like_a_file(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, labels in (("train", "01"), ("test", "1")):
        lines = [f'{{"text": "{split} {label}", "label": {label}}}\n' for label in labels]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    spec = CorpusSpec(name=str(folder), columns=("text", "label"), target="class", labels=("no", "yes"))
    corpus = load_corpus(spec)
    assert {split: rows.targets.tolist() for split, rows in corpus.splits.items()} == {"train": [0, 1], "test": [1]}
    (folder / "train.jsonl").write_text('{"text": "x", "label": 0}\n{"text": null, "label": 0}\n')
    with pytest.raises(CorpusError, match=r"set:train:2: the text is empty"):
        load_corpus(spec)


def test_label_sets_of_the_hub_are_lists(tmp_path, monkeypatch):
    import datasets

    names = datasets.ClassLabel(names=["joy", "anger"])
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.List(names)})
    rows = [{"text": "x", "labels": [1, 0]}, {"text": "y", "labels": []}, {"text": "z", "labels": [1]}]
    hub = {"set/emotions": datasets.DatasetDict(train=datasets.Dataset.from_list(rows, features))}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *_, **__: hub[name])
    columns = ("text", "labels")
    spec = CorpusSpec(name="set/emotions", columns=columns, target="labels", fractions=(1.0, 0.0, 0.0))
    assert load_corpus(spec).labels == ("0", "1")
    corpus = load_corpus(replace(spec, labels=("joy", "anger")))
    assert corpus.split("train").targets.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_a_data_set_in_a_folder_is_read_again_when_its_content_changed_and_its_times_did_not(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "set" / "train.jsonl"
    file.parent.mkdir()
    spec = CorpusSpec(name=str(file.parent), columns=("text",), target="none")
    for word in ("dog", "cat"):
        file.write_text("".join(json.dumps({"text": f"{word} {number}"}) + "\n" for number in range(9)))
        os.utime(file, (1, 1))
        assert load_corpus(spec).texts[0] == f"{word} 0"


def numbered(path: Path, numbers: list[int], *names: str) -> Path:
    """A file whose classes are numbers, and their names beside it."""
    path.parent.mkdir(exist_ok=True)
    (path.parent / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    rows = [(f"text {row}", str(numbers[row % len(numbers)])) for row in range(60)]
    return table(path, [("text", "label"), *rows])


@pytest.mark.parametrize(("numbers", "first"), [([0, 1, 2], 0), ([0, 1], 0), ([1, 2, 3], 1), ([3, 1], 1), ([1, 2], 0)])
def test_numbers_of_classes_have_the_names_of_a_file_beside_them_or_of_the_setting(tmp_path, numbers, first):
    path = numbered(tmp_path / "p.csv", numbers, "World", "Sports", "Sci/Tech")
    corpus = own(path, ("text", "label"), "class")
    named = own(path, ("text", "label"), "class", labels=("World", "Sports", "Sci/Tech"))
    by_number = own(path, ("text", "label"), "class", label_names=("World", "Sports", "Sci/Tech"))
    assert (by_number.labels, by_number.first_number) == (corpus.labels, first)
    assert (corpus.labels, corpus.first_number) == (("World", "Sports", "Sci/Tech"), first)
    for split, rows in corpus.splits.items():
        for text, code in zip(rows.texts[:, 0], rows.targets, strict=True):
            assert code == numbers[int(corpus.texts[text].split()[1]) % len(numbers)] - first
        assert named.split(split).targets.tolist() == rows.targets.tolist()
    note = f"names of classes are those of {tmp_path / 'classes.txt'}; set corpus.labels to use others"
    assert (note in corpus.notes, note in named.notes, note in by_number.notes) == (True, False, False)
    assert (f"labels are numbers from {first}, which is 'World'" in corpus.notes) == (0 not in numbers)


def test_a_file_of_names_is_for_numbers_alone_and_names_each_class_once(tmp_path):
    path = numbered(tmp_path / "p.csv", [0, 1], "World", "Sports")
    others = own(path, ("label", "text"), "class", fractions=(1.0, 0.0, 0.0))
    assert len(others.labels) == 60
    assert (others.first_number, own(path, ("text",), "none").labels) == (None, ())
    folder = numbered(tmp_path / "folder" / "train.csv", [0, 1], "World", "Sports").parent
    assert own(folder, ("text", "label"), "labels").labels == ("World", "Sports")
    numbered(path, [0, 1], "World", "World")
    with pytest.raises(CorpusError, match=r"classes\.txt:2: it names 'World' twice\."):
        own(path, ("text", "label"), "class")
    numbered(path, [0, 1], "World", "", "Sports")
    with pytest.raises(CorpusError, match=r"classes\.txt:2: the name is empty\."):
        own(path, ("text", "label"), "class")


def test_rows_of_empty_cells_are_counted_and_no_share_limits_them(tmp_path):
    texts = [f"the dog {number} sleeps,{'ab'[number % 2]}" for number in range(40)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,label", *texts, *[","] * 60]) + "\n")
    corpus = load_corpus(CorpusSpec(path=str(path)))
    assert "60 of 100 rows (60.00%) are left out, empty cells; the first: " in " ".join(corpus.notes)
    assert len(corpus.skipped) == 60
    with pytest.raises(CorpusError, match=r"all its cells are empty.*leave out --strict"):
        load_corpus(CorpusSpec(path=str(path), strict=True))
