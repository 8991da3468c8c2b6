"""Scripts: units and parts are those of ``re`` on Latin text, and nowhere is a mark parted from its character."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permafrost.data.writing.script import (
    CHARACTER,
    WORD_END,
    WORD_START,
    is_mark,
    is_unspaced,
    language_in_name,
    script_of,
    unbreakable_spans,
    units,
)

UNITS = {
    "The 1990s, l'été": ["The", "1990s", "l", "été"],
    "das Straßenbahn-Netz": ["das", "Straßenbahn", "Netz"],
    "然后野马队赢了2016年NBA比赛。": [*"然后野马队赢了", "2016", "年", "NBA", *"比赛"],
    "ラーメンとビール、５杯": [*"ラーメンとビール", "５", "杯"],
    "ｶﾞｷ": ["ｶﾞ", "ｷ"],
    "ที่นี่มี ๗๗ ดี": ["ที่", "นี่", "มี", "๗๗", "ดี"],
    "हिन्दी भाषा। दो": ["हिन्दी", "भाषा", "दो"],
    "كِتَابٌ، جَمِيلٌ؟": ["كِتَابٌ", "جَمِيلٌ"],
    "می\u200cخواهم": ["می\u200cخواهم"],
    "한국어를 배운다": ["한국어를", "배운다"],
    "cafe\u0301 noir": ["cafe\u0301", "noir"],
    "❤\ufe0fno": ["no"],
    "": [],
}


@pytest.mark.parametrize("text", UNITS)
def test_units_are_words_or_characters_with_their_marks(text):
    assert units(text) == UNITS[text]


LATIN = st.text(st.characters(max_codepoint=0x24F) | st.sampled_from("–’“”…€ .n't"))


@given(LATIN)
def test_on_latin_text_units_parts_and_borders_are_those_of_plain_patterns(text):
    assert units(text) == re.findall(r"\w+", text)
    assert [text[first:last] for first, last in unbreakable_spans(text)] == text.split()
    for plain, ours in ((r"\b(?=\w)", rf"{WORD_START}(?=\w)"), (r"(?<=\w)\b", rf"(?<=\w){WORD_END}")):
        assert [found.start() for found in re.finditer(plain, text)] == [
            found.start() for found in re.finditer(ours, text)
        ]


MIXED = st.text(
    st.sampled_from("aB1 .。，中国กีที่हिन्दीكِتَابٌｶﾞか\u3099é\u0301\u200c\n") | st.characters(exclude_categories=["Cs"])
)


@given(MIXED)
def test_parts_hold_all_but_white_space_and_no_mark_leaves_its_character(text):
    assert "".join(text[first:last] for first, last in unbreakable_spans(text)) == "".join(text.split())
    assert "".join(CHARACTER().findall(text)) == text
    for first, _ in unbreakable_spans(text):
        assert not is_mark(text[first]) or first == 0 or text[first - 1].isspace() or is_mark(text[first - 1])
    assert all(len(found) == 1 or is_mark(found[1]) for found in CHARACTER().findall(text))


NAMES = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR LETTER", "TIBETAN", "YI ")


def test_every_mark_is_known_and_letters_alone_are_of_scripts_without_spaces():
    for code in range(0x20000):
        character = chr(code)
        kind = unicodedata.category(character)
        assert is_mark(character) == (kind[0] == "M" or character in "ﾞﾟ"), hex(code)
        assert not is_unspaced(character) or kind[0] in "LM" or kind in ("Nl", "Cn"), hex(code)
        assert is_unspaced(character) or kind != "Lo" or not unicodedata.name(character, "").startswith(NAMES), hex(
            code
        )


SCRIPTS = {
    "The Eiffel Tower": "latin", "Ünïcödé": "latin", "1,990 %": "latin", "": "latin", "“50”–€": "latin",
    "the Kyōto (京) school": "latin", "5 μm in diameter": "latin",
    "野马队": "unspaced", "Apple公司": "unspaced", "《1990》": "unspaced", "50。": "unspaced", "ABC ABC。": "unspaced",
    "ประเทศไทย": "unspaced", "トヨタ": "unspaced",
    "كِتَابٌ جَمِيلٌ": "arabic", "50؟": "arabic",
    "हिन्दी": "other", "50।": "other", "Москва": "other", "서울": "other",
}  # fmt: skip


@pytest.mark.parametrize("text", SCRIPTS)
def test_the_script_of_a_text_is_that_of_most_of_its_words(text):
    assert script_of(text) == SCRIPTS[text]


@pytest.mark.parametrize(
    ("name", "text", "language"),
    [
        ("xquad.zh.json", "野马队赢了比赛。", "zh"),
        ("dev-context-ar-question-en.json", "الكتاب الجديد", "ar"),
        ("test-context-de-question-es.json", "Der Hund", "de"),
        ("mlqa.vi.vi", "Những người", "vi"),
        ("xquad.zh.json", "The broncos", ""),  # the text is not in the script of the language
        ("xquad.ru.json", "Команда", ""),
        ("zhe.desk.json", "Der Hund", ""),
        ("squad.json", "The dog", ""),
    ],
)
def test_the_name_of_a_file_says_its_language_if_its_text_may_be_in_it(name, text, language):
    assert language_in_name(name, text) == language
