"""Records: labelled items as a reader yields them, before they are checked and become a corpus.

Every record carries its place (``file:line``), so that an error can name it.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from permafrost.data.errors import InputError
from permafrost.data.text import Text

SPLITS = ("train", "validation", "test")

HELD_OUT = "held-out"
"""Name of the split that is cut off train for model selection, so that validation can be reported."""


class CorpusError(InputError):
    """A corpus that cannot be used; the message begins with file and line if there is one."""


class Span(NamedTuple):
    """A character span in the text of a record: a word with its tag, or an answer."""

    start: int
    end: int
    """Exclusive."""

    tag: str = ""
    """Empty for answers."""

    origin: str = ""
    """``file:line`` of a tag, for error messages."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One labelled item as read from a file or the hub, not yet checked."""

    origin: str
    """``file:line``, for error messages."""

    split: str
    """``train``, ``validation``, ``test``, or empty if the corpus is to be split by seed."""

    texts: tuple[Text, ...]
    target: str | None = None
    """Score or class as written in the file; None if the record has spans or no target."""

    spans: tuple[Span, ...] = ()


Kind = Literal["none", "score", "class", "tags", "answers"]
"""Kind of target of a row: none, a number, a class, a tag for each word, or the spans of its answers."""
