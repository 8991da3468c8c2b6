"""Packing: which texts share a forward pass, and how their tokens are laid out in it.

Either rows hold one text each, with others of similar or equal length, so that little is padding; or they hold a prefix
tree: texts that begin alike share the tokens, and the computation, of their common prefix, and an ancestor mask and
explicit positions make every text independent of the others. Any subset of a pack can be laid out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import offsets_from_lengths, pad_index
from permafrost.extract.capture.roads import Road
from permafrost.extract.tokenization.token_batch import TokenBatch

Indices = NDArray[np.int64]

Pack = tuple[Indices, ...]
"""Rows of one forward pass; each holds the indices of its texts."""

TREE_WIDTH = 16
"""Multiple of tokens that rows of trees are padded to: kernels of attention on a CPU take half as long for it."""

PASSES_OF_WINDOWS = 4
"""Number of forward passes whose tokens a pack of texts in windows has at least, if there are so many: the results of
its windows are in memory together."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Input of one forward pass."""

    ids: NDArray[np.int64]
    """``[row, token]``, zero in padding."""

    positions: NDArray[np.int64]
    """``[row, token]``: number of tokens of the same text before each token."""

    real: NDArray[np.bool_]
    """``[row, token]``, True for tokens, False in padding."""

    token_type_ids: NDArray[np.int64] | None
    """``[row, token]``, zero in padding; None if the backbone is not told segments."""

    attention_mask: NDArray[np.bool_] | None
    """``[row, query, key]``, True for a token's ancestors in its tree, and itself; None if rows hold one text."""

    token_index: Indices
    """``[text, token]``: index of each pooled token of a text in the flattened ``[row, token]``; anything beyond."""

    token_mask: NDArray[np.bool_]
    """``[text, token]``: whether a text has that pooled token."""

    own_mask: NDArray[np.bool_] | None
    """``[text, token]``: whether a pooled token is one of those in :attr:`TokenBatch.own`; None if no view asks."""

    own_views: tuple[str, ...]
    """Views that see those tokens alone."""

    lengths: Indices
    """``[row]``: tokens of each row; of texts back to back, ``[text]``: those of each text."""

    road: Road
    gathered: bool
    """Whether the tokens of texts must be gathered by ``token_index``; else each row is one text, pooled as a whole."""


def make_packs(tokens: TokenBatch, road: Road, row_tokens: int, batch_tokens: int) -> list[Pack]:
    """Group all texts into packs of at most ``batch_tokens`` tokens, padding included.

    A single row that is longer is a pack of its own. The same texts give the same packs in any order, except that texts
    with equal tokens may change places. Texts that run in windows come first, in packs of their own whose windows are
    to be packed in turn; the others have the packs that they have without those.
    """
    if tokens.windows is not None:
        whole = np.flatnonzero(~tokens.split(np.arange(len(tokens.uncut))))
        of_whole = make_packs(replace(tokens.select(whole), windows=None), road, row_tokens, batch_tokens)
        of_windows = _packs_of_windows(tokens, PASSES_OF_WINDOWS * batch_tokens)
        return [*of_windows, *(tuple(whole[row] for row in pack) for pack in of_whole)]
    rows = _tree_rows(tokens, row_tokens) if road.is_tree else _length_rows(tokens)
    rows = [(row, _width(size, road)) for row, size in rows]
    packs: list[list[Indices]] = []
    longest = total = batch_tokens  # the first row begins a pack
    for row, size in rows:
        added = size if road.is_one_row else longest
        if total + added > batch_tokens or (road is Road.EQUAL and size != longest):
            packs.append([])
            longest, added, total = size, size, 0
        packs[-1].append(row)
        total += added
    return [tuple(pack) for pack in packs]


def _packs_of_windows(tokens: TokenBatch, least_tokens: int) -> Iterator[Pack]:
    """Yield packs of texts that run in several windows, the longest texts first, a text a row."""
    texts = np.flatnonzero(tokens.split(np.arange(len(tokens.uncut))))
    lengths = tokens.run_lengths[texts]
    current: list[Indices] = []
    size = 0
    for row, _ in _length_rows(tokens.select(texts)):
        current.append(texts[row])
        size += int(lengths[row].sum())
        if size >= least_tokens:
            yield tuple(current)
            current, size = [], 0
    if current:
        yield tuple(current)


def count_tokens(pack: Sequence[Indices], tokens: TokenBatch, road: Road) -> int:
    """Return the tokens of a forward pass, padding included."""
    if road.is_tree:
        rows = [row.tolist() for row in pack]
        sizes = [sum(_new_tokens(tokens, *pair) for pair in zip(row, [None, *row], strict=False)) for row in rows]
    else:
        sizes = tokens.lengths[np.concatenate(pack)].tolist()
    return sum(sizes) if road.is_one_row else len(pack) * _width(max(sizes), road)


