"""Corpora: texts become distinct, targets become numbers, and splits that are cut do not leak."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import SPLITS, CorpusError, Record, Targets, cut_by_seed, gather

SCORES = Targets("score", (0.0, 5.0))
COLOURS = Targets("class", labels=("red", "green"))


def records(*rows: tuple[str, ...], split: str = "train") -> list[Record]:
    """Each row is its texts, then its target."""
    return [Record(f"f.csv:{line}", split, row[:-1], row[-1]) for line, row in enumerate(rows, 2)]


def test_a_text_that_comes_twice_is_held_once_in_order_of_first_appearance():
    corpus = gather("c", records(("b", "a", "1"), ("a", "b", "2"), ("b", "c", "3")), SCORES)
    assert corpus.texts == ("b", "a", "c")
    assert corpus.splits["train"].sides.tolist() == [[0, 1], [1, 0], [0, 2]]
    assert (corpus.sentences, len(corpus.splits["train"])) == (6, 3)


def test_texts_are_kept_to_the_letter():
    corpus = gather("c", records((" a ", "a", "1"), ("A", "a\n", "1")), SCORES)
    assert corpus.texts == (" a ", "a", "A", "a\n")


def test_scores_are_mapped_to_the_unit_interval():
    corpus = gather("c", records(("a", "b", "0"), ("a", "c", "5"), ("a", "d", "1.25")), SCORES)
    assert corpus.splits["train"].targets.tolist() == [0.0, 1.0, 0.25]
    assert (corpus.score_range, corpus.labels) == ((0.0, 5.0), ())


def test_a_score_range_may_begin_below_zero():
    corpus = gather("c", records(("a", "b", "0")), Targets("score", (-1.0, 1.0)))
    assert corpus.splits["train"].targets.tolist() == [0.5]


def test_labels_are_taken_by_name_and_by_number():
    corpus = gather("c", records(("a", "green"), ("b", "0"), ("c", "1"), ("d", "red")), COLOURS)
    assert corpus.splits["train"].targets.tolist() == [1, 0, 1, 0]
    assert corpus.splits["train"].targets.dtype == np.int64
    assert (corpus.labels, corpus.score_range) == (("red", "green"), None)


def test_labels_that_look_like_numbers_are_names_first():
    corpus = gather("c", records(("a", "1"), ("b", "0")), Targets("class", labels=("1", "0")))
    assert corpus.splits["train"].targets.tolist() == [0, 1]


def test_labels_not_given_are_those_of_the_training_rows():
    rows = [*records(("x", "b"), split="test"), *records(("y", "c"), ("z", "b"))]
    corpus = gather("c", rows, Targets("class"))
    assert corpus.labels == ("b", "c")
    assert corpus.splits["test"].targets.tolist() == [0]


def test_a_corpus_without_targets_has_none():
    corpus = gather("c", [Record("f:1", "train", ("a",), None)], Targets())
    assert (corpus.labels, corpus.score_range) == ((), None)
    assert corpus.splits["train"].targets.tolist() == [0]


@pytest.mark.parametrize(
    ("row", "targets", "message"),
    [
        (("a", "", "1"), SCORES, "f.csv:2: text 2 is empty."),
        ((" \t", "b", "1"), SCORES, "f.csv:2: text 1 is empty."),
        (("\u3000", "red"), COLOURS, "f.csv:2: the text is empty."),
        (
            ("a", "b", "5.01"),
            SCORES,
            "f.csv:2: the score 5.01 is outside 0 to 5; correct it or set corpus.score_range.",
        ),
        (("a", "b", "-1"), SCORES, "f.csv:2: the score -1 is outside 0 to 5"),
        (("a", "b", "nan"), SCORES, "f.csv:2: the score nan is outside 0 to 5"),
        (("a", "b", "inf"), SCORES, "f.csv:2: the score inf is outside 0 to 5"),
        (("a", "b", "high"), SCORES, "f.csv:2: the score must be a number, got 'high'."),
        (("a", "b", ""), SCORES, "f.csv:2: the score must be a number, got ''."),
        (("a", "b", "1,5"), SCORES, "f.csv:2: the score must be a number, got '1,5'."),
        (("a", "gren"), COLOURS, "f.csv:2: unknown label 'gren'. Did you mean 'green'?"),
        (("a", "2"), COLOURS, "f.csv:2: unknown label '2'. Known: green, red."),
        (("a", "-1"), COLOURS, "f.csv:2: unknown label '-1'."),
        (("a", "²"), COLOURS, "f.csv:2: unknown label '²'."),
        (("1",), SCORES, "f.csv:2: expected one text or two, corpus.columns and corpus.target make it 0."),
        (
            ("a", "b", "c", "1"),
            SCORES,
            "f.csv:2: expected one text or two, corpus.columns and corpus.target make it 3.",
        ),
    ],
)
def test_a_bad_row_is_told_with_its_place(row, targets, message):
    with pytest.raises(CorpusError) as error:
        gather("c", records(row), targets)
    assert str(error.value).startswith(message)


def test_a_label_that_training_never_saw_is_unknown_elsewhere():
    with pytest.raises(CorpusError, match=r"f\.csv:2: unknown label 'c'\. Known: b\."):
        gather("c", [*records(("y", "b")), *records(("x", "c"), split="test")], Targets("class"))


def test_a_number_is_no_label_where_no_names_are_given():
    with pytest.raises(CorpusError, match="unknown label '0'"):
        gather("c", [*records(("y", "b")), *records(("x", "0"), split="test")], Targets("class"))


def test_a_corpus_of_no_rows_is_refused():
    with pytest.raises(CorpusError, match=r"^c: it holds no rows\.$"):
        gather("c", [], SCORES)


def test_a_missing_split_names_the_nearest():
    corpus = gather("c", records(("a", "b", "1"), split="validation"), SCORES)
    assert len(corpus.split("validation")) == 1
    with pytest.raises(CorpusError, match=r"c: it has no split 'valid'\. Did you mean 'validation'\?"):
        corpus.split("valid")


def test_a_limit_keeps_the_first_rows_of_each_split_and_only_their_texts():
    rows = [Record(f"f:{n}", split, (f"{split} {n}",), "red") for n in range(5) for split in ("test", "train")]
    corpus = gather("c", rows, COLOURS, limit=2)
    assert list(corpus.splits) == ["train", "test"]
    assert {len(part) for part in corpus.splits.values()} == {2}
    assert set(corpus.texts) == {"test 0", "test 1", "train 0", "train 1"}


def test_records_are_not_held_in_memory_while_they_are_read():
    taken = []

    def endless() -> Iterator[Record]:
        for number in range(10):
            taken.append(number)
            yield Record(f"f:{number}", "train", ("" if number == 3 else "x",), "red")

    with pytest.raises(CorpusError, match="f:3"):
        gather("c", endless(), COLOURS)
    assert taken == [0, 1, 2, 3]


def test_the_first_rows_keep_sides_and_targets_together():
    rows = gather("c", records(("a", "b", "1"), ("c", "d", "2")), SCORES, limit=1).splits["train"]
    assert (rows.sides.tolist(), rows.targets.tolist()) == ([[0, 1]], [0.2])


uncut = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=40)


@given(pairs=uncut, seed=st.integers(0, 99))
def test_a_cut_loses_nothing_and_repeats_itself_and_never_parts_a_pair(pairs, seed):
    before = records(*((a, b, str(number)) for number, (a, b) in enumerate(pairs)), split="")
    after = list(cut_by_seed(before, (0.5, 0.25, 0.25), seed))
    assert after == list(cut_by_seed(before, (0.5, 0.25, 0.25), seed))
    assert sorted(record.place for record in after) == sorted(record.place for record in before)
    homes: dict[frozenset[str], set[str]] = {}
    for record in after:
        homes.setdefault(frozenset(record.texts), set()).add(record.split)
    assert all(len(splits) == 1 and splits <= set(SPLITS) for splits in homes.values())


def test_a_cut_has_the_shares_asked_and_another_seed_cuts_otherwise():
    before = records(*((f"a{n}", f"b{n}", "1") for n in range(200)), split="")
    cuts = [[record.split for record in cut_by_seed(before, (0.8, 0.1, 0.1), seed)] for seed in (0, 1)]
    assert [[cut.count(split) for split in SPLITS] for cut in cuts] == [[160, 20, 20]] * 2
    assert cuts[0] != cuts[1]
    assert len({record.split for record in cut_by_seed(before, (1.0, 0.0, 0.0), 0)}) == 1
