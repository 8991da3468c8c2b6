"""Exact match and F1 of extractive answers: the official rules of SQuAD 1.1 and 2.0, and those of MLQA.

Answers are normalised by the rules of a language if it is known: English follows SQuAD, all others MLQA, which drops
Unicode punctuation and the articles of the language, and takes every Chinese character as a word.

If it is not known, the script of the context, or else of both answers, decides. Latin script follows SQuAD. Other
scripts lose Unicode punctuation and keep articles, except that each Arabic ``ال`` becomes a space. In scripts written
without spaces, every character with its combining marks is a word; runs of other scripts are split at spaces.

Sources: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1; Rajpurkar,
Jia and Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD" (2018), section 5; Lewis et al., "MLQA:
Evaluating Cross-lingual Extractive Question Answering" (2020), section 5, and its script, ``mlqa_evaluation_v1.py``.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from permafrost.data.writing.script import UNBREAKABLE, is_mark, script_of

ARTICLES = re.compile(r"\b(a|an|the)\b")

MLQA_ARTICLES = {
    "de": re.compile(r"\b(der|die|das|den|dem|des|ein|eine|einen|einem|einer|eines)\b"),
    "es": re.compile(r"\b(el|la|los|las|un|una|unos|unas)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "ar": re.compile("ال"),
    "arabic": re.compile("ال"),
}
"""Language or script -> its articles in the rules of MLQA; Hindi and Chinese have none."""

HAN = re.compile("[\u4e00-\u9fa5]")
"""A character that is a word in the rules of MLQA for Chinese."""

ALPHABETS = ("LATIN", "GREEK", "CYRILLIC")
"""Scripts in which a predicted span is widened to whole words, as in the Unicode names of their letters."""

PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_text(context: str, span: Sequence[int]) -> str:
    """Return the text of a span without white space at its ends; empty if the span is not within the context."""
    start, end = trim_span(context, int(span[0]), int(span[1]))
    return context[start:end]


def trim_span(context: str, first: int, last: int) -> tuple[int, int]:
    """Return a character span without white space at its ends; ``(0, 0)`` if it is not within the context."""
    if not 0 <= first < last <= len(context):
        return 0, 0
    while first < last and context[first].isspace():
        first += 1
    while last > first and context[last - 1].isspace():
        last -= 1
    return first, last


def widen_to_words(context: str, first: int, last: int) -> tuple[int, int]:
    """Return a predicted character span, trimmed and widened so that it cuts no word and no combined character.

    A predicted span starts and ends at token boundaries, which can lie within a word. A word is a run of digits and of
    Latin, Greek or Cyrillic letters. In other scripts a span may end within a run of letters, because words have no
    boundaries or carry articles and particles (Arabic, Hebrew, Korean); there, only combining marks are added.
    """
    first, last = trim_span(context, first, last)
    while 0 < first < last and _continues_word(context, first):
        first -= 1
    while first < last < len(context) and _continues_word(context, last):
        last += 1
    return first, last


def _continues_word(text: str, index: int) -> bool:
    """Return whether the character at ``index`` continues the word, or the combined character, before it."""
    before, character = text[index - 1], text[index]
    return (is_mark(character) and not before.isspace()) or (
        _is_word_character(before) and _is_word_character(character)
    )


def _is_word_character(character: str) -> bool:
    if not (character.isalpha() or is_mark(character)):
        return character.isalnum()
    return character < "\u0530" or any(name in unicodedata.name(character, "") for name in ALPHABETS)


def normalize_answer(answer: str, rules: str = "") -> str:
    """Normalise an answer: lower case, no punctuation, no articles, and words separated by single spaces.

    Args:
        answer: its text.
        rules: language or script whose rules apply; empty takes the script of the answer.
    """
    lower, rules = answer.lower(), rules or script_of(answer)
    if rules in ("latin", "en"):
        return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split())
    text = "".join(
        character
        for character in lower.translate(PUNCTUATION)
        if character.isascii() or unicodedata.category(character)[0] != "P"
    )
    if rules in MLQA_ARTICLES:
        text = MLQA_ARTICLES[rules].sub(" ", text)
    if rules == "zh":
        text = HAN.sub(r" \g<0> ", text)
    return " ".join(UNBREAKABLE().findall(text) if rules == "unspaced" else text.split())


def exact_match(answer: str, gold: str, context: str = "", language: str = "") -> float:
    """Return 1 if the normalised answers are equal, else 0.

    Args:
        answer: the predicted answer.
        gold: the gold answer.
        context: text that contains them, whose script selects the rules; if empty, the script of both answers does.
        language: whose rules apply instead, a key of :data:`permafrost.data.writing.script.LANGUAGES`.
    """
    rules = language or script_of(context or f"{answer} {gold}")
    return float(normalize_answer(answer, rules) == normalize_answer(gold, rules))


def token_f1(answer: str, gold: str, context: str = "", language: str = "") -> float:
    """Return the F1 score of the answer's words against those of the gold answer, counted with repetition.

    Arguments are those of :func:`exact_match`; the score is 0 if they have no word in common.
    """
    rules = language or script_of(context or f"{answer} {gold}")
    words, gold_words = normalize_answer(answer, rules).split(), normalize_answer(gold, rules).split()
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0


def best_score(
    compare: Callable[[str, str, str, str], float], answer: str, golds: Sequence[str], context: str, language: str = ""
) -> float:
    """Return the score of an answer by the rules of SQuAD 2.0, where a question may have no answer.

    Gold answers without words do not count. If no other is left, only an answer without words is right.

    Args:
        compare: :func:`exact_match` or :func:`token_f1`.
        golds: acceptable answers; empty if the question has none.
    """
    rules = language or script_of(context)
    golds = [gold for gold in golds if normalize_answer(gold, rules)]
    if not golds or not normalize_answer(answer, rules):
        return float(not golds and not normalize_answer(answer, rules))
    return max(compare(answer, gold, context, language) for gold in golds)
