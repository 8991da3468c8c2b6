"""Labels that a rule makes of the text itself, where no column holds them."""

import re
from collections.abc import Callable
from typing import NamedTuple

QUOTES = " \t\r\n\"'`“”‘’«»"
WH_WORD = re.compile(r"(what|who|whom|whose|which|when|where|why|how)\b", re.IGNORECASE)


class Rule(NamedTuple):
    """The names of its classes, and which of them a text is of."""

    labels: tuple[str, ...]
    label: Callable[[str], str]


def question(text: str) -> str:
    """``question`` where a text begins with a wh-word or ends with "?", quotes aside; else ``statement``."""
    bare = text.strip(QUOTES)
    return "question" if WH_WORD.match(bare) or bare.endswith("?") else "statement"


RULES = {"question": Rule(("statement", "question"), question)}
