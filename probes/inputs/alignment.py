"""Where characters lie among tokens: the first token of each word, the first and last token of an answer."""

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Rows
from permafrost.data.ragged import bounds, ranges
from permafrost.probes.inputs.latents import ProbeInputs

NOWHERE = -1


def tokens_at(inputs: ProbeInputs, sequences: NDArray[np.int64], characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The token that covers a character, the first of them where several do.

    Args:
        sequences: ``[place]``, which of the inputs' texts or windows.
        characters: ``[place]``, which of its characters.

    Returns:
        ``[place]``: index on the token axis of the inputs, -1 where no token covers it.
    """
    assert inputs.spans is not None
    assert inputs.offsets is not None
    real = np.flatnonzero(inputs.spans[:, 0] >= 0)
    if not len(real):
        return np.full(len(characters), NOWHERE)
    spans = inputs.spans[real].astype(np.int64)
    member_of = np.repeat(np.arange(len(inputs.offsets) - 1), np.diff(inputs.offsets))[real]
    longest = max(int(spans.max()), int(characters.max(initial=0))) + 1
    ends = member_of * longest + spans[:, 1]
    token = np.searchsorted(ends[:-1], sequences * longest + characters, side="right")  # the first that ends after it
    there = (member_of[token] == sequences) & (spans[token, 0] <= characters) & (spans[token, 1] > characters)
    return np.where(there, real[token], NOWHERE)


def first_tokens(inputs: ProbeInputs, rows: Rows) -> NDArray[np.int64]:
    """``[word]``: the first token of every word of the rows, -1 of words beyond the end of a cut text."""
    assert rows.spans is not None
    of_row = inputs.windows[rows.texts[:, 0]]
    return tokens_at(inputs, np.repeat(of_row, np.diff(rows.spans.offsets)), rows.spans.characters[:, 0])


def windows_of(inputs: ProbeInputs, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every window of every row.

    Returns:
        ``[window]``, index among the inputs' texts and windows; and ``[row + 1]``, where those of each row begin.
    """
    texts = rows.texts[:, 0]
    counts = inputs.windows[texts + 1] - inputs.windows[texts]
    return ranges(inputs.windows[texts], counts), bounds(counts)


def answer_tokens(
    inputs: ProbeInputs, rows: Rows, windows: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """``[window, 2]``: first and last token of a row's first answer, within the window; 0 twice where it is not there.

    Token 0, which no answer covers, is the place that says so.
    """
    assert rows.spans is not None
    assert inputs.offsets is not None
    firsts = rows.spans.characters[rows.spans.offsets[:-1]]
    spans = np.repeat(firsts, np.diff(offsets), axis=0)
    ends = np.stack([tokens_at(inputs, windows, spans[:, 0]), tokens_at(inputs, windows, spans[:, 1] - 1)], 1)
    within = ends - inputs.offsets[windows][:, None]
    return np.where((ends >= 0).all(1, keepdims=True), within, 0)
