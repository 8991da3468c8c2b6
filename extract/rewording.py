"""Rewording: changes to a text before its template, to see how much a latent hangs on its surface."""

import re
from collections.abc import Iterable

from data.text import TextError, short

STOP = re.compile(r"\s*[.!?。]+\s*$")


def reword(text: str, changes: Iterable[str]) -> str:
    """Apply ``lower_case``, ``no_final_stop`` and ``OLD=NEW`` (a whole word) in order.

    Raises:
        TextError: nothing is left of the text.
    """
    changed = text
    for change in changes:
        if change == "lower_case":
            changed = changed.lower()
        elif change == "no_final_stop":
            changed = STOP.sub("", changed)
        else:
            old, _, new = change.partition("=")
            changed = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new.replace("\\", r"\\"), changed)
    if not changed.strip():
        raise TextError(f"text {short(text)}: plan.rewording leaves nothing of it; leave it out.", text)
    return changed
