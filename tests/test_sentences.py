"""Corpora of sentences and pairs: a user's own files, the samples that ship, the real ones, and the hub offline."""

import csv
import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REAL_DATA, real_data

from data.corpus import SPLITS, Corpus, CorpusError
from data.sentences import NAMED, SAMPLES, CorpusSpec, load_corpus
from data.spec import SpecError

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
    assert sizes(corpus) == {"train": 40, "validation": 5, "test": 5}
    tests = [own(path, split_seed=seed).split("test").sides.tolist() for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]
    assert sizes(own(path, fractions=(0.5, 0.0, 0.5))) == {"train": 25, "test": 25}
    assert sizes(own(path, limit=3)) == {"train": 3, "validation": 3, "test": 3}


def test_a_split_column_is_obeyed_and_its_name_is_free(tmp_path):
    rows = [(*row, split) for row, split in zip(pairs(4), ("train", "test", "train", "validation"), strict=True)]
    path = table(tmp_path / "p.csv", [(*PAIRS, "part"), *rows])
    corpus = own(path, split_column="part")
    assert sizes(corpus) == {"train": 2, "validation": 1, "test": 1}
    assert [corpus.texts[text] for text in corpus.split("test").sides[0]] == ["a1", "b1"]


@pytest.mark.parametrize(("first", "second"), [("", "test"), ("train", "")])
def test_a_split_column_filled_in_part_is_refused_and_leaks_no_test_row(tmp_path, first, second):
    path = table(tmp_path / "p.csv", [(*PAIRS, "split"), ("a", "b", "0", first), ("c", "d", "1", second)])
    with pytest.raises(CorpusError, match=r"p\.csv:3: some rows have a split and some have none; fill 'split' in"):
        own(path)


def test_an_unknown_split_names_the_nearest(tmp_path):
    path = table(tmp_path / "p.csv", [(*PAIRS, "split"), ("a", "b", "0", "valid")])
    with pytest.raises(CorpusError, match=r"p\.csv:2: unknown split 'valid'\. Did you mean 'validation'\?"):
        own(path)


def test_columns_are_named_by_the_user_in_any_order(tmp_path):
    path = table(tmp_path / "p.csv", [("id", "score", "second", "first"), ("7", "3", "b", "a")])
    corpus = own(path, score_range=(1.0, 5.0), fractions=(1.0, 0.0, 0.0))
    assert (corpus.texts, corpus.split("train").targets.tolist()) == (("a", "b"), [0.5])
    with pytest.raises(CorpusError, match=r"p\.csv:2: no column 'scores'.*Did you mean 'score'\?"):
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
    with pytest.raises(CorpusError, match=r"expected a file train\.csv .*found none"):
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
    found = {corpus.texts[side[0]]: target for side, target in zip(train.sides, train.targets, strict=True)}
    assert found == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b", "p.csv:3: expected 3 fields (first, second, score), found 2."),
        ("a,,1", "p.csv:3: text 2 is empty."),
        ("a,b,1.5", "p.csv:3: the score 1.5 is outside 0 to 1; correct it or set corpus.score_range."),
        ("a,b,NaN", "p.csv:3: the score NaN is outside 0 to 1"),
        ("a,b,x", "p.csv:3: the score must be a number, got 'x'."),
    ],
)
def test_a_bad_row_of_the_users_file_is_told_with_file_and_line(tmp_path, line, message):
    (tmp_path / "p.csv").write_text(f"first,second,score\na,b,1\n{line}\n")
    with pytest.raises(CorpusError) as error:
        own(tmp_path / "p.csv")
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)
    assert error.value.exit_code == 2


def test_a_target_left_unsaid_does_not_turn_scores_into_texts(tmp_path):
    with pytest.raises(CorpusError, match=r"p\.csv:2: expected one text or two, corpus\.columns and corpus\.target"):
        own(table(tmp_path / "p.csv", [PAIRS, *pairs(3)]), target="")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (CorpusSpec(), SpecError, "corpus.path or corpus.name must say which corpus"),
        (CorpusSpec(path="p.csv"), SpecError, "corpus.columns must name your columns"),
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
    assert len(corpus.texts) == corpus.sentences >= 500


def test_the_sample_topics_have_every_class_in_every_split():
    corpus = load_corpus(CorpusSpec(name="samples-topics"))
    assert list(corpus.splits) == list(SPLITS)
    for rows in corpus.splits.values():
        assert set(rows.targets.tolist()) == set(range(len(corpus.labels)))


@pytest.mark.parametrize("name", [name for name in NAMED if NAMED[name].folder == SAMPLES])
def test_no_sample_text_of_a_test_split_stands_in_training(name):
    corpus = load_corpus(CorpusSpec(name=name))
    used = {split: set(rows.sides.ravel().tolist()) for split, rows in corpus.splits.items()}
    assert not used["train"] & used.get("test", set())


REAL = {
    "stsb": ((5749, 1500, 1379), ()),
    "snli": ((21605, 9842, 9824), ("entailment", "neutral", "contradiction")),
    "sst2": ((67349, 872, 1821), ("negative", "positive")),
    "genericskb": ((55260,), ()),
}


@pytest.mark.parametrize("name", [name for name in NAMED if NAMED[name].hub])  # a new one without figures fails here
def test_a_real_corpus_has_its_published_size(name, monkeypatch):
    real_data(name)
    monkeypatch.setenv("PERMAFROST_DATA", str(REAL_DATA))
    rows, labels = REAL[name]
    corpus = load_corpus(CorpusSpec(name=name))
    assert sizes(corpus) == dict(zip(SPLITS, rows, strict=False))
    assert corpus.labels == labels
    if labels:
        assert set(corpus.split("test").targets.tolist()) == set(range(len(labels)))


def test_stsb_holds_17256_sentences_of_which_15457_are_distinct(monkeypatch):
    real_data("stsb")
    monkeypatch.setenv("PERMAFROST_DATA", str(REAL_DATA))
    corpus = load_corpus(CorpusSpec(name="stsb"))
    assert (corpus.sentences, len(corpus.texts)) == (17_256, 15_457)


def test_a_named_corpus_leaves_out_rows_without_an_agreed_label(tmp_path, monkeypatch):
    lines = [f'{{"premise": "p", "hypothesis": "h{n}", "label": "{label}"}}' for n, label in enumerate("0-2")]
    (tmp_path / "snli").mkdir()
    for split in SPLITS:
        (tmp_path / "snli" / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setenv("PERMAFROST_DATA", str(tmp_path))
    assert load_corpus(CorpusSpec(name="snli")).split("train").targets.tolist() == [0, 2]


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
    assert ("PERMAFROST_DATA" in message) == (name in NAMED)


def test_a_hub_data_set_is_read_like_a_file(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, label in (("train", "0"), ("test", "1")):
        (folder / f"{split}.jsonl").write_text(f'{{"text": "{split}", "label": {label}}}\n')
    spec = CorpusSpec(name=str(folder), columns=("text", "label"), target="class", labels=("no", "yes"))
    corpus = load_corpus(spec)
    assert {split: rows.targets.tolist() for split, rows in corpus.splits.items()} == {"train": [0], "test": [1]}
    (folder / "train.jsonl").write_text('{"text": "x", "label": 0}\n{"text": null, "label": 0}\n')
    with pytest.raises(CorpusError, match=r"set:train:2: the text is empty"):
        load_corpus(spec)
