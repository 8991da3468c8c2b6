"""Label sets: how the labels of a row may be written, and what becomes of rows that have none or several."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.corpora.build import build_corpus, check_training
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.label_sets import format_labels, parse_labels, read_labels, sorted_labels
from permafrost.data.corpora.records import HELD_OUT, CorpusError, Record
from permafrost.data.corpora.splits import cut_by_seed, with_held_out

SETS = Targets("labels")
GIVEN = Targets("labels", labels=("late", "broken", "thanks"))

names = st.text(st.characters(exclude_characters=",|; ", categories=("L", "N")), min_size=1, max_size=4)


def records(*rows: tuple[str, ...], split: str = "train") -> list[Record]:
    """Each row is its texts, then its labels."""
    return [
        Record(origin=f"f.csv:{line}", split=split, texts=row[:-1], target=row[-1]) for line, row in enumerate(rows, 2)
    ]


@given(labels=st.lists(names, max_size=6), separator=st.sampled_from([",", "|", ";", " ", " / "]))
def test_labels_are_the_same_whether_separated_or_a_list(labels, separator):
    expected = tuple(dict.fromkeys(labels))
    assert parse_labels("f:1", separator.join(labels), separator) == expected
    assert parse_labels("f:1", f" {separator} ".join(labels), separator) == expected
    assert parse_labels("f:1", json.dumps([f" {label}\n" for label in labels]), separator) == expected


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("", ()),
        (" , ", ()),
        ("[]", ()),
        (" [3, 17, 3]", ("3", "17")),
        ('["a, b"]', ("a, b",)),
        ("a,,b,", ("a", "b")),
        ("[a], b", ("[a]", "b")),
        ("['a', \"b's\"]", ("a", "b's")),
        ("(a, [b", ("(a", "[b")),
        ('{"a": 1}', ('{"a": 1}',)),
    ],
)
def test_a_cell_is_a_list_only_if_it_is_one(cell, labels):
    assert parse_labels("f:1", cell, ",") == labels


@given(labels=st.lists(st.text(st.sampled_from('a, ["b'), min_size=1, max_size=4), max_size=4))
def test_labels_in_a_table_are_read_back(labels):
    labels = [label.strip() or "x" for label in labels]
    assert read_labels(format_labels(labels)) == labels


@pytest.mark.parametrize("cell", ['[1, "a"', "[a, b]", "['a', 'b'", "['a' 'b']", "[ 3 10]"])
def test_a_list_that_is_broken_is_not_taken_for_names(cell):
    with pytest.raises(CorpusError) as error:
        parse_labels("f.csv:2", cell, ",")
    assert str(error.value).startswith("f.csv:2: the labels begin with '[' and are no list")


@pytest.mark.parametrize("item", ["1.5", "null", "true", '["a"]', '{"a": 1}'])
def test_what_is_no_label_in_a_list_is_told_with_its_place(item):
    with pytest.raises(CorpusError) as error:
        build_corpus("c", records(("x", f'["a", {item}]')), SETS)
    assert str(error.value) == f"f.csv:2: a list of labels holds their names or numbers, found {item}."


@given(st.sets(st.integers(-99, 99), max_size=9))
def test_numbers_are_sorted_as_numbers_and_all_else_by_letter(numbers):
    assert sorted_labels(map(str, numbers)) == tuple(map(str, sorted(numbers)))
    assert sorted_labels([*map(str, numbers), "a"]) == tuple(sorted([*map(str, numbers), "a"]))


def test_a_row_has_a_one_for_each_of_its_labels_and_may_have_none():
    corpus = build_corpus("c", records(("a", "late, broken"), ("b", ""), ("c", "thanks,late,late")), SETS)
    targets = corpus.split("train").targets
    assert (corpus.labels, corpus.kind, corpus.score_range) == (("broken", "late", "thanks"), "labels", None)
    assert targets.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert targets.dtype == np.float64


def test_pairs_of_texts_may_have_label_sets_too():
    rows = build_corpus("c", records(("a", "b", "x|y"), ("b", "a", "y")), Targets("labels", label_separator="|"))
    assert rows.split("train").texts.tolist() == [[0, 1], [1, 0]]
    assert rows.split("train").targets.tolist() == [[1, 1], [0, 1]]


def test_given_labels_keep_their_order_and_may_be_written_by_number():
    corpus = build_corpus("c", records(("a", "2,late"), ("b", "[1]"), ("c", "thanks, 2")), GIVEN)
    assert corpus.labels == GIVEN.labels
    assert corpus.split("train").targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("late,brokn", "f.csv:2: unknown label 'brokn'. Did you mean 'broken'?"),
        ("3", "f.csv:2: unknown label '3'. Known: broken, late, thanks."),
        ('["late", -1]', "f.csv:2: unknown label '-1'."),
    ],
)
def test_an_unknown_label_is_told_with_its_place_and_the_nearest(cell, message):
    with pytest.raises(CorpusError) as error:
        build_corpus("c", records(("a", cell)), GIVEN)
    assert str(error.value).startswith(message)


def test_a_label_that_training_never_saw_stays_and_is_noted():
    rows = [*records(("x", "b"), ("z", "d")), *records(("y", "c,b"), split="test")]
    corpus = build_corpus("c", rows, SETS)
    assert corpus.labels == ("b", "c", "d")
    assert corpus.split("test").targets.tolist() == [[1, 1, 0]]
    assert check_training(corpus) == (
        "no training row has 'c': such a label cannot be learnt, is never predicted, and counts as missed where it "
        "occurs",
    )
    (note,) = check_training(build_corpus("c", records(("a", "late")), GIVEN))
    assert note.startswith("no training row has 'broken', 'thanks': ")


def test_texts_with_several_label_sets_are_kept_and_counted():
    rows = [*records(("x", "a"), ("x", "b"), ("y", "a"), ("y", "a"), ("z", "b")), *records(("z", ""), split="test")]
    corpus = build_corpus("c", rows, SETS)
    assert [len(corpus.split(split)) for split in ("train", "test")] == [5, 1]
    assert check_training(corpus) == (
        "texts that occur in several rows with different labels: 2; all their rows are kept",
    )


def test_rows_of_the_same_text_are_cut_into_the_same_split():
    rows = records(*((f"text {number // 3}", f"label {number % 4}") for number in range(120)), split="")
    corpus = with_held_out(build_corpus("c", cut_by_seed(rows, (0.6, 0.2, 0.2), 0), SETS), 0.2, 0)
    texts = {split: set(corpus.split(split).texts.ravel().tolist()) for split in (HELD_OUT, "train", "test")}
    assert not texts["train"] & texts[HELD_OUT]
    assert not texts["train"] & texts["test"]
    assert corpus.split(HELD_OUT).targets.shape == (len(corpus.split(HELD_OUT)), 4)


def test_one_label_is_enough_and_none_is_refused():
    assert check_training(build_corpus("c", records(("a", "x"), ("b", "")), SETS)) == ()
    rows = [*records(("a", ""), ("b", "[]")), *records(("c", "x"), split="test")]
    with pytest.raises(CorpusError, match=r"^c: none of its 2 training rows has a label; check corpus\.columns and"):
        check_training(build_corpus("c", rows, SETS))
    with pytest.raises(CorpusError, match=r"^c: it has no training rows to take its classes from"):
        build_corpus("c", records(("c", "x"), split="test"), SETS)


def test_a_label_that_cannot_be_a_text_is_refused():
    with pytest.raises(CorpusError, match=r"f\.csv:2: the label holds half a character"):
        build_corpus("c", records(("a", "x,\ud800")), SETS)