def _width(tokens: int, road: Road) -> int:
    """Return the positions of a row whose tokens, or those of the fullest row beside it, are so many."""
    return -(-tokens // TREE_WIDTH) * TREE_WIDTH if road.is_tree else tokens


def halve(pack: Sequence[Indices]) -> list[Pack]:
    """Return the two halves of a pack, in its order: of its rows, or of the texts of a single one; none of one text."""
    if len(pack) > 1:
        return [tuple(pack[: len(pack) // 2]), tuple(pack[len(pack) // 2 :])]
    (texts,) = pack
    middle = len(texts) // 2
    return [(texts[:middle],), (texts[middle:],)] if middle else []


def lay_out(pack: Sequence[Indices], tokens: TokenBatch, road: Road) -> Layout:
    """Lay out the texts of ``pack``, row by row and in the order given, as the input of one forward pass."""
    rows = [_lay_out_row(texts, tokens) for texts in pack]
    lengths = np.array([len(row.ids) for row in rows])
    row_index, real = pad_index(lengths[None].sum(1) if road.is_one_row else lengths, TREE_WIDTH if road.is_tree else 1)
    starts = offsets_from_lengths(lengths) if road.is_one_row else np.arange(len(rows)) * real.shape[1]

    def pad(values: list[Indices]) -> Indices:
        return np.where(real, np.concatenate(values)[row_index], 0)

    token_type_ids = None
    if not road.is_tree and tokens.token_type_ids is not None:
        token_type_ids = pad([tokens.token_type_ids_of(int(text)).astype(np.int64) for (text,) in pack])
    paths = [
        (path + starts[number])[tokens.viewed_range(int(text))]
        for number, (row, texts) in enumerate(zip(rows, pack, strict=True))
        for path, text in zip(row.paths, texts, strict=True)
    ]
    path_index, token_mask = pad_index(np.array([len(path) for path in paths]))
    return Layout(
        ids=pad([row.ids for row in rows]),
        positions=pad([row.positions for row in rows]),
        real=real,
        token_type_ids=token_type_ids,
        attention_mask=_ancestor_mask(rows, real.shape[1]) if road.is_tree else None,
        token_index=np.concatenate(paths)[path_index],
        token_mask=token_mask,
        own_mask=_own_mask(np.concatenate(pack), token_mask.shape[1], tokens),
        own_views=tokens.own_views,
        road=road,
        gathered=road.is_tree or road.is_one_row or tokens.pooled is not None,
        lengths=lengths,
    )


@dataclass(frozen=True)
class _Row:
    ids: Indices
    positions: Indices
    paths: list[Indices]
    """For each text of the row, the indices of its tokens within the row, ascending."""


def _own_mask(texts: Indices, width: int, tokens: TokenBatch) -> NDArray[np.bool_] | None:
    """Return ``[text, token]``, True for a text's own tokens among those that the views see; None if no view asks."""
    if tokens.own is None:
        return None
    ranges = tokens.own[texts] - (0 if tokens.pooled is None else tokens.pooled[texts, :1])
    positions = np.arange(width)
    return np.asarray((ranges[:, :1] <= positions) & (positions < ranges[:, 1:]))


def _length_rows(tokens: TokenBatch) -> list[tuple[Indices, int]]:
    """Return rows of one text with their length, the longest first: what does not fit in memory fails at once."""
    lengths = tokens.lengths.tolist()
    by_tokens = sorted(range(len(lengths)), key=lambda text: tokens.ids_of(text).tobytes())
    return [(np.array([text]), lengths[text]) for text in sorted(by_tokens, key=lengths.__getitem__, reverse=True)]


def _tree_rows(tokens: TokenBatch, row_tokens: int) -> list[tuple[Indices, int]]:
    """Return rows with their number of tokens, the fullest first.

    Texts are sorted by their tokens, and a row takes as many neighbours as fit ``row_tokens`` as a prefix tree.
    """
    order = sorted(range(len(tokens.lengths)), key=lambda text: tokens.ids_of(text).astype(">u4").tobytes())
    rows: list[tuple[Indices, int]] = []
    current: list[int] = []
    size = 0
    for text in order:
        new = _new_tokens(tokens, text, current[-1] if current else None)
        if current and size + new > row_tokens:
            rows.append((np.array(current), size))
            current, size, new = [], 0, len(tokens.ids_of(text))
        current.append(text)
        size += new
    if current:
        rows.append((np.array(current), size))
    return sorted(rows, key=lambda row: row[1], reverse=True)


def _lay_out_row(texts: Indices, tokens: TokenBatch) -> _Row:
    """Lay out a prefix tree; texts are sorted by their tokens, so each shares most with the one before it."""
    ids: list[NDArray[np.int32]] = []
    positions: list[Indices] = []
    paths: list[Indices] = []
    size = 0
    for index, text in enumerate(texts):
        text_ids = tokens.ids_of(int(text))
        shared = _shared(tokens.ids_of(int(texts[index - 1])), text_ids) if index else 0
        new = np.arange(size, size + len(text_ids) - shared)
        ids.append(text_ids[shared:])
        positions.append(np.arange(shared, len(text_ids)))
        paths.append(np.concatenate([paths[-1][:shared], new]) if shared else new)
        size += len(new)
    return _Row(np.concatenate(ids).astype(np.int64), np.concatenate(positions), paths)


def _new_tokens(tokens: TokenBatch, text: int, before: int | None) -> int:
    """Return the number of tokens that a text adds to the prefix tree of the text before it and others."""
    ids = tokens.ids_of(text)
    return len(ids) - (0 if before is None else _shared(tokens.ids_of(before), ids))


def _shared(first: NDArray[np.int32], second: NDArray[np.int32]) -> int:
    """Return the length of the common prefix of two texts."""
    shortest = min(len(first), len(second))
    differ = first[:shortest] != second[:shortest]
    return int(differ.argmax()) if differ.any() else shortest


def _ancestor_mask(rows: Sequence[_Row], width: int) -> NDArray[np.bool_]:
    """Return ``[row, query, key]``, True for a token's ancestors and itself.

    Padding attends to itself, so that no softmax is over nothing.
    """
    mask = np.zeros((len(rows), width, width), bool)
    for number, row in enumerate(rows):
        seen = 0
        for path in row.paths:
            count = len(path) - int(np.searchsorted(path, seen))  # a path ascends, so its new tokens are its end
            new = slice(seen, seen + count)
            mask[number, new, path] = True
            mask[number, new, new] = np.tri(count, dtype=bool)
            seen = new.stop
    diagonal = np.arange(width)
    mask[:, diagonal, diagonal] = True
    return mask
