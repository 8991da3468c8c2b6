"""Answers against the official rules of SQuAD 1.1 and of MLQA, each written out once more; gold spans stay."""

import string
import unicodedata
from collections import Counter

import numpy as np
import pytest

from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.reader import RecordReader
from permafrost.data.writing.script import is_mark
from permafrost.probes.metrics.squad import (
    answer_text,
    best_score,
    exact_match,
    normalize_answer,
    token_f1,
    widen_to_words,
)
from tests.support.real import real_data

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
    assert normalize_answer(said) == official_normalised(said)
    assert exact_match(said, true) == float(official_normalised(said) == official_normalised(true))
    assert token_f1(said, true) == pytest.approx(official_f1(said, true))
    assert token_f1(true, said) == token_f1(said, true)


def test_random_answers_are_compared_by_the_official_rules():
    rng = np.random.default_rng(0)
    words = ["a", "An", "the", "cat", "cat.", "dog", "theory", "it's", "é", "-", "42", "  "]
    for _ in range(300):
        said, true = (" ".join(rng.choice(words, rng.integers(0, 6))) for _ in range(2))
        assert normalize_answer(said) == official_normalised(said)
        assert token_f1(said, true) == pytest.approx(official_f1(said, true))
        assert exact_match(said, true) == float(official_normalised(said) == official_normalised(true))


def test_known_figures():
    assert normalize_answer("The  quick, brown fox's!") == "quick brown foxs"
    assert exact_match("the Cat", "cat!") == 1
    assert token_f1("cat sat", "the cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert token_f1("cat cat", "cat") == pytest.approx(2 / 3)


def mlqa_normalised(text: str, language: str) -> str:
    """In the order of MLQA's script: lower case, no punctuation of Unicode or ASCII, Arabic's article, Han apart."""
    bare = ""
    for character in text.lower():
        if character not in string.punctuation and not unicodedata.category(character).startswith("P"):
            bare += character
    if language == "ar":
        bare = bare.replace("ال", " ")
    if language == "zh":
        bare = "".join(f" {character} " if "\u4e00" <= character <= "\u9fa5" else character for character in bare)
    return " ".join(bare.split())


def mlqa_f1(prediction: str, truth: str, language: str) -> float:
    said, true = (mlqa_normalised(text, language).split() for text in (prediction, truth))
    common = sum((Counter(said) & Counter(true)).values())
    return 2 * common / (len(said) + len(true)) if common else 0.0


WRITTEN = {
    "zh": ["丹佛野马队", "野马队", "《野马队》", "2016年2月7日", "2016 年 2 月 7 日", "Apple公司", "公司 Apple。",
           "NBA", "（NBA）", "赢了，比赛！", "the NBA 冠军", "上海—北京", "50%。"],
    "ar": ["الكتاب", "كتاب", "الكِتَابُ", "في القاهرة، مصر", "القاهرة", "خالد", "«القاهرة»", "١٢٫٥ مليون",
           "من هو؟", "NASA الفضاء"],
    "hi": ["दिल्ली", "नई दिल्ली", "नई दिल्ली।", "“हिन्दी भाषा”", "1947", "1947 में", "NASA ने कहा", "डॉ॰ राजेन्द्र प्रसाद"],
}  # fmt: skip
CONTEXTS = {
    "zh": "然后野马队赢了比赛，Apple公司在2016年说。",
    "ar": "في القاهرة، مصر: الكتاب الجديد.",
    "hi": "नई दिल्ली भारत की राजधानी है। 1947 में",
}


@pytest.mark.parametrize("language", WRITTEN)
def test_answers_in_other_scripts_are_compared_by_the_rules_of_mlqa(language):
    context = CONTEXTS[language]
    for said in WRITTEN[language]:
        for true in WRITTEN[language]:
            assert token_f1(said, true, context) == pytest.approx(mlqa_f1(said, true, language)), (said, true)
            same = mlqa_normalised(said, language) == mlqa_normalised(true, language)
            assert exact_match(said, true, context) == float(same), (said, true)
            if not (said + true).isascii():
                assert token_f1(said, true) == pytest.approx(mlqa_f1(said, true, language)), (said, true)


LANGUAGES = [
    ("de", "Der Hund des Hauses – „EINE“ Katze!", "hund hauses katze"),
    ("es", "El perro, unas casas y ¿la ñ?", "perro casas y ñ"),
    ("vi", "Những người của Việt Nam là ai?", "người việt nam ai"),
    ("hi", "“नई दिल्ली” the है।", "नई दिल्ली the है"),
    ("ar", "«الكتاب» في القاهرة؟", "كتاب في قاهرة"),
    ("zh", "《野马队》2016年 NBA。〇トヨタ", "野 马 队 2016 年 nba〇トヨタ"),
    ("en", "The “quoted” 野马队, a word", "“quoted” 野马队 word"),
]
"""Language, answer, and what the official scripts make of it: SQuAD's for English, MLQA's for all others."""


@pytest.mark.parametrize(("language", "answer", "normalised"), LANGUAGES)
def test_an_answer_is_normalised_by_the_official_rules_of_its_language(language, answer, normalised):
    assert normalize_answer(answer, language) == normalised
    assert exact_match(answer, normalised, CONTEXT, language) == 1
    gold = " ".join(normalised.split()[:2])
    assert token_f1(answer, gold, CONTEXT, language) == pytest.approx(2 * 2 / (2 + len(normalised.split())))


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("", [], 1, 1),
        ("the", [], 1, 1),  # without words
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("the", ["cat"], 0, 0),
        ("the cat", ["dog", "cat"], 1, 1),
        ("a big cat", ["cat"], 0, 2 / 3),
        ("", ["the", "!"], 1, 1),  # a question whose answers have no words
        ("cat", ["the"], 0, 0),
        ("a cat", ["the", "cat"], 1, 1),
    ],
)
def test_with_questions_that_have_no_answer_the_rules_are_those_of_squad_2(answer, golds, exact, f1):
    assert best_score(exact_match, answer, golds, CONTEXT) == exact
    assert best_score(token_f1, answer, golds, CONTEXT) == pytest.approx(f1)


