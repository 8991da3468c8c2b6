"""Corpora: texts become distinct, targets become numbers, tags and answers become marks."""

from collections.abc import Iterator

import numpy as np
import pytest

from permafrost.data.corpora.build import build_corpus, check_training
from permafrost.data.corpora.encoding import Targets
from permafrost.data.corpora.records import CorpusError, Record, Span
from permafrost.data.text import Segments

SCORES = Targets("score", (0.0, 5.0))
COLOURS = Targets("class", labels=("red", "green"))


def records(*rows: tuple[str, ...], split: str = "train") -> list[Record]:
    """Each row is its texts, then its target."""
    return [
        Record(origin=f"f.csv:{line}", split=split, texts=row[:-1], target=row[-1]) for line, row in enumerate(rows, 2)
    ]


def test_a_text_that_comes_twice_is_held_once_in_order_of_first_appearance():
    corpus = build_corpus("c", records(("b", "a", "1"), ("a", "b", "2"), ("b", "c", "3")), SCORES)
    assert corpus.texts == ("b", "a", "c")
    assert corpus.splits["train"].texts.tolist() == [[0, 1], [1, 0], [0, 2]]
    assert (corpus.text_count, len(corpus.splits["train"])) == (6, 3)


def test_texts_are_kept_to_the_letter():
    corpus = build_corpus("c", records((" a ", "a", "1"), ("A", "a\n", "1")), SCORES)
    assert corpus.texts == (" a ", "a", "A", "a\n")


def test_scores_are_mapped_to_the_unit_interval():
    corpus = build_corpus("c", records(("a", "b", "0"), ("a", "c", "5"), ("a", "d", "1.25")), SCORES)
    assert corpus.splits["train"].targets.tolist() == [0.0, 1.0, 0.25]
    assert (corpus.score_range, corpus.labels) == ((0.0, 5.0), ())


def test_a_score_range_may_begin_below_zero():
    corpus = build_corpus("c", records(("a", "b", "0")), Targets("score", (-1.0, 1.0)))
    assert corpus.splits["train"].targets.tolist() == [0.5]


def test_labels_are_taken_by_name_and_by_number():
    corpus = build_corpus("c", records(("a", "green"), ("b", "0"), ("c", "1"), ("d", "red")), COLOURS)
    assert corpus.splits["train"].targets.tolist() == [1, 0, 1, 0]
    assert corpus.splits["train"].targets.dtype == np.int64
    assert (corpus.labels, corpus.score_range) == (("red", "green"), None)


def test_labels_that_look_like_numbers_are_names_first():
    corpus = build_corpus("c", records(("a", "1"), ("b", "0")), Targets("class", labels=("1", "0")))
    assert corpus.splits["train"].targets.tolist() == [0, 1]


def test_labels_not_given_are_those_of_the_training_rows():
    rows = [*records(("x", "b"), split="test"), *records(("y", "c"), ("z", "b"))]
    corpus = build_corpus("c", rows, Targets("class"))
    assert corpus.labels == ("b", "c")
    assert corpus.splits["test"].targets.tolist() == [0]


def test_a_corpus_without_targets_has_none():
    corpus = build_corpus("c", [Record(origin="f:1", split="train", texts=("a",), target=None)], Targets())
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
        build_corpus("c", records(row), targets)
    assert str(error.value).startswith(message)


def test_a_label_that_training_never_saw_is_unknown_elsewhere():
    with pytest.raises(CorpusError, match=r"f\.csv:2: unknown label 'c': it never occurs in training\. Known: b\."):
        build_corpus("c", [*records(("y", "b")), *records(("x", "c"), split="test")], Targets("class"))


def test_a_number_is_no_label_where_no_names_are_given():
    with pytest.raises(CorpusError, match="unknown label '0'"):
        build_corpus("c", [*records(("y", "b")), *records(("x", "0"), split="test")], Targets("class"))


def test_a_corpus_of_no_rows_is_refused():
    with pytest.raises(CorpusError, match=r"^c: it holds no rows\.$"):
        build_corpus("c", [], SCORES)


def test_a_missing_split_names_the_nearest():
    corpus = build_corpus("c", records(("a", "b", "1"), split="validation"), SCORES)
    assert len(corpus.split("validation")) == 1
    with pytest.raises(CorpusError, match=r"c: it has no split 'valid'\. Did you mean 'validation'\?"):
        corpus.split("valid")


def test_records_are_not_held_in_memory_while_they_are_read():
    taken = []

    def endless() -> Iterator[Record]:
        for number in range(10):
            taken.append(number)
            yield Record(origin=f"f:{number}", split="train", texts=("" if number == 3 else "x",), target="red")

    with pytest.raises(CorpusError, match="f:3"):
        build_corpus("c", endless(), COLOURS)
    assert taken == [0, 1, 2, 3]


def tagged(*words: str, split: str = "train", line: int = 1) -> Record:
    """A sentence of ``word/tag``."""
    pairs = [word.split("/") for word in words]
    starts = [sum(len(word) + 1 for word, _ in pairs[:number]) for number in range(len(pairs))]
    marks = (
        Span(start, start + len(word), tag, f"f.conll:{line + number}")
        for number, (start, (word, tag)) in enumerate(zip(starts, pairs, strict=True))
    )
    return Record(
        origin=f"f.conll:{line}", split=split, texts=(" ".join(word for word, _ in pairs),), spans=tuple(marks)
    )


TAGS = Targets("tags")


