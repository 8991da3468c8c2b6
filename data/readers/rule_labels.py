"""Rule labels: classes that a rule derives from the text, for corpora without a column of labels."""

import re
from collections.abc import Callable
from typing import NamedTuple

from permafrost.data.script import WORD_END

QUOTES = " \t\r\n\"'`“”‘’«»「」『』"

QUESTION_MARKS = ("?", "？", "؟", "\u037e", "፧")
"""Question marks: Latin, Chinese and Japanese, Arabic, Greek, Ethiopic."""

WH_WORD = re.compile(rf"(what|who|whom|whose|which|when|where|why|how){WORD_END}", re.IGNORECASE)


class Rule(NamedTuple):
    """A labelling rule: names of its classes, and the function that labels a text."""

    labels: tuple[str, ...]
    label: Callable[[str], str]


def label_question(text: str) -> str:
    """Return ``question`` if a text begins with an English wh-word or ends with a question mark, else ``statement``.

    Quotation marks and white space around the text are ignored.
    """
    stripped = text.strip(QUOTES)
    return "question" if WH_WORD.match(stripped) or stripped.endswith(QUESTION_MARKS) else "statement"


RULES = {"question": Rule(("statement", "question"), label_question)}
