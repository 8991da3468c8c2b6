"""Rewording: changes to the surface of a text before it is put into its template, such as lower case."""

import re
from collections.abc import Iterable

from permafrost.data.text import TextError, quote_text
from permafrost.data.writing.script import MARKS, SENTENCE_ENDS, WORD_END, WORD_START, is_unspaced, unbreakable_spans

STOP = re.compile(rf"\s*[.!?{SENTENCE_ENDS}]+\s*$")


def reword(text: str, changes: Iterable[str]) -> str:
    """Apply ``lower_case``, ``no_final_stop`` and ``OLD=NEW`` (a whole word) in order.

    In a script that is written without spaces, words have no border: OLD is replaced wherever it occurs, unless a
    further combining mark follows it.

    Raises:
        TextError: the changes leave the text empty.
    """
    changed = text
    for change in changes:
        if change == "lower_case":
            changed = changed.lower()
        elif change == "no_final_stop":
            changed = STOP.sub("", changed)
        else:
            old, _, new = change.partition("=")
            start = "" if is_unspaced(old[0]) else WORD_START
            end = rf"(?![{MARKS}])" if is_unspaced(old[unbreakable_spans(old)[-1][0]]) else WORD_END
            changed = re.sub(start + re.escape(old) + end, new.replace("\\", r"\\"), changed)
    if not changed.strip():
        raise TextError(f"text {quote_text(text)}: plan.rewording leaves nothing of it; leave it out.", text)
    return changed
