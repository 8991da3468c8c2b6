"""Word splitting of raw text, as in tagged corpora, tested on CoNLL-2003; and the tags of words by entities.

Punctuation is a word of its own unless it is part of a word: ``U.S.``, ``1,200``, ``Russian-born``, ``O'Brien``.
English clitics are words too: ``Seamus's`` is ``Seamus`` and ``'s``, ``didn't`` is ``did`` and ``n't``.

In scripts without spaces every character is a word, as in Chinese tagged corpora; a combining mark is part of the
character before it.

Annotation tools write entities by the characters that they cover: ``[start, end, label]`` (doccano), an object with
these keys (Prodigy, Label Studio), or a list of the former under ``entities`` (spaCy).
"""

import re
from typing import Any

from permafrost.data.writing.script import MARKS, PUNCTUATION, UNSPACED, WORD_END, WORD_START, lazy_pattern

CharacterSpan = tuple[int, int]
"""First character and end (exclusive)."""

Entity = tuple[int, int, str]
"""First character, end (exclusive), label."""

STARTS, ENDS = ("start", "start_offset"), ("end", "end_offset")

LABELS = ("label", "labels", "entity", "type", "tag")

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


def read_entities(value: Any) -> list[Entity] | None:
    """Return the entities that a value holds, in the order of their first characters; None if it holds others."""
    items = value.get("entities") if isinstance(value, dict) else value
    if not isinstance(items, list):
        return None
    entities = [_read_entity(item) for item in items]
    return None if None in entities else sorted(filter(None, entities))


def _read_entity(item: Any) -> Entity | None:
    if isinstance(item, dict):
        item = [next((item[key] for key in keys if key in item), None) for keys in (STARTS, ENDS, LABELS)]
    if not isinstance(item, list) or len(item) != 3 or type(item[0]) is not int or type(item[1]) is not int:
        return None
    start, end, label = item
    label = label[0] if isinstance(label, list) and len(label) == 1 else label
    return (start, end, label) if isinstance(label, str) and label.strip() else None


def tag_words(text: str, entities: list[Entity]) -> list[Entity]:
    """Return the words of a text with their tags in IOB2; a word of which an entity covers a part is in it.

    Raises:
        ValueError: entities overlap, or one covers no word of the text.
    """
    words = split_words(text)
    tags, before = ["O"] * len(words), (0, 0, "")
    for entity in entities:
        start, end, label = entity
        covered = [number for number, word in enumerate(words) if word[0] < end and start < word[1]]
        if not covered or start < 0 or end > len(text):
            raise ValueError(f"the entity {list(entity)} covers no word of the text")
        if any(tags[number] != "O" for number in covered):
            raise ValueError(f"the entities {list(before)} and {list(entity)} share a word; a word has one tag")
        for number in covered:
            tags[number] = f"{'B' if number == covered[0] else 'I'}-{label.strip()}"
        before = entity
    return [(start, end, tag) for (start, end), tag in zip(words, tags, strict=True)]
