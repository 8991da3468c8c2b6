"""Words of raw text, split as corpora of tagged words split theirs: CoNLL-2003 is what the rules are measured on.

Punctuation stands alone, but for what is part of a word: ``U.S.``, ``1,200``, ``Russian-born``, ``O'Brien``. What
English glues to a word stands alone too: ``Seamus's`` is ``Seamus`` and ``'s``, ``didn't`` is ``did`` and ``n't``.

In a script that is written without spaces every character is a word, as corpora of Chinese tag them; a combining mark
is part of the character before it.
"""

import re
from collections.abc import Iterator

from permafrost.data.script import MARKS, PUNCTUATION, UNSPACED, WORD_END, WORD_START

Place = tuple[int, int]
"""First character and the first after it."""

ALONE = rf"()\[\]{{}}<>\"“”„«»,;:!?…—'‘’.%$£€¥/{PUNCTUATION}"

NO_WORD = ALONE + UNSPACED

PLAIN = rf"(?:(?!--)[^\s{NO_WORD}][{MARKS}]*+)"

IN_URL = rf"[^\s<>\"{PUNCTUATION}{UNSPACED}]"

IN_MAIL = rf"(?:[^\W{UNSPACED}]|-)"

PIECE = re.compile(
    rf"""
      (?P<address>(?:https?://|www\.){IN_URL}*(?![{ALONE}]){IN_URL} | (?:{IN_MAIL}|[.+])+@{IN_MAIL}+(?:\.{IN_MAIL}+)+)
    | (?P<mark>\.{{2,}} | --+ | {WORD_START}[A-Z]{{1,3}}\$(?=\.?\d))
    | (?<=\S)['’](?i:s|m|re|ve|ll|d){WORD_END}
    | (?P<word>(?:{WORD_START}\.(?=\d))?{PLAIN}+(?:(?:['’.](?={PLAIN})|(?<=\d)[,:/](?=\d)){PLAIN}+)*)(?P<stop>\.(?!\.))?
    | \S[{MARKS}]*
    """,
    re.VERBOSE,
)

GLUED = re.compile(r"(?:n['’]t|['’](?:s|m|re|ve|ll|d))$", re.IGNORECASE)

BLANKS, MORE = re.compile(r"\s*"), re.compile(r"\s+\S")

LETTERS = re.compile(rf"[^\W\d_][{MARKS}]*(?:\.[^\W\d_][{MARKS}]*)+")

SHORTENED = re.compile(
    "mrs?|ms|dr|prof|st|[sj]r|gen|col|capt|lt|maj|sgt|gov|sen|rep|rev|hon|corp|inc|co|ltd|bros|vs|etc|vol|dept|"
    "jan|feb|aug|sept?|oct|nov|dec|calif|fla|mass|conn|penn|tex|wash|ariz|colo|ill|mich|minn|tenn",
    re.IGNORECASE,
)
"""Words that keep their full stop."""


def words_of(text: str) -> list[Place]:
    """Where the words of a text stand, in order; white space is in none, every other character in one."""
    return [place for piece in PIECE.finditer(text) for place in _of_piece(piece, text)]


def _of_piece(piece: re.Match[str], text: str) -> Iterator[Place]:
    if piece["word"] is None:
        yield piece.span()
        return
    start, end = piece.span("word")
    if piece["stop"]:
        if _keeps_stop(text, start, end):
            yield start, end + 1
            return
        yield from _unglued(text, start, end)
        yield piece.span("stop")
        return
    yield from _unglued(text, start, end)


def _unglued(text: str, start: int, end: int) -> Iterator[Place]:
    glued = GLUED.search(text, start, end)
    if glued and glued.start() > start:
        yield start, glued.start()
        yield glued.span()
    else:
        yield start, end


def _keeps_stop(text: str, start: int, end: int) -> bool:
    """Whether the full stop after a word is part of it: of ``U.S.``, of an initial, of the number of an item."""
    word, more = text[start:end], bool(MORE.match(text, end + 1))
    if LETTERS.fullmatch(word) or SHORTENED.fullmatch(word):
        return True
    if len(word) == 1 and word.isupper():
        return more
    return more and word.isdecimal() and len(word) < 4 and bool(BLANKS.fullmatch(text, 0, start))
