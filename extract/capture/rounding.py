"""Rounding: latents in the form that a shard stores, none of which is outside its range.

Reading them back is in :mod:`permafrost.data.store.encoding`, which needs no torch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.store.errors import StoreError
from permafrost.data.store.int8 import LARGEST_OF_INT8, quantize
from permafrost.data.text import Text, quote_text

LARGEST = {dtype: torch.finfo(getattr(torch, dtype)).max for dtype in ("float16", "bfloat16", "float32")}
LARGEST["int8"] = LARGEST_OF_INT8
"""Stored dtype -> largest value that it represents."""

LARGER = {"float16": '"bfloat16" or "float32"', "bfloat16": '"float32"', "int8": '"float32"'}
"""Stored dtype -> those that represent larger values."""


def encode_latents(
    values: NDArray[np.float32], dtype: str, view: str, layers: Sequence[int], texts: Sequence[Text]
) -> NDArray[Any]:
    """Check that latents fit their stored dtype, and return them in it.

    Args:
        values: ``[layer, text, width]``; of the view ``tokens``, ``[layer, token, width]``.
        texts: ``[text]``; of the view ``tokens``, the text of every token.

    Returns:
        as :func:`encode`.

    Raises:
        StoreError: a value is not finite, or does not fit the dtype; the message names layer and text.
    """
    low, high = values.min(initial=0), values.max(initial=0)  # NaN propagates through both
    if np.isfinite([low, high]).all() and max(-low, high) <= LARGEST[dtype]:
        return encode(values, dtype)
    finite = np.isfinite(values)
    if not finite.all():
        layer, text, _ = np.argwhere(~finite)[0]
        raise StoreError(
            f"layer {layers[layer]}, view {view}, text {quote_text(texts[text])}: the backbone gave a value that "
            "is not finite. Its weights or plan.compute_dtype cannot be right for this text; nothing of it was stored."
        )
    layer, text, _ = np.argwhere(np.abs(values) > LARGEST[dtype])[0]
    largest = float(np.abs(values[layer, text]).max())
    shown = f"{largest:,.0f}" if largest < 1e12 else f"{largest:.4g}"
    raise StoreError(
        f"layer {layers[layer]}, view {view}, text {quote_text(texts[text])}: |value| {shown} does not fit {dtype}; "
        f"set plan.stored_dtype = {LARGER[dtype]}."
    )


def encode(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return latents as a shard stores them; :func:`permafrost.data.store.encoding.decode` makes numbers of them."""
    if dtype == "int8":
        return quantize(values)
    # The same bits as values.astype(dtype), several times as fast.
    rounded = torch.from_numpy(values).to(getattr(torch, dtype))
    stored: NDArray[Any] = (rounded.view(torch.int16) if dtype == "bfloat16" else rounded).numpy()
    return stored.view("<u2") if dtype == "bfloat16" else stored
