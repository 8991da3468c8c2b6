"""Packing: which texts share a forward, and where each of their tokens lies in it.

Encoders take texts of like length, one a row, so that little is padding. Causal backbones take rows that hold a prefix
tree: texts that begin alike share the tokens, and the computation, of their common beginning; an ancestor mask and
explicit positions keep every text as if it were alone. A batch is laid out from any subset of a pack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from permafrost.extract.tokenization.token_batch import TokenBatch

Indices = NDArray[np.int64]

Pack = tuple[Indices, ...]
"""The rows of one forward, each with the texts it holds."""


@dataclass(frozen=True)
class Layout:
    """One forward's input: ``row`` rows of ``token`` places."""

    ids: NDArray[np.int64]
    """``[row, token]``, zero in padding."""

    positions: NDArray[np.int64]
    """``[row, token]``: how many tokens of its own text come before."""

    real: NDArray[np.bool_]
    """``[row, token]``, false in padding."""

    token_type_ids: NDArray[np.int64] | None
    """``[row, token]``: which segment of its text each counts to, zero in padding; None where that is told nobody."""

    attention_mask: NDArray[np.bool_] | None
    """``[row, token, token]``: what each place attends to; None for all that is real."""

    token_index: Indices
    """``[text, token]``: where each text's pooled tokens lie among the ``row * token`` places, any place beyond."""

    token_mask: NDArray[np.bool_]
    """``[text, token]``: whether a text has that pooled token."""

    gathered: bool
    """Whether texts must be gathered from their places; else each row is a text, and all of it is pooled."""


def make_packs(tokens: TokenBatch, causal: bool, row_tokens: int, batch_tokens: int) -> list[Pack]:
    """Group all texts into packs of at most ``batch_tokens`` places (a single longer row is a pack of its own).

    The same texts give the same packs in whatever order they come, but for texts of equal tokens, which are alike.
    """
    rows = _tree_rows(tokens, row_tokens) if causal else _length_rows(tokens)
    packs: list[Pack] = []
    current: list[Indices] = []
    longest = 0
    for row, size in rows:
        longest = max(longest, size)
        if current and longest * (len(current) + 1) > batch_tokens:
            packs.append(tuple(current))
            current, longest = [], size
        current.append(row)
    return [*packs, tuple(current)] if current else packs


def lay_out(pack: Sequence[Indices], tokens: TokenBatch, causal: bool) -> Layout:
    """Lay the texts of ``pack``, row by row and in the order given, into one forward."""
    rows = [_tree(row, tokens) if causal else _chain(row, tokens) for row in pack]
    width = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    real = np.zeros((len(rows), width), bool)
    kinds = None if causal or tokens.token_type_ids is None else np.zeros((len(rows), width), np.int64)
    paths: list[Indices] = []
    for number, (row, members) in enumerate(zip(rows, pack, strict=True)):
        size = len(row.ids)
        ids[number, :size], positions[number, :size], real[number, :size] = row.ids, row.positions, True
        if kinds is not None:
            kinds[number, :size] = tokens.token_type_ids_of(int(members[0]))
        paths += [
            (path + number * width)[tokens.span(int(text))] for path, text in zip(row.paths, members, strict=True)
        ]
    longest = max(map(len, paths))
    places = np.zeros((len(paths), longest), np.int64)
    within = np.zeros((len(paths), longest), bool)
    for number, path in enumerate(paths):
        places[number, : len(path)], within[number, : len(path)] = path, True
    gathered = causal or tokens.pooled is not None
    return Layout(ids, positions, real, kinds, _visible(rows, width) if causal else None, places, within, gathered)


@dataclass(frozen=True)
class _Row:
    ids: NDArray[np.int64]
    positions: Indices
    paths: list[Indices]
    """For each text of the row, the places of its tokens."""


def _length_rows(tokens: TokenBatch) -> list[tuple[Indices, int]]:
    """One text a row, the longest first: what will not fit in memory fails at once."""
    lengths = tokens.lengths
    order = sorted(range(len(lengths)), key=lambda text: (-lengths[text], tokens.of(text).tobytes()))
    return [(np.array([text]), int(lengths[text])) for text in order]


def _tree_rows(tokens: TokenBatch, row_tokens: int) -> list[tuple[Indices, int]]:
    """Neighbours in the order of their tokens, as many as fit ``row_tokens`` as a prefix tree; the fullest first."""
    order = sorted(range(len(tokens.lengths)), key=lambda text: tokens.of(text).astype(">u4").tobytes())
    rows: list[tuple[Indices, int]] = []
    current: list[int] = []
    size = 0
    for text in order:
        new = len(tokens.of(text)) - (_shared(tokens.of(current[-1]), tokens.of(text)) if current else 0)
        if current and size + new > row_tokens:
            rows.append((np.array(current), size))
            current, size, new = [], 0, len(tokens.of(text))
        current.append(text)
        size += new
    if current:
        rows.append((np.array(current), size))
    return sorted(rows, key=lambda row: -row[1])


def _chain(row: Indices, tokens: TokenBatch) -> _Row:
    (text,) = row
    ids = tokens.of(int(text)).astype(np.int64)
    return _Row(ids, np.arange(len(ids)), [np.arange(len(ids))])


def _tree(row: Indices, tokens: TokenBatch) -> _Row:
    """A prefix tree; texts come in the order of their tokens, so each shares most with the one before it."""
    ids: list[NDArray[np.int32]] = []
    positions: list[Indices] = []
    paths: list[Indices] = []
    size = 0
    for index, text in enumerate(row):
        own = tokens.of(int(text))
        shared = _shared(tokens.of(int(row[index - 1])), own) if index else 0
        new = np.arange(size, size + len(own) - shared)
        ids.append(own[shared:])
        positions.append(np.arange(shared, len(own)))
        paths.append(np.concatenate([paths[-1][:shared], new]) if shared else new)
        size += len(new)
    return _Row(np.concatenate(ids).astype(np.int64), np.concatenate(positions), paths)


def _shared(first: NDArray[np.int32], second: NDArray[np.int32]) -> int:
    """How many leading tokens two texts share."""
    shortest = min(len(first), len(second))
    differ = first[:shortest] != second[:shortest]
    return int(differ.argmax()) if differ.any() else shortest


def _visible(rows: Sequence[_Row], width: int) -> NDArray[np.bool_]:
    """Each token sees its ancestors and itself; padding sees itself, so that no softmax is over nothing."""
    visible = np.zeros((len(rows), width, width), bool)
    for number, row in enumerate(rows):
        seen = 0
        for path in row.paths:
            new = path[np.searchsorted(path, seen) :]  # a path rises, so its new places are its end
            known = path[: len(path) - len(new)]
            if len(new):
                visible[number, new[0] : new[-1] + 1, known] = True
                visible[number, new[0] : new[-1] + 1, new[0] : new[-1] + 1] = np.tri(len(new), dtype=bool)
                seen = int(new[-1]) + 1
    diagonal = np.arange(width)
    visible[:, diagonal, diagonal] = True
    return visible
