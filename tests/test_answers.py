"""Answers against the official rules of SQuAD 1.1, written out once more; and widened to whole words."""

import string
from collections import Counter

import numpy as np
import pytest

from probes.answers import answer_text, exact_match, normalised, overlap, whole_words

CONTEXT = "Its height is 8,848.86 metres, or so they say."


def official_normalised(text: str) -> str:
    """In the order of the official rules: lower case, no punctuation, no articles, single spaces."""
    lower = text.lower()
    bare = "".join(character for character in lower if character not in set(string.punctuation))
    kept = []
    word = ""
    for character in bare + " ":  # words as a regular expression sees their borders
        if character.isalnum() or character == "_":
            word += character
            continue
        kept.append("" if word in ("a", "an", "the") else word)
        kept.append(character)
        word = ""
    return " ".join("".join(kept).split())


def official_f1(prediction: str, truth: str) -> float:
    said, true = official_normalised(prediction).split(), official_normalised(truth).split()
    common = sum((Counter(said) & Counter(true)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(true)
    return 2 * precision * recall / (precision + recall)


PAIRS = [
    ("The Eiffel Tower", "eiffel tower"),
    ("an  apple a day", "apple day"),
    ("U.S.A.", "usa"),
    ("well-known", "wellknown"),
    ("it's", "its"),
    ("the the cat", "cat cat"),
    ("cat cat cat", "cat cat dog"),
    ("a", "the"),
    ("", ""),
    ("", "word"),
    ("!?", "..."),
    ("Ünïcödé the É", "ünïcödé é"),
    ("The café\u00a0au lait", "cafe au lait"),
    ("anthem theatre", "anthem"),
    ("8,848.86 metres", "8848.86 m"),
    ("in 1 999", "1 999"),
    ("“quoted”", "quoted"),
    ("the–dash", "–dash"),
]


@pytest.mark.parametrize(("said", "true"), PAIRS)
def test_two_answers_are_compared_by_the_official_rules(said, true):
    assert normalised(said) == official_normalised(said)
    assert exact_match(said, true) == float(official_normalised(said) == official_normalised(true))
    assert overlap(said, true) == pytest.approx(official_f1(said, true))
    assert overlap(true, said) == overlap(said, true)


def test_random_answers_are_compared_by_the_official_rules():
    rng = np.random.default_rng(0)
    words = ["a", "An", "the", "cat", "cat.", "dog", "theory", "it's", "é", "-", "42", "  "]
    for _ in range(300):
        said, true = (" ".join(rng.choice(words, rng.integers(0, 6))) for _ in range(2))
        assert normalised(said) == official_normalised(said)
        assert overlap(said, true) == pytest.approx(official_f1(said, true))
        assert exact_match(said, true) == float(official_normalised(said) == official_normalised(true))


def test_known_figures():
    assert normalised("The  quick, brown fox's!") == "quick brown foxs"
    assert exact_match("the Cat", "cat!") == 1
    assert overlap("cat sat", "the cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert overlap("cat cat", "cat") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("8,848.86 metres", "8,848.86 metres"),
        ("48.86 met", "848.86 metres"),  # a number and a word are not cut
        ("848.8", "848.86"),
        (" 8,848.86 metres", "8,848.86 metres"),
        (" height ", "height"),
        ("eigh", "height"),
        ("height is", "height is"),
        (", or", ", or"),
        ("they say.", "they say."),
        ("Its height", "Its height"),
        ("ts", "Its"),
    ],
)
def test_a_span_is_widened_to_whole_words_and_loses_the_space_at_its_ends(given, wanted):
    at = CONTEXT.index(given)
    first, last = whole_words(CONTEXT, at, at + len(given))
    assert CONTEXT[first:last] == wanted
    assert answer_text(CONTEXT, (at, at + len(given))) == wanted


@pytest.mark.parametrize("span", [(-1, -1), (3, 3), (5, 4), (0, 999), (-1, 4)])
def test_what_is_no_span_of_the_context_is_no_answer(span):
    assert whole_words(CONTEXT, *span) == (0, 0)
    assert answer_text(CONTEXT, span) == ""


def test_a_span_of_spaces_alone_is_no_answer():
    first, last = whole_words("ab   cd", 2, 5)
    assert first == last


def test_every_span_widens_to_one_that_holds_it_and_cuts_no_word():
    text = " Ünï-cödé, 3.14  (日本語) x9 "
    for first in range(len(text)):
        for last in range(first + 1, len(text) + 1):
            low, high = whole_words(text, first, last)
            assert text[first:last].strip() in text[low:high]
            if low < high:
                assert text[low:high] == text[low:high].strip()
                assert not (low and text[low - 1].isalnum() and text[low].isalnum())
                assert not (high < len(text) and text[high - 1].isalnum() and text[high].isalnum())
                assert (low, high) == whole_words(text, low, high)
