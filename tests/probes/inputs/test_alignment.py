"""Where characters lie among tokens, whatever a tokenizer makes of words, spaces and bytes."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from permafrost.data.corpora.corpus import Rows, Spans
from permafrost.data.ragged import TokenIndex
from permafrost.probes.inputs.alignment import answer_tokens, first_tokens, tokens_at
from tests.support.synthetic import SPECIAL, answered, pieces, tagged, token_inputs

WORDPIECE = [SPECIAL, (0, 3), (4, 6), (6, 9), (10, 11), SPECIAL]
BYTE_LEVEL = [(0, 3), (3, 6), (6, 9), (9, 11)]  # a word has the space before it
MANY_BYTES = [SPECIAL, (0, 1), (1, 2), (1, 2), (1, 2), (2, 4), SPECIAL]  # three tokens of one character
HALF_A_CHARACTER = [(0, 2), (1, 2), (1, 4), (4, 5)]  # bytes of a character go with those before it, and after it
CUT = [SPECIAL, (0, 3), (4, 6), SPECIAL]
NOTHING = [SPECIAL, SPECIAL]
TEXTS = [WORDPIECE, BYTE_LEVEL, MANY_BYTES, HALF_A_CHARACTER, CUT, NOTHING]


def slow_token(found: TokenIndex, window: int, character: int) -> int:
    """Token by token."""
    for token in range(found.offsets[window], found.offsets[window + 1]):
        first, last = found.spans[token]
        if first <= character < last:
            return token
    return -1


def test_the_token_of_a_character_is_the_first_that_covers_it_in_its_own_text():
    found = token_inputs(TEXTS).tokens
    places = [(window, character) for window in range(len(TEXTS)) for character in range(14)]
    windows, characters = np.array(places).T
    said = tokens_at(found, windows, characters)
    assert said.tolist() == [slow_token(found, *place) for place in places]
    assert (said >= 0).sum() > 30
    order = np.random.default_rng(0).permutation(len(places))
    np.testing.assert_array_equal(tokens_at(found, windows[order], characters[order]), said[order])


@pytest.mark.parametrize(
    ("spans", "words", "expected"),
    [
        (WORDPIECE, [0, 4, 10], [1, 2, 4]),
        (BYTE_LEVEL, [0, 4, 7, 10], [0, 1, 2, 3]),
        (MANY_BYTES, [0, 1, 2], [1, 2, 5]),
        (CUT, [0, 4, 10], [1, 2, -1]),
        (NOTHING, [0], [-1]),
    ],
)
def test_a_word_is_read_off_its_first_token_and_one_beyond_the_cut_off_none(spans, words, expected):
    found = token_inputs([NOTHING, spans]).tokens
    marks = Spans(np.array([(at, at + 1) for at in words]), np.zeros(len(words), np.int64), np.array([0, len(words)]))
    said = first_tokens(found, Rows(np.array([[1]]), np.zeros(1), marks))
    assert said.tolist() == [at + 2 if at >= 0 else -1 for at in expected]


@pytest.mark.parametrize("room", [99, 6])
def test_the_first_tokens_of_many_sentences_are_those_of_each_word_by_itself(room):
    inputs, corpus = tagged(room=room)
    found, rows = inputs.tokens, corpus.split("train")
    texts = np.repeat(rows.texts[:, 0], np.diff(rows.spans.offsets))
    slow = [slow_token(found, text, span[0]) for text, span in zip(texts, rows.spans.characters, strict=True)]
    assert first_tokens(found, rows).tolist() == slow
    assert (-1 in slow) == (room == 6)
    assert all(found.spans[token, 0] >= 0 for token in slow if token >= 0)  # never a special one


def test_every_window_of_every_row_is_told_in_the_order_of_rows():
    inputs, corpus = answered()
    found, rows = inputs.tokens, corpus.split("train")
    windows, offsets = found.windows_of(rows.texts[:, 0])
    slow = [list(range(found.starts[text], found.starts[text + 1])) for text in rows.texts[:, 0]]
    assert [windows[low:high].tolist() for low, high in itertools.pairwise(offsets)] == slow
    assert max(map(len, slow)) > 1


def test_an_answer_is_told_in_every_window_that_has_it_whole_and_in_no_other():
    text = "aa bb cc dd ee"
    tokens = pieces(text)
    windows = [[*[SPECIAL] * 3, *tokens[at : at + 3], SPECIAL] for at in (0, 1, 2)]
    found = replace(token_inputs(windows).tokens, starts=np.array([0, 3]))
    for answer, expected in {
        "bb cc": [[4, 5], [3, 4], [0, 0]],  # in two windows; a border cuts it in the third
        "aa": [[3, 3], [0, 0], [0, 0]],
        "aa bb cc dd": [[0, 0], [0, 0], [0, 0]],  # in none
        "cc dd ee": [[0, 0], [0, 0], [3, 5]],
    }.items():
        at = text.index(answer)
        marks = Spans(np.array([(at, at + len(answer)), (0, 2)]), np.zeros(2, np.int64), np.array([0, 2]))
        rows = Rows(np.array([[0]]), np.zeros(1), marks)
        assert answer_tokens(found, rows, *found.windows_of(rows.texts[:, 0])).tolist() == expected, answer


@pytest.mark.parametrize("seed", range(3))
def test_the_tokens_of_answers_spell_the_answers_of_many_rows(seed):
    inputs, corpus = answered(seed=seed)
    found, rows = inputs.tokens, corpus.split("train")
    windows, offsets = found.windows_of(rows.texts[:, 0])
    said = answer_tokens(found, rows, windows, offsets)
    for row in range(len(rows)):
        first, last = rows.spans.characters[rows.spans.offsets[row]]
        for place in range(offsets[row], offsets[row + 1]):
            ends = [slow_token(found, windows[place], at) for at in (first, last - 1)]
            start = found.offsets[windows[place]]
            assert said[place].tolist() == ([end - start for end in ends] if min(ends) >= 0 else [0, 0])
            if said[place].any():
                context = corpus.texts[rows.texts[row, 0]].second
                low, high = found.spans[start + said[place], [0, 1]]
                assert context[low:high] == context[first:last]
                assert re.fullmatch(r"\S.*\S|\S", context[first:last])
    assert said.any(1).sum() >= len(rows)  # what overlaps, and what is short, is whole in one at least


def test_a_question_without_an_answer_has_none_in_any_window_and_leaves_the_others_alone():
    inputs, corpus = answered(unanswered=3)
    found, rows = inputs.tokens, corpus.split("train")
    windows, offsets = found.windows_of(rows.texts[:, 0])
    said, missing = answer_tokens(found, rows, windows, offsets), rows.spans.are_missing
    assert 0 < missing.sum() < len(rows)
    assert not said[np.repeat(missing, np.diff(offsets))].any()
    others = rows.select(np.flatnonzero(~missing))
    alone = answer_tokens(found, others, *found.windows_of(others.texts[:, 0]))
    np.testing.assert_array_equal(said[~np.repeat(missing, np.diff(offsets))], alone)