def test_every_word_of_a_tagged_sentence_is_a_mark_of_its_characters():
    corpus = build_corpus(
        "c", [tagged("Ada/B-PER", "Li/I-PER", "flew/O"), tagged("home/O"), tagged("Oslo/B-LOC")], TAGS
    )
    marks = corpus.split("train").spans
    assert corpus.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert (marks.codes.tolist(), marks.offsets.tolist()) == ([3, 4, 0, 0, 1], [0, 3, 4, 5])
    text = corpus.texts[0]
    assert [text[start:end] for start, end in marks.characters[:3]] == ["Ada", "Li", "flew"]
    assert corpus.split("train").targets.tolist() == [0, 0, 0]
    assert corpus.split("train").select(np.array([2])).spans.characters.tolist() == [[0, 4]]


def test_tags_are_taken_by_name_and_by_number_where_the_names_are_given():
    labels = ("O", "B-X", "I-X")
    corpus = build_corpus("c", [tagged("a/1", "b/2", "c/O", "d/B-X")], Targets("tags", labels=labels))
    assert corpus.split("train").spans.codes.tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a/O", "b/I-X"), "f.conll:2: invalid IOB transition: 'I-X' follows 'O'; expected B-X or I-X before it."),
        (("a/I-X",), "f.conll:1: invalid IOB transition: 'I-X' begins a sentence; expected B-X or I-X before it."),
        (("a/B-Y", "b/I-X"), "f.conll:2: invalid IOB transition: 'I-X' follows 'B-Y'; expected B-X or I-X"),
        (("a/B-Z",), "f.conll:1: unknown tag 'B-Z': it never occurs in training. Did you mean"),
    ],
)
def test_a_bad_tag_is_told_with_its_line(words, message):
    with pytest.raises(CorpusError) as error:
        build_corpus("c", [tagged("a/B-X", "b/I-X", "c/B-Y"), tagged(*words, split="test")], TAGS)
    assert str(error.value).startswith(message)


def test_an_entity_does_not_reach_over_the_end_of_its_sentence():
    with pytest.raises(CorpusError, match=r"f\.conll:3: invalid IOB transition: 'I-X' begins a sentence"):
        build_corpus("c", [tagged("a/O", "b/B-X"), tagged("c/I-X", line=3)], TAGS)


@pytest.mark.parametrize("labels", [("B-X", "I-X", "O"), ("O", "X")])
def test_labels_of_tags_must_be_those_of_iob2(labels):
    with pytest.raises(CorpusError, match=r"corpus\.labels: of tags they are 'O', then B-TYPE"):
        build_corpus("c", [tagged("a/O")], Targets("tags", labels=labels))


def test_what_is_no_tag_of_iob2_is_refused_at_its_word_whoever_read_it():
    with pytest.raises(CorpusError, match=r"f\.conll:2: 'B_X' is no IOB2 tag; expected O, B-TYPE or I-TYPE"):
        build_corpus("c", [tagged("a/O", "b/B_X")], TAGS)


@pytest.mark.parametrize(("label", "fault"), [(" ", "is empty"), ("\ud800", "holds half a character")])
def test_a_label_must_be_a_text(label, fault):
    with pytest.raises(CorpusError, match=f"the label {fault}"):
        build_corpus("c", records(("a", "red"), ("b", label)), Targets("class"))


def test_training_rows_without_an_entity_are_refused():
    with pytest.raises(CorpusError, match="c: its training rows hold no entity: every tag is 'O'"):
        build_corpus("c", [tagged("a/O")], TAGS)


def test_answers_are_marks_of_the_context_and_the_first_is_the_one_to_learn():
    text = Segments("who?", "it was Ada Li")
    corpus = build_corpus(
        "q", [Record(origin="f: 1", split="train", texts=(text,), spans=(Span(7, 13), Span(7, 10)))], Targets("answers")
    )
    rows = corpus.split("train")
    assert (corpus.texts, corpus.kind, corpus.labels) == ((text,), "answers", ())
    assert (rows.texts.tolist(), rows.targets.tolist()) == ([[0]], [0])
    assert (rows.spans.characters.tolist(), rows.spans.codes.tolist()) == ([[7, 13], [7, 10]], [0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (Segments(" ", "c"), "f:1: the question is empty."),
        (Segments("q", ""), "f:1: the context is empty."),
        (Segments("q", "\ud800"), "f:1: the context holds half a character"),
    ],
)
def test_both_segments_of_a_text_are_checked(text, message):
    with pytest.raises(CorpusError) as error:
        build_corpus("q", [Record(origin="f:1", split="train", texts=(text,), spans=(Span(0, 1),))], Targets("answers"))
    assert str(error.value).startswith(message)


def test_a_class_that_never_occurs_in_training_is_named():
    corpus = build_corpus("c", [*records(("a", "red")), *records(("b", "green"), split="test")], COLOURS)
    with pytest.raises(
        CorpusError, match=r"^c: the class 'green' never occurs in its 1 training rows; .*corpus\.labels"
    ):
        check_training(corpus)
    check_training(build_corpus("c", records(("a", "red"), ("b", "green")), COLOURS))
    check_training(build_corpus("c", records(("a", "red"), split="validation"), COLOURS))  # nothing is learnt


def test_an_entity_type_must_occur_in_training_but_may_be_of_single_words():
    corpus = build_corpus("c", [tagged("a/B-X")], Targets("tags", labels=("O", "B-X", "I-X")))
    with pytest.raises(CorpusError, match="the tag 'O' never occurs in its 1 training rows"):
        check_training(corpus)
    check_training(build_corpus("c", [tagged("a/B-X", "b/O")], TAGS))
    with pytest.raises(CorpusError, match="the tag 'B-Y' never occurs"):
        check_training(build_corpus("c", [tagged("a/B-X", "b/O")], Targets("tags", labels=("O", "B-X", "I-X", "B-Y"))))
