r"""Scripts: where a text may be parted, and what it is counted in, told from its characters; no language is named.

A unit is a word, or in a script that is written without spaces (Chinese, Japanese, Thai, ...) a single character. A
combining mark belongs to the character before it: an accent, a vowel sign of Hindi, a vowel point of Arabic.

Patterns are built from the classes below, since ``\w`` takes a run of Chinese for one word and ends a word of Hindi at
each vowel sign. On text of Latin letters without combining marks they find what ``\w+`` and ``\S+`` find.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import groupby
from typing import Literal

Script = Literal["latin", "unspaced", "arabic", "other"]

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
"""Letters and marks of the scripts that are written without spaces, as the inside of a class; their digits are not in
it, which make numbers as others do."""

STOPS = "。｡．！？؟۔।॥։።፧។៕။"
"""What ends a sentence outside the Latin script, whatever follows it; in it ``.``, ``!`` and ``?`` do."""

PUNCTUATION = (
    STOPS + "\u037e\u0387"  # Greek question mark and semicolon
    "،؛٪"  # Arabic
    "፡፣፤፥፦"  # Ethiopic
    "\u0e4f\u0e5a\u0e5b\u0f04-\u0f14\u0f3a-\u0f3d\u104a-\u104f\u17d4-\u17d6\u17d8-\u17da"  # Thai to Khmer
    "\u3001-\u3003\u3008-\u3011\u3014-\u301f\u30fb"  # Chinese and Japanese, then their wide forms
    "\uff01-\uff0c\uff0e\uff0f\uff1a-\uff20\uff3b-\uff3d\uff5b-\uff65"
)
"""Punctuation that the Latin script does not have, as the inside of a class."""


def _marks() -> str:
    """Every combining mark, as the inside of a class."""
    planes = (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0))
    codes = [code for code in planes if unicodedata.category(chr(code))[0] == "M"]
    runs = [[code for _, code in run] for _, run in groupby(enumerate(codes), lambda at: at[1] - at[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs) + "\uff9e\uff9f"  # sound marks of narrow Katakana


MARKS = _marks()

JOINERS = "\u200c\u200d"
"""Invisible, within words of Persian and of Indian scripts."""

_OF_SYMBOLS = "\u20d0-\u20ff\ufe00-\ufe0f"

_WITHIN = rf"(?:[^\W{UNSPACED}]|(?![{_OF_SYMBOLS}])[{MARKS}{JOINERS}])"

_ALONE = rf"[{UNSPACED}][{MARKS}]*"

WORD_START = rf"(?<![^\W{UNSPACED}])(?<!(?![{UNSPACED}{_OF_SYMBOLS}])[{MARKS}{JOINERS}])"
"""Where a word may start, as ``\\b`` before a letter; beside a script without spaces too."""

WORD_END = rf"(?!{_WITHIN})"
"""Where a word may end."""

CHARACTER = re.compile(rf"[^{MARKS}]?[{MARKS}]+|[^{MARKS}]", re.DOTALL)
"""A character with its marks."""

UNIT = re.compile(rf"{_ALONE}|[^\W{UNSPACED}]{_WITHIN}*")

PART = re.compile(rf"{_ALONE}|(?:(?![{UNSPACED}])\S[{MARKS}]*+)+")
"""What a text is not to be parted within: characters between white space, or one of a script without spaces."""


def units(text: str) -> list[str]:
    """The words of a text, and the characters of what is written without spaces; no punctuation."""
    return UNIT.findall(text)


def parts(text: str) -> list[tuple[int, int]]:
    """First character, and the first after it, of all that a text is not to be parted within."""
    return [part.span() for part in PART.finditer(text)]


@lru_cache(maxsize=1024)
def script_of(text: str) -> Script:
    """The script of most distinct words of a text, each character or punctuation mark of one without spaces counted as
    a word; ``latin`` if it has none but numbers.
    """
    if text.isascii():
        return "latin"
    counts = Counter(map(_script, {*units(text), *_PUNCTUATION.findall(text)}))
    others: tuple[Script, ...] = ("unspaced", "arabic", "other")
    most = max(others, key=lambda script: counts[script])
    return most if counts[most] and counts[most] >= counts["latin"] else "latin"


def _script(unit: str) -> Script | None:
    """The script of a unit or of a punctuation mark; None of a number."""
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
    """Whether a character is a combining mark, which belongs to the one before it."""
    return character > "\u02ff" and (unicodedata.category(character)[0] == "M" or character in "\uff9e\uff9f")


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script that is written without spaces."""
    return character > "\u0dff" and _UNSPACED.fullmatch(character) is not None


_UNSPACED, _PUNCTUATION = re.compile(f"[{UNSPACED}]"), re.compile(f"[{PUNCTUATION}]")
