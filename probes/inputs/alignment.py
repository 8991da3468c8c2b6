"""Alignment of characters and tokens: the first token of each word, the first and last token of an answer."""

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Rows
from permafrost.data.ragged import NO_SPAN, TokenIndex


def tokens_at(tokens: TokenIndex, windows: NDArray[np.int64], characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first token that covers each character.

    Args:
        windows: ``[character]``, index of the window.
        characters: ``[character]``, index of the character in the text of the window.

    Returns:
        ``[character]``: index of the token, -1 if no token covers the character.
    """
    covering = np.flatnonzero(tokens.spans[:, 0] >= 0)
    if not len(covering):
        return np.full(len(characters), -1)
    spans = tokens.spans[covering].astype(np.int64)
    window_of = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)[covering]
    longest = max(int(spans.max()), int(characters.max(initial=0))) + 1
    ends = window_of * longest + spans[:, 1]
    token = np.searchsorted(ends[:-1], windows * longest + characters, side="right")  # the first that ends after it
    covered = (window_of[token] == windows) & (spans[token, 0] <= characters) & (spans[token, 1] > characters)
    return np.where(covered, covering[token], -1)


def first_tokens(tokens: TokenIndex, rows: Rows) -> NDArray[np.int64]:
    """Return ``[word]``, the first token of every word of the rows; -1 for words after the end of a truncated text."""
    assert rows.spans is not None
    windows = np.repeat(tokens.starts[rows.texts[:, 0]], np.diff(rows.spans.offsets))
    return tokens_at(tokens, windows, rows.spans.characters[:, 0])


def answer_tokens(
    tokens: TokenIndex, rows: Rows, windows: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return ``[window, 2]``, first and last token of the row's first answer, counted within the window.

    Both are 0 if the window does not hold the answer, or the row has none: no answer covers token 0.
    """
    assert rows.spans is not None
    first_answers = np.full((len(rows), 2), NO_SPAN)
    first_answers[~rows.spans.are_missing] = rows.spans.characters[rows.spans.offsets[:-1][~rows.spans.are_missing]]
    spans = np.repeat(first_answers, np.diff(offsets), axis=0)
    ends = np.stack([tokens_at(tokens, windows, spans[:, 0]), tokens_at(tokens, windows, spans[:, 1] - 1)], 1)
    within = ends - tokens.offsets[windows][:, None]
    return np.where((ends >= 0).all(1, keepdims=True), within, 0)
