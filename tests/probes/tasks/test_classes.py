"""Surface patterns: negation is a word, overlap is of words or characters, and every group is what its name says."""

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Corpus, Rows
from permafrost.probes.tasks.classes import patterns, word_overlap


def of_classes(texts: tuple[str, ...], sides: int) -> Corpus:
    rows = Rows(np.arange(len(texts)).reshape(-1, sides), np.zeros(len(texts) // sides, np.int64))
    return Corpus(name="toy", texts=texts, splits={"test": rows}, labels=("a", "b"), kind="class")


NEGATED = {
    "It isn't here.": True, "it isn’t here": True, "they do n't go": True, "Not today": True, "nobody came": True,
    "I cannot": True, "a knot in a note": False, "nonetheless fine": False, "notable": False, "": False,
    "他说no。": True, "no\u0301": False, "他不去": False,
}  # fmt: skip


def test_negation_is_a_word_of_the_text_that_is_looked_at():
    corpus = of_classes(tuple(NEGATED), 1)
    assert patterns(corpus, corpus.split("test"))["negation"].tolist() == list(NEGATED.values())
    pairs = of_classes(("no", "a dog runs", "a dog", "no dog", "b", "x"), 2)
    found = patterns(pairs, pairs.split("test"))
    assert found["negation"].tolist() == [False, True, False]
    assert found["high word overlap"].tolist() == [False, True, False]
    assert (found["no negation"] == ~found["negation"]).all()


def test_a_pattern_that_no_row_has_is_left_out():
    corpus = of_classes(("a", "b", "c", "d"), 1)
    assert patterns(corpus, corpus.split("test")) == {}


def test_overlap_is_of_the_second_text():
    assert word_overlap("A dog runs in the park", "the dog, the DOG sleeps") == pytest.approx(2 / 3)
    assert word_overlap("a", "") == 0


OVERLAPS = [
    ("野马队赢了比赛。", "野马队输了比赛", 6 / 7),
    ("野马队赢了比赛", "上海", 0),
    ("Apple公司在北京", "Apple 公司", 1),
    ("トヨタ自動車", "トヨタ", 1),
    ("ที่นี่", "ที่นั่น", 1 / 3),
    ("हिन्दी भाषा", "हिन्दी की भाषा।", 2 / 3),
    ("हिन्दी", "हिन", 0),
    ("كِتَابٌ جَمِيلٌ", "كِتَابٌ", 1),
    ("Cafe\u0301 noir", "cafe\u0301", 1),
]


@pytest.mark.parametrize(("first", "second", "share"), OVERLAPS)
def test_overlap_is_of_words_or_of_characters_where_there_are_no_spaces(first, second, share):
    assert word_overlap(first, second) == pytest.approx(share)
