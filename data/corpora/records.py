"""Records: labelled items as a reader yields them, before they are checked and become a corpus.

Every record carries its place (``file:line``), so that an error can name it.
"""

from dataclasses import dataclass
from typing import NamedTuple

from permafrost.data.errors import CorpusError as CorpusError  # noqa: PLC0414  part of this module
from permafrost.data.text import Text, text_problem

SPLITS = ("train", "validation", "test")

SINGLE, PAIR, QUESTION, RANKED = ("text",), ("first", "second"), ("question", "context"), ("query", "passage")
"""Names of the texts of a row."""

HELD_OUT = "held-out"
"""Name of the split that is cut off train for model selection, so that validation can be reported."""


class RowError(CorpusError):
    """A row that cannot be used; it is left out, counted by its reason, unless rows are not to be left out.

    Args:
        origin: ``file:line``.
        reason: the same words for all rows of a kind.
        problem: what is wrong with this row, a sentence without its full stop.
    """

    def __init__(self, origin: str, reason: str, problem: str) -> None:
        super().__init__(f"{origin}: {problem}.")
        self.origin, self.reason, self.problem = origin, reason, problem


class Span(NamedTuple):
    """A character span in the text of a record: a word with its tag, or an answer."""

    start: int
    end: int
    """Exclusive."""

    tag: str = ""
    """Empty for answers."""

    origin: str = ""
    """``file:line`` of a tag, for error messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One labelled item as read from a file or the hub, not yet checked."""

    origin: str
    """``file:line``, for error messages."""

    split: str
    """``train``, ``validation``, ``test``, or empty if the corpus is to be split by the digests of its texts."""

    texts: tuple[Text, ...]
    target: str | None = None
    """Score, class or labels as written in the file; None if the record has spans or no target."""

    spans: tuple[Span, ...] = ()

    def in_split(self, split: str) -> "Record":
        """Return the record as one of a split; a corpus calls this for each of its rows."""
        if split == self.split:
            return self
        return Record(origin=self.origin, split=split, texts=self.texts, target=self.target, spans=self.spans)


Kind = str
"""Kind of target of a row, a key of :data:`permafrost.data.corpora.targets.TARGETS`: "none", "score" (a number),
"class", "labels" (any number of them), "tags" (one for each word), "answers" (their spans), or "rank" (a relevance)."""


def check_text(origin: str, noun: str, text: str) -> None:
    """Raise a :class:`RowError` if a string is empty or cannot be encoded."""
    if problem := text_problem(text):
        kind = noun.removeprefix("the ").split()[0]
        reason = f"{kind} that {problem}" if text.strip() else f"empty {kind}"
        raise RowError(origin, reason, f"{noun} {problem}")
