"""Checks of texts against a capture plan, and the refusal of texts that are too long."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.spec import SpecError
from permafrost.data.store.plan import CapturePlan
from permafrost.data.text import Text, TextError
from permafrost.extract.tokenization.tokenize import TEXT


def check_texts(plan: CapturePlan, texts: Sequence[Text]) -> None:
    """Raise :class:`SpecError` if a plan has a template or a rewording, and some texts have two segments."""
    if all(isinstance(text, str) for text in texts):
        return
    for key, default, value in (("template", TEXT, plan.template), ("rewording", (), plan.rewording)):
        if value != default:
            raise SpecError(
                f"plan.{key} = {value!r} is for texts of one segment, and this corpus has texts of two; leave it out."
            )


def refuse_long_texts(texts: Sequence[Text], uncut: NDArray[np.integer[Any]], plan: CapturePlan) -> None:
    """Raise :class:`TextError` that names the longest of the texts that exceed ``plan.max_tokens``.

    Args:
        uncut: ``[text]``, tokens before truncation.
    """
    longest, count = int(np.argmax(uncut)), int((uncut > plan.max_tokens).sum())
    raise TextError(
        f"{count:,} texts exceed plan.max_tokens = {plan.max_tokens}, the longest has {int(uncut[longest])} tokens "
        f'({str(texts[longest])[:40]!r}...); raise it, or set plan.truncation = "cut". Nothing was run.',
        texts[longest],
    )
