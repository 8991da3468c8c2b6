"""Texts as they are printed, and as cells of csv files."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.text import escape_control, quote_formula, unquote_formula

BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def test_no_character_that_steers_a_terminal_or_turns_a_line_is_printed():
    every = [chr(code) for code in range(0x110000)]
    hostile = {char for char in every if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")} | set(BIDIRECTIONAL)
    assert {char for char in every if escape_control(char) != char} == hostile
    assert "".join(map(escape_control, every)).encode().isascii() is False


@given(st.text(st.characters(codec=None)))
def test_escaped_json_is_the_same_json(text):
    assert json.loads(escape_control(json.dumps(text, ensure_ascii=False))) == text


def test_kept_characters_stay():
    assert escape_control("one\n\ttwo\x1b[31m", "\n") == "one\n\\ttwo\\u001b[31m"


CELLS = st.text(st.sampled_from("'=+-@\t\r1.5eaé "), max_size=8) | st.text()


@given(CELLS)
def test_what_is_read_back_is_what_was_written(cell):
    assert unquote_formula(quote_formula(cell)) == cell


@given(CELLS)
def test_no_cell_is_a_formula(cell):
    written = quote_formula(cell)
    if written[:1] in ("+", "-"):
        float(written)
    assert written[:1] not in ("=", "@", "\t", "\r")


@pytest.mark.parametrize("cell", ["", "-0.5", "+1e-3", "a=b", "don't", "'quoted'"])
def test_numbers_and_words_stay(cell):
    assert quote_formula(cell) == cell
