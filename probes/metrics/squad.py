"""Answers as text, and how well one meets another: the official rules of SQuAD 1.1, and of MLQA for other scripts.

In the Latin script they are those of SQuAD. In others Unicode's punctuation is taken off, and articles are not, but
for Arabic's, each ``ال`` of which becomes a space; in a script that is written without spaces each character is a word,
combining marks with it, beside words of other scripts. Which script it is, the context tells, else both answers.

MLQA takes the language's name where these rules look at characters, knows Chinese alone among the scripts without
spaces, and takes articles off German, Spanish and Vietnamese, which the rules of SQuAD leave.

Sources: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1; Lewis et
al., "MLQA: Evaluating Cross-lingual Extractive Question Answering" (2020), section 5, and its script,
``mlqa_evaluation_v1.py``.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from permafrost.data.script import PART, Script, is_mark, script_of

ARTICLES = re.compile(r"\b(a|an|the)\b")

ALPHABETS = ("LATIN", "GREEK", "CYRILLIC")

PUNCTUATION = str.maketrans("", "", string.punctuation)


def answer_text(context: str, span: Sequence[int]) -> str:
    """The characters of a span, without white space at its ends; empty if it is no span of the context."""
    first, last = trimmed(context, int(span[0]), int(span[1]))
    return context[first:last]


def trimmed(context: str, first: int, last: int) -> tuple[int, int]:
    """A span without white space at its ends; 0 twice if it is no span of the context."""
    if not 0 <= first < last <= len(context):
        return 0, 0
    while first < last and context[first].isspace():
        first += 1
    while last > first and context[last - 1].isspace():
        last -= 1
    return first, last


def whole_words(context: str, first: int, last: int) -> tuple[int, int]:
    """A predicted span, whose ends are those of tokens: trimmed, and widened where it cuts a character or a word.

    A word is a run of Latin, Greek or Cyrillic letters and of digits. Elsewhere an answer often ends within a run of
    letters: scripts without spaces have no borders, and Arabic, Hebrew and Korean write articles and particles
    together with their noun. There a character with combining marks alone is completed.
    """
    first, last = trimmed(context, first, last)
    while 0 < first < last and _goes_on(context, first):
        first -= 1
    while first < last < len(context) and _goes_on(context, last):
        last += 1
    return first, last


def _goes_on(text: str, place: int) -> bool:
    """Whether a character goes on with the word before it, or as a combining mark with the character."""
    before, here = text[place - 1], text[place]
    return (is_mark(here) and not before.isspace()) or (_of_word(before) and _of_word(here))


def _of_word(character: str) -> bool:
    if not (character.isalpha() or is_mark(character)):
        return character.isalnum()
    return character < "\u0530" or any(name in unicodedata.name(character, "") for name in ALPHABETS)


def normalised(answer: str, script: Script | None = None) -> str:
    """Lower case, without punctuation, articles and superfluous white space; units are separated by a space.

    Args:
        script: whose rules apply; without, that of the answer itself.
    """
    lower, script = answer.lower(), script or script_of(answer)
    if script == "latin":
        return " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split())
    plain = "".join(
        character
        for character in lower.translate(PUNCTUATION)
        if character.isascii() or unicodedata.category(character)[0] != "P"
    )
    if script == "arabic":
        plain = plain.replace("ال", " ")
    return " ".join(PART.findall(plain) if script == "unspaced" else plain.split())


def exact_match(answer: str, gold: str, context: str = "") -> float:
    """1 if both are the same once normalised, else 0.

    Args:
        context: where they stand, whose script says what rules apply; without, both answers say it.
    """
    script = script_of(context or f"{answer} {gold}")
    return float(normalised(answer, script) == normalised(gold, script))


def overlap(answer: str, gold: str, context: str = "") -> float:
    """F1 of the units of an answer against those of the gold one, repeats counted; 0 if they have none in common.

    Args:
        context: as for :func:`exact_match`.
    """
    script = script_of(context or f"{answer} {gold}")
    said, true = normalised(answer, script).split(), normalised(gold, script).split()
    both = sum((Counter(said) & Counter(true)).values())
    return 2 * both / (len(said) + len(true)) if both else 0.0
