"""Untrained references: the commonest class, the commonest tag of each word, the sentence most like the question."""

from collections import Counter

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows, Spans
from permafrost.data.ragged import offsets_from_lengths
from permafrost.data.text import Segments
from permafrost.probes.metrics.squad import answer_text
from permafrost.probes.tasks.registry import TASKS
from tests.support.synthetic import TAGS, classed, inputs, scored, tagged
from tests.support.trainings import scorer_of


def test_the_commonest_class_is_that_of_training():
    rows = Rows(np.arange(5)[:, None], np.array([2, 1, 2, 0, 2]))
    other = Rows(np.arange(4)[:, None], np.array([0, 0, 0, 1]))
    corpus = Corpus(
        name="toy", texts=tuple("abcde"), splits={"train": rows, "test": other}, labels=("x", "y", "z"), kind="class"
    )
    said = TASKS["class"].untrained(corpus, other)
    assert said.tolist() == [2] * 4
    assert scorer_of(corpus, "test").value("accuracy", said) == 0


def sentences_of(train: list[str], test: list[str]) -> Corpus:
    """Sentences as ``word/TAG word/TAG``."""
    texts, splits = [], {}
    for name, some in (("train", train), ("test", test)):
        spans, codes, counts, first = [], [], [], len(texts)
        for line in some:
            pairs = [word.rsplit("/", 1) for word in line.split()]
            at = 0
            for word, tag in pairs:
                spans.append((at, at + len(word)))
                codes.append(TAGS.index(tag))
                at += len(word) + 1
            texts.append(" ".join(word for word, _ in pairs))
            counts.append(len(pairs))
        marks = Spans(np.array(spans), np.array(codes), offsets_from_lengths(np.array(counts)))
        splits[name] = Rows(np.arange(first, len(texts))[:, None], np.zeros(len(some)), marks)
    return Corpus(name="toy", texts=tuple(texts), splits=splits, labels=TAGS, kind="tags")


def test_a_word_has_the_tag_that_it_has_most_often_in_training_and_an_unknown_one_none():
    corpus = sentences_of(
        ["Oslo/B-LOC is/O far/O", "Ada/B-PER Li/I-PER is/O in/O Oslo/B-LOC", "Oslo/B-PER sings/O"],
        ["Oslo/B-LOC is/O new/O", "Ada/B-PER Li/I-PER sleeps/O", "Li/B-PER sings/O"],
    )
    said = TASKS["tags"].untrained(corpus, corpus.split("test"))
    names = [TAGS[code] for code in said]
    assert names[:6] == ["B-LOC", "O", "O", "B-PER", "I-PER", "O"]
    assert names[6] != "I-PER"  # which opens no entity


@pytest.mark.parametrize("seed", range(3))
def test_where_the_commonest_tags_can_follow_each_other_they_are_said_and_no_others_ever(seed):
    _, corpus = tagged(60, seed=seed)
    train, rows = corpus.split("train"), corpus.split("validation")
    counts: dict[str, Counter[int]] = {}

    def words(some: Rows, row: int) -> list[str]:
        own = some.spans.characters[some.spans.offsets[row] : some.spans.offsets[row + 1]]
        return [corpus.texts[some.texts[row, 0]][first:last] for first, last in own]

    for row in range(len(train)):
        own = train.spans.codes[train.spans.offsets[row] : train.spans.offsets[row + 1]]
        for word, code in zip(words(train, row), own, strict=True):
            counts.setdefault(word, Counter())[int(code)] += 1
    said, compared = TASKS["tags"].untrained(corpus, rows), 0
    for row in range(len(rows)):
        own = [TAGS[code] for code in said[rows.spans.offsets[row] : rows.spans.offsets[row + 1]]]
        for before, after in zip(["O", *own], own, strict=False):
            assert not after.startswith("I-") or before in (f"B-{after[2:]}", after)
        every = [counts.get(word, Counter({0: 1})) for word in words(rows, row)]
        plain = [TAGS[max(one, key=one.get)] for one in every]
        tied = any(len(one) > 1 for one in every)
        valid = all(
            not after.startswith("I-") or before in (f"B-{after[2:]}", after)
            for before, after in zip(["O", *plain], plain, strict=False)
        )
        if valid and not tied:
            compared += 1
            assert own == plain
    assert compared > 3


