"""Word splitting of raw text, as in tagged corpora; the rules are tested on CoNLL-2003.

Punctuation is a word of its own unless it is part of a word: ``U.S.``, ``1,200``, ``Russian-born``, ``O'Brien``.
English clitics are words too: ``Seamus's`` is ``Seamus`` and ``'s``, ``didn't`` is ``did`` and ``n't``.

In scripts without spaces every character is a word, as in Chinese tagged corpora; a combining mark is part of the
character before it.
"""

import re

from permafrost.data.script import MARKS, PUNCTUATION, UNSPACED, WORD_END, WORD_START, lazy_pattern

CharacterSpan = tuple[int, int]
"""First character and end (exclusive)."""

SYMBOLS = rf"()\[\]{{}}<>\"“”„«»,;:!?…—'‘’.%$£€¥/{PUNCTUATION}"

NOT_IN_WORD = SYMBOLS + UNSPACED

IN_WORD = rf"(?:(?!--)[^\s{NOT_IN_WORD}][{MARKS}]*+)"

IN_URL = rf"[^\s<>\"{PUNCTUATION}{UNSPACED}]"

IN_MAIL = rf"(?:[^\W{UNSPACED}]|-)"

TOKEN = lazy_pattern(
    rf"""
      (?P<address>
          (?:https?://|www\.){IN_URL}*(?![{SYMBOLS}]){IN_URL}
        | (?:{IN_MAIL}|[.+])+@{IN_MAIL}+(?:\.{IN_MAIL}+)+
      )
    | (?P<mark>\.{{2,}} | --+ | {WORD_START}[A-Z]{{1,3}}\$(?=\.?\d))
    | (?<=\S)['’](?i:s|m|re|ve|ll|d){WORD_END}
    | (?P<word>
          (?:{WORD_START}\.(?=\d))?{IN_WORD}+(?:(?:['’.](?={IN_WORD})|(?<=\d)[,:/](?=\d)){IN_WORD}+)*
      )(?P<stop>\.(?!\.))?
    | \S[{MARKS}]*
    """,
    re.VERBOSE,
)

CLITIC = re.compile(r"(?:n['’]t|['’](?:s|m|re|ve|ll|d))$", re.IGNORECASE)

SPACES, NEXT_WORD = re.compile(r"\s*"), re.compile(r"\s+\S")

DOTTED_LETTERS = lazy_pattern(rf"[^\W\d_][{MARKS}]*(?:\.[^\W\d_][{MARKS}]*)+")

ABBREVIATION = re.compile(
    "mrs?|ms|dr|prof|st|[sj]r|gen|col|capt|lt|maj|sgt|gov|sen|rep|rev|hon|corp|inc|co|ltd|bros|vs|etc|vol|dept|"
    "jan|feb|aug|sept?|oct|nov|dec|calif|fla|mass|conn|penn|tex|wash|ariz|colo|ill|mich|minn|tenn",
    re.IGNORECASE,
)
"""Abbreviations, which keep their full stop."""


def split_words(text: str) -> list[CharacterSpan]:
    """Return the spans of the words of a text, in order; every character but white space is in exactly one."""
    spans: list[CharacterSpan] = []
    for token in TOKEN().finditer(text):
        start, end = token.span("word")
        if token["word"] is None or (token["stop"] and _keeps_stop(text, start, end)):
            spans.append(token.span())
            continue
        clitic = CLITIC.search(text, start, end)
        if clitic and clitic.start() > start:
            spans += [(start, clitic.start()), clitic.span()]
        else:
            spans.append((start, end))
        if token["stop"]:
            spans.append(token.span("stop"))
    return spans


def _keeps_stop(text: str, start: int, end: int) -> bool:
    """Return whether the full stop after a word is part of it, as in ``U.S.``, initials and numbered items."""
    word, has_next = text[start:end], bool(NEXT_WORD.match(text, end + 1))
    if DOTTED_LETTERS().fullmatch(word) or ABBREVIATION.fullmatch(word):
        return True
    if len(word) == 1 and word.isupper():
        return has_next
    return has_next and word.isdecimal() and len(word) < 4 and bool(SPACES.fullmatch(text, 0, start))
