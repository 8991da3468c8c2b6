r"""Writing systems: word boundaries, counting units and the main script of a text, from its Unicode characters alone.

A unit is a word, or a single character in a script that is written without spaces (Chinese, Japanese, Thai, ...). A
combining mark belongs to the character before it: an accent, a Hindi vowel sign, an Arabic vowel point.

The patterns are built from the character classes below because ``\w`` matches a run of Chinese as one word and ends a
Hindi word at each vowel sign. On Latin letters without combining marks they match what ``\w+`` and ``\S+`` match.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache
from itertools import groupby
from typing import Literal

Script = Literal["latin", "unspaced", "arabic", "other"]

LANGUAGES: dict[str, Script] = {
    "en": "latin", "de": "latin", "es": "latin", "vi": "latin", "hi": "other", "ar": "arabic", "zh": "unspaced",
}  # fmt: skip
"""Languages whose rules for the comparison of answers are published -> script."""

_LANGUAGE_IN_NAME = re.compile(rf"(?:^|[\W_])({'|'.join(LANGUAGES)})(?=[\W_]|$)")

UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e80-\u0ecf\u0edc-\u0edf"  # Lao
    "\u0f00\u0f35\u0f37\u0f39\u0f40-\u0f84\u0f86-\u0fbc"  # Tibetan
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"  # Myanmar
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c\uaa80-\uaadd"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\u3031-\u3035\u303b\u303c\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"  # Hiragana, Katakana
    "\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"  # Katakana, narrow and small; old Kana
    "\u3105-\u312f\u31a0-\u31bf\ua000-\ua48c"  # Bopomofo, Yi
)
"""Letters and marks of scripts that are written without spaces, as the inside of a character class; digits of these
scripts are not in it: they form numbers as elsewhere."""

SENTENCE_ENDS = "。｡．！？؟۔।॥։።፧។៕။"
"""Marks that end a sentence whatever follows them; none of them is Latin (Latin has ``.``, ``!`` and ``?``)."""

PUNCTUATION = (
    SENTENCE_ENDS + "\u037e\u0387"  # Greek question mark and semicolon
    "،؛٪"  # Arabic
    "፡፣፤፥፦"  # Ethiopic
    "\u0e4f\u0e5a\u0e5b\u0f04-\u0f14\u0f3a-\u0f3d\u104a-\u104f\u17d4-\u17d6\u17d8-\u17da"  # Thai to Khmer
    "\u3001-\u3003\u3008-\u3011\u3014-\u301f\u30fb"  # Chinese and Japanese, then their wide forms
    "\uff01-\uff0c\uff0e\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff65"
)
"""Punctuation that the Latin script does not have, as the inside of a character class."""


def _marks() -> str:
    """Return every combining mark, as the inside of a character class."""
    planes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    codes = [code for code in planes if unicodedata.category(chr(code))[0] == "M"]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(codes), lambda item: item[1] - item[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs) + "\uff9e\uff9f"  # sound marks of narrow Katakana


def lazy_pattern(pattern: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    """Return a function that compiles a pattern on its first call: with all combining marks in it, that is slow."""
    return cache(lambda: re.compile(pattern, flags))


MARKS = _marks()

JOINERS = "\u200c\u200d"
"""Invisible joiners within words of Persian and of Indian scripts."""

_SYMBOL_MARKS = "\u20d0-\u20ff\ufe00-\ufe0f"

_IN_WORD = rf"(?:[^\W{UNSPACED}]|(?![{_SYMBOL_MARKS}])[{MARKS}{JOINERS}])"

_SINGLE_CHARACTER = rf"[{UNSPACED}][{MARKS}]*"

WORD_START = rf"(?<![^\W{UNSPACED}])(?<!(?![{UNSPACED}{_SYMBOL_MARKS}])[{MARKS}{JOINERS}])"
"""Pattern of zero width: start of a word, like ``\\b`` before a letter, but also next to a script without spaces."""

WORD_END = rf"(?!{_IN_WORD})"
"""Pattern of zero width: end of a word."""

CHARACTER = lazy_pattern(rf"[^{MARKS}]?[{MARKS}]+|[^{MARKS}]", re.DOTALL)
"""A character with its combining marks."""

UNIT = lazy_pattern(rf"{_SINGLE_CHARACTER}|[^\W{UNSPACED}]{_IN_WORD}*")

UNBREAKABLE = lazy_pattern(rf"{_SINGLE_CHARACTER}|(?:(?![{UNSPACED}])\S[{MARKS}]*+)+")
"""Characters that a cut must not separate: a run without white space, or one character of a script without spaces."""


def units(text: str) -> list[str]:
    """Return the words of a text, or the characters of a script without spaces; no punctuation."""
    return UNIT().findall(text)


def unbreakable_spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of every stretch of characters that a cut must not separate; the end is exclusive."""
    return [match.span() for match in UNBREAKABLE().finditer(text)]


@lru_cache(maxsize=1024)
def script_of(text: str) -> Script:
    """Return the most frequent script among the distinct words of a text; ``latin`` if it has only numbers.

    In scripts without spaces, each character and each punctuation mark counts as a word.
    """
    if text.isascii():
        return "latin"
    counts = Counter(map(_unit_script, {*units(text), *_PUNCTUATION.findall(text)}))
    others: tuple[Script, ...] = ("unspaced", "arabic", "other")
    commonest = max(others, key=lambda script: counts[script])
    return commonest if counts[commonest] and counts[commonest] >= counts["latin"] else "latin"


def language_in_name(name: str, text: str) -> str:
    """Return the first code of :data:`LANGUAGES` in the name of a file, such as ``xquad.zh.json``.

    Args:
        name: of the file; of several codes, as in ``dev-context-de-question-es.json``, the first counts.
        text: a text of the file; empty is returned if it is not in the script of the language.
    """
    match = _LANGUAGE_IN_NAME.search(name)
    return match[1] if match and LANGUAGES[match[1]] == script_of(text) else ""


def _unit_script(unit: str) -> Script | None:
    """Return the script of a unit or of a punctuation mark; None for a number."""
    first = unit[0]
    name, punctuation = unicodedata.name(first, ""), _PUNCTUATION.match(first)
    if not first.isalpha() and not punctuation:
        return None
    if is_unspaced(first) or (punctuation and first > "\u0e00" and not name.startswith("ETHIOPIC")):
        return "unspaced"
    if not punctuation and (first < "\u0370" or "LATIN" in name):
        return "latin"
    return "arabic" if name.startswith("ARABIC") else "other"


def is_mark(character: str) -> bool:
    """Return whether a character is a combining mark, which belongs to the one before it."""
    return character > "\u02ff" and (unicodedata.category(character)[0] == "M" or character in "\uff9e\uff9f")


def is_unspaced(character: str) -> bool:
    """Return whether a character belongs to a script that is written without spaces."""
    return character > "\u0dff" and _UNSPACED.fullmatch(character) is not None


_UNSPACED, _PUNCTUATION = re.compile(f"[{UNSPACED}]"), re.compile(f"[{PUNCTUATION}]")