def test_the_context_says_whose_rules_apply():
    assert token_f1("the Apple公司", "Apple", CONTEXTS["zh"]) == pytest.approx(2 / 5)
    assert token_f1("the Kyōto 京都", "Kyōto", "The Kyōto 京都 school was founded by the sea.") == pytest.approx(2 / 3)
    assert exact_match("(京都)", "京都", "They call it Kyoto (京都) in Japan.") == 1
    assert exact_match("the NBA", "NBA", CONTEXTS["zh"]) == 0


def test_in_scripts_without_spaces_characters_with_their_marks_are_the_units():
    assert normalize_answer("トヨタ自動車、") == "ト ヨ タ 自 動 車"
    assert token_f1("トヨタ", "トヨタ自動車") == pytest.approx(2 * 3 / (3 + 6))
    assert normalize_answer("กี่ปี") == "กี่ ปี"
    assert token_f1("ปี", "กี่ปี") == pytest.approx(2 / 3)
    assert token_f1("ปู", "ปี") == 0  # another vowel sign is another character
    assert normalize_answer("か\u3099 2.5 km") == "か\u3099 25 km"
    assert normalize_answer("ကမ္ဘာ။") == "က မ္ ဘာ"


ANSWERED = {
    "The 1990s saw US$50m of well-known half-lives, 2½ of them.": ["1990", "50", "half", "live", "2", "US"],
    "Die Straßenbahnhaltestelle in Köln-Süd kostete 12,5Mio. Euro.": ["Straßenbahn", "Süd", "12,5", "haltestelle"],
    "然后野马队赢了2016年的比赛，比分24比10。": ["野马队", "2016", "2016年", "24", "野马", "比赛"],
    "トヨタ自動車は1937年に設立された。本社は愛知県豊田市にある。": ["トヨタ自動車", "1937", "トヨタ", "愛知県豊田市"],
    "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย มี ๕๐ เขต": ["กรุงเทพมหานคร", "ประเทศไทย", "ไทย", "๕๐"],
    "भारत की राजधानी नई दिल्ली है। 1947में स्वतंत्रता मिली।": ["नई दिल्ली", "1947", "स्वतंत्रता", "भारत"],
    "وُلِدَ الشَّاعِرُ فِي القَاهِرَةِ، وبالقاهرة عاش 70عاما.": ["القَاهِرَةِ", "القاهرة", "70", "الشَّاعِرُ"],
    "서울은 대한민국의 수도이다.": ["서울", "대한민국", "수도"],
}  # fmt: skip


