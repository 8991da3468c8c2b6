"""Labels that a rule makes of the text itself, where no column holds them."""

import re
from collections.abc import Callable
from typing import NamedTuple

from permafrost.data.script import WORD_END

QUOTES = " \t\r\n\"'`“”‘’«»「」『』"

QUESTION_MARKS = ("?", "？", "؟", "\u037e", "፧")
"""The Latin one, and those of Chinese and Japanese, Arabic, Greek and Ethiopic."""

WH_WORD = re.compile(rf"(what|who|whom|whose|which|when|where|why|how){WORD_END}", re.IGNORECASE)


class Rule(NamedTuple):
    """The names of its classes, and which of them a text is of."""

    labels: tuple[str, ...]
    label: Callable[[str], str]


def question(text: str) -> str:
    """``question`` where a text begins with an English wh-word or ends with a question mark, quotes aside; else
    ``statement``.
    """
    bare = text.strip(QUOTES)
    return "question" if WH_WORD.match(bare) or bare.endswith(QUESTION_MARKS) else "statement"


RULES = {"question": Rule(("statement", "question"), question)}