@pytest.mark.parametrize(
    ("question", "context", "expected"),
    [
        (
            "Who built the tower?",
            "It rained. Anna built the tower in 1999. Then she left.",
            "Anna built the tower in 1999.",
        ),
        ("What costs 3.50 euros?", "Tea is free. Coffee costs 3.50 euros here! Cake?", "Coffee costs 3.50 euros here!"),
        ("Which?", "First words stand here. Second.", "First words stand here."),  # none has a word: the first
        ("What is it?", "no full stop at all", "no full stop at all"),
        ("What is it?", "...", "..."),
        ("Is dogs barking?", "Cats sleep... dogs are barking? Yes.", "dogs are barking?"),
        ("谁赢了比赛？", "天气很好。野马队赢了“比赛”！然后他们走了。", "野马队赢了“比赛”！"),
        ("谁赢了3.5万?", "天气很好?野马队赢了3.5万.他们走了", "野马队赢了3.5万."),
        ("誰が塔を建てた？", "雨が降った。「花子が塔を建てた。」彼女は去った。", "「花子が塔を建てた。」"),
        ("ใครสร้างหอคอย", "ฝนตกหนัก อันนาสร้างหอคอย แล้วเธอก็ไป", "อันนาสร้างหอคอย"),
        ("मीनार किसने बनाई?", "बारिश हुई। अन्ना ने मीनार बनाई। वह गई।", "अन्ना ने मीनार बनाई।"),
        ("من بنى البرج؟", "هل أمطرت؟ بنت آنا البرج۔ ثم رحلت.", "بنت آنا البرج۔"),
    ],
)
def test_the_answer_is_the_sentence_with_most_words_of_the_question(question, context, expected):
    texts = (Segments("unused", "unused"), Segments(question, context))
    marks = Spans(np.array([(0, 1)]), np.zeros(1, np.int64), np.array([0, 1]))
    rows = Rows(np.array([[1]]), np.zeros(1), marks)
    corpus = Corpus(name="toy", texts=texts, splits={"test": rows}, kind="answers")
    (span,) = TASKS["answers"].untrained(corpus, rows)
    assert answer_text(context, span) == expected


def label_sets(train: list[list[int]], test: list[list[int]]) -> Corpus:
    splits, texts = {}, tuple(map(str, range(len(train) + len(test))))
    for name, first, sets in (("train", 0, train), ("test", len(train), test)):
        splits[name] = Rows(np.arange(first, first + len(sets))[:, None], np.array(sets, np.float64))
    return Corpus(name="toy", texts=texts, splits=splits, labels=("x", "y", "z"), kind="labels")


def test_the_labels_that_half_of_the_training_rows_have_are_predicted_for_every_row():
    corpus = label_sets([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]], [[1, 1, 0], [0, 0, 1]])
    decoded = TASKS["labels"].untrained(corpus, corpus.split("test"))
    assert (decoded >= 0).tolist() == [[True, True, False]] * 2
    scorer = scorer_of(corpus, "test")
    assert scorer.value("subset_accuracy", decoded) == 0.5
    assert scorer.value("micro_f1", decoded) == pytest.approx(2 * 2 / (4 + 3))
    assert scorer.value("mean_average_precision", decoded) == pytest.approx(0.5)  # all rows tie, half have each label


def test_every_kind_that_has_no_cosine_has_a_reference():
    pairs = scored(inputs())
    assert TASKS["score"].untrained(pairs, pairs.split("validation")) is None
    corpus = classed(inputs(texts=120))
    said = TASKS["class"].untrained(corpus, corpus.split("validation"))
    assert 0 < scorer_of(corpus, "validation").value("accuracy", said) < 0.6