@pytest.mark.parametrize("context", ANSWERED)
def test_a_gold_answer_stays_as_it_is(context):
    for gold in ANSWERED[context]:
        first = context.index(gold)
        assert answer_text(context, (first, first + len(gold))) == gold
        assert answer_text(context, (first - (context[first - 1] == " "), first + len(gold))) == gold


@pytest.mark.parametrize("part", ["dev-v1.1-reconstructed", "train-subset-v1.1", "train5pct-tokenised"])
def test_every_gold_answer_of_squad_stays_as_it_is(part):
    path = real_data("squad") / f"{part}.json.gz"
    count = 0
    for record in RecordReader(CorpusSpec(target="answers")).read_file(path):
        context = record.texts[0].second
        for mark in record.spans:
            gold, count = context[mark.start : mark.end], count + 1
            assert answer_text(context, (mark.start, mark.end)) == gold
            assert normalize_answer(gold) == official_normalised(gold) or "北斗" in gold
            assert exact_match(gold, gold, context) == 1
    assert count > 3000


@pytest.mark.parametrize("span", [(-1, -1), (3, 3), (5, 4), (0, 999), (-1, 4)])
def test_what_is_no_span_of_the_context_is_no_answer(span):
    assert widen_to_words(CONTEXT, *span) == (0, 0)
    assert answer_text(CONTEXT, span) == ""


def test_a_span_of_spaces_alone_is_no_answer():
    first, last = widen_to_words("ab   cd", 2, 5)
    assert first == last


def ends_within(text: str, place: int) -> bool:
    """Whether a place parts a Latin word or number, or a character from its mark."""
    if not 0 < place < len(text):
        return False
    if is_mark(text[place]):
        return not text[place - 1].isspace()
    return all(each in "ÜünïcödexKyōto0123456789²" for each in text[place - 1 : place + 1])


@pytest.mark.parametrize(
    "text",
    [" Ünï-cödé, 3.14  (日本語) x9² ", "野马队2016年NBA赢", "มี ๕๐ ที่นี่", "हिन्दी 12में", "كِتَابٌ وكتاب", "서울은 e\u0301x "],
)
def test_every_predicted_span_widens_to_one_that_holds_it_and_cuts_no_word_and_no_character(text):
    for first in range(len(text)):
        for last in range(first + 1, len(text) + 1):
            low, high = widen_to_words(text, first, last)
            assert text[first:last].strip() in text[low:high]
            if low < high:
                assert text[low:high] == text[low:high].strip()
                assert not ends_within(text, low)
                assert not ends_within(text, high)
                assert (low, high) == widen_to_words(text, low, high)


@pytest.mark.parametrize(
    ("context", "said", "wanted"),
    [
        (CONTEXT, "48.86 met", "848.86 metres"),  # a number and a word are not cut
        (CONTEXT, "848.8", "848.86"),
        (CONTEXT, " height ", "height"),
        (CONTEXT, "eigh", "height"),
        (CONTEXT, ", or", ", or"),
        (CONTEXT, "they say.", "they say."),
        (CONTEXT, "ts", "Its"),
        ("Größenwahn", "röß", "Größenwahn"),
        ("然后野马队赢了比赛", "野马队", "野马队"),
        ("在2016年，NBA说", "01", "2016"),
        ("在2016年，NBA说", "年，NB", "年，NBA"),
        ("トヨタ自動車", "ヨタ", "ヨタ"),
        ("ที่นี่ดี", "นี", "นี่"),
        ("नई दिल्ली में", "दिल्ल", "दिल्ली"),
        ("नई दिल्लीमें", "दिल्ली", "दिल्ली"),
        ("بالقَاهِرَةِ عاش", "القَاهِرَة", "القَاهِرَةِ"),
        ("서울은 수도", "서울", "서울"),
    ],
)
def test_a_predicted_span_is_widened_to_whole_words_where_they_have_borders(context, said, wanted):
    first = context.index(said)
    low, high = widen_to_words(context, first, first + len(said))
    assert context[low:high] == wanted
