"""TODO: extract/tokenization/checks.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from permafrost.data.spec import SpecError
from permafrost.data.store.plan import CapturePlan
from permafrost.data.text import Text, TextError
from permafrost.extract.tokenization.tokenize import TEXT


def check_texts(plan: CapturePlan, texts: Sequence[Text]) -> None:
    """Raise a :class:`SpecError` where texts of two segments leave no place for what else a plan does to a text."""
    if all(isinstance(text, str) for text in texts):
        return
    for key, usual, found in (("template", TEXT, plan.template), ("rewording", (), plan.rewording)):
        if found != usual:
            raise SpecError(
                f"plan.{key} = {found!r} is for texts of one segment, and this corpus has texts of two; leave it out."
            )


def refuse_long_texts(texts: Sequence[Text], uncut: Any, plan: CapturePlan) -> None:
    """Stop where texts are longer than the plan allows."""
    longest, many = int(np.argmax(uncut)), int((uncut > plan.max_tokens).sum())
    raise TextError(
        f"{many:,} texts exceed plan.max_tokens = {plan.max_tokens}, the longest has {int(uncut[longest])} tokens "
        f'({str(texts[longest])[:40]!r}...); raise it, or set plan.truncation = "cut". Nothing was run.',
        texts[longest],
    )
