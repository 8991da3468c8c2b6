"""Exact match and F1 of extractive answers: the official rules of SQuAD 1.1, and those of MLQA for other scripts.

Answers are normalised by script: that of the context, or else of both answers. Latin script follows SQuAD. Other
scripts lose Unicode punctuation and keep articles, except that each Arabic ``ال`` becomes a space. In scripts written
without spaces, every character with its combining marks is a word; runs of other scripts are split at spaces.

Differences to MLQA: its rules depend on the name of the language, not on characters; it knows Chinese as the only
script without spaces; and it removes German, Spanish and Vietnamese articles, which SQuAD's rules keep.

Sources: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1; Lewis et
al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020), section 5, and its script,
``mlqa_evaluation_v1.py``.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from permafrost.data.script import UNBREAKABLE, Script, is_mark, script_of

ARTICLES = re.compile(r"\b(a|an|the)\b")

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


def normalize_answer(answer: str, script: Script | None = None) -> str:
    """Normalise an answer: lower case, no punctuation, no articles, and words separated by single spaces.

    Args:
        answer: its text.
        script: whose rules apply; None takes the script of the answer.
    """
    lower, script = answer.lower(), script or script_of(answer)
    if script == "latin":
        return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split())
    text = "".join(
        character
        for character in lower.translate(PUNCTUATION)
        if character.isascii() or unicodedata.category(character)[0] != "P"
    )
    if script == "arabic":
        text = text.replace("ال", " ")
    return " ".join(UNBREAKABLE().findall(text) if script == "unspaced" else text.split())


def exact_match(answer: str, gold: str, context: str = "") -> float:
    """Return 1 if the normalised answers are equal, else 0.

    Args:
        answer: the predicted answer.
        gold: the gold answer.
        context: text that contains them, whose script selects the rules; if empty, the script of both answers does.
    """
    script = script_of(context or f"{answer} {gold}")
    return float(normalize_answer(answer, script) == normalize_answer(gold, script))


def token_f1(answer: str, gold: str, context: str = "") -> float:
    """Return the F1 score of the answer's words against those of the gold answer, counted with repetition.

    Arguments are those of :func:`exact_match`; the score is 0 if they have no word in common.
    """
    script = script_of(context or f"{answer} {gold}")
    words, gold_words = normalize_answer(answer, script).split(), normalize_answer(gold, script).split()
    common = sum((Counter(words) & Counter(gold_words)).values())
    return 2 * common / (len(words) + len(gold_words)) if common else 0.0
