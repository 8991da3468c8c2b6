"""TODO: data/corpora/records.py."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from permafrost.data.errors import InputError
from permafrost.data.text import Text

SPLITS = ("train", "validation", "test")

HELD_OUT = "held-out"
"""The split that chooses where a part of train is held out and validation is reported."""


class CorpusError(InputError):
    """A corpus that cannot be used; the message begins with file and line where there is one."""


class Span(NamedTuple):
    """A stretch of characters of a record: a word with its tag, or an answer."""

    start: int
    end: int
    """The first character after it."""

    tag: str = ""
    """Empty for answers."""

    origin: str = ""
    """``file:line`` of a tag, for messages."""


@dataclass(frozen=True)
class Record:
    """One labelled item as read, before it is checked."""

    origin: str
    """``file:line``, for messages."""

    split: str
    """``train``, ``validation``, ``test``, or empty: to be cut by seed."""

    texts: tuple[Text, ...]
    target: str | None = None
    spans: tuple[Span, ...] = ()


Kind = Literal["none", "score", "class", "tags", "answers"]
"""What a row is labelled with: nothing, a number, a class, a tag for each word, or where its answers stand."""
