"""Pilot run: the largest latent of the pilot texts, by which ``plan.stored_dtype = "auto"`` is decided."""

import contextlib

import numpy as np

from permafrost.data.plan.plan import TOKENS, CapturePlan
from permafrost.data.text import TextError
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.stored_dtype import PILOT_TEXTS, PILOT_TOKENS
from permafrost.extract.capture.forward import capture
from permafrost.extract.capture.packing import lay_out
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.token_ids import tokenize_by_plan


def pilot_peak(backbone: Backbone, final_norm: bool) -> float:
    """Return the largest absolute value over every token and layer of the pilot texts, each run alone.

    Args:
        final_norm: whether the last layer is taken after the final norm.

    Returns:
        the peak; NaN if a value is not a number, infinite if the tokenizer makes no token of any text.
    """
    source = backbone.source
    plan = CapturePlan(backbone=source.name, max_tokens=min(PILOT_TOKENS, source.longest))
    columns = {TOKENS: tuple(range(source.layers))}
    peaks = []
    for text in PILOT_TEXTS:
        with contextlib.suppress(TextError):  # a small vocabulary makes no token of some
            tokens = tokenize_by_plan(plan, source, backbone.tokenizer, [text], False)
            layout = lay_out([np.array([0])], tokens, Road.EQUAL)
            peaks.append(np.abs(capture(backbone, layout, columns, final_norm)[TOKENS]).max())
    return float(np.max(peaks, initial=0.0)) if peaks else np.inf
