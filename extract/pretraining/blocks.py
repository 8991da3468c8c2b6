"""Training blocks: tokenized documents cut to blocks of equal length, and the labels to predict in each.

All randomness depends on the seed and on the index of a block in the training alone, not on the other blocks of its
batch, nor on interruptions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

IGNORED = -100
"""Label of a token that is not to be predicted."""

CUT_TOKENS = 1 << 20
"""Tokens that are joined before they are cut to blocks."""

HIDDEN, REPLACED = 0.8, 0.1
"""Shares of the tokens to predict that are masked, and replaced by another token; the rest stay."""


@dataclass(frozen=True)
class Frame:
    """Special tokens of a block, as the tokenizer puts them around a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    """Tokens between two documents in one block."""


@dataclass(frozen=True)
class Masking:
    """Masking of tokens, by the 80/10/10 rule of BERT."""

    mask: int
    """Id of the mask token."""

    ordinary: Ids
    """Ids of ordinary tokens: those that may be predicted, or replace another."""

    share: float
    """Share of a block's tokens to predict."""

    def __call__(self, block: Ids, random: np.random.Generator) -> tuple[Ids, Ids]:
        """Return input ids and labels, ``[token]`` each; every block has the same number of labels, at least one."""
        candidates = np.flatnonzero(np.isin(block, self.ordinary))
        count = min(len(candidates), max(1, round(self.share * len(block))))
        chosen = random.choice(candidates, count, replace=False)
        draws = random.random(count)
        input_ids, labels = block.copy(), np.full_like(block, IGNORED)
        labels[chosen] = block[chosen]
        input_ids[chosen[draws < HIDDEN]] = self.mask
        replaced = chosen[(draws >= HIDDEN) & (draws < HIDDEN + REPLACED)]
        input_ids[replaced] = random.choice(self.ordinary, len(replaced))
        return input_ids, labels


class BlockDataset:
    """Dataset of the blocks of all epochs, one epoch after another, each shuffled anew."""

    def __init__(self, blocks: NDArray[np.int32], epochs: int, seed: int, masking: Masking | None) -> None:
        self.blocks, self.epochs, self.seed, self.masking = blocks, epochs, seed, masking
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return self.epochs * len(self.blocks)

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        """Return input ids and labels of the ``index``-th block of the training; without masking, each next token."""
        epoch, position = divmod(index, len(self.blocks))
        block = self.blocks[self._order(epoch)[position]].astype(np.int64)
        if self.masking:
            return self.masking(block, np.random.default_rng([self.seed, 1, index]))
        return block, np.append(block[1:], IGNORED)

    def _draw_order(self, epoch: int) -> Ids:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.blocks))


def draw_held_out(lengths: Ids, share: float, seed: int) -> NDArray[np.bool_]:
    """Draw the documents to hold out: as many as stay within ``share`` of all tokens, at least one.

    Args:
        lengths: ``[document]``, in tokens.

    Returns:
        ``[document]``, True if held out; all False if ``share`` is 0.
    """
    held_out = np.zeros(len(lengths), bool)
    if share:
        order = np.random.default_rng(seed).permutation(len(lengths))
        count = np.searchsorted(np.cumsum(lengths[order]), share * lengths.sum(), side="right")
        held_out[order[: max(1, count)]] = True
    return held_out


def cut_blocks(
    documents: Iterable[Sequence[int] | NDArray[np.int32]], frame: Frame, block_tokens: int
) -> Iterator[NDArray[np.int32]]:
    """Join documents in order and cut them to blocks; a remainder that fills no block is dropped.

    Yields:
        ``[block, token]``, some blocks at a time: no more documents are held than these need.
    """
    between = np.array(frame.between, np.int32)
    room = block_tokens - len(frame.before) - len(frame.after)
    pieces, tokens = list[NDArray[np.int32]](), 0
    for document in documents:
        pieces += [np.asarray(document, np.int32), between]
        tokens += len(document) + len(between)
        if tokens >= CUT_TOKENS:
            blocks, rest = _cut(np.concatenate(pieces), frame, room)
            yield blocks
            pieces, tokens = [rest], len(rest)
    yield _cut(np.concatenate(pieces) if pieces else np.zeros(0, np.int32), frame, room)[0]


def _cut(stream: NDArray[np.int32], frame: Frame, room: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the whole blocks of a stream of tokens, ``[block, token]``, and the tokens after them."""
    count = len(stream) // room
    before, after = (np.tile(np.array(ids, np.int32), (count, 1)) for ids in (frame.before, frame.after))
    blocks = np.concatenate([before, stream[: count * room].reshape(count, room), after], axis=1)
    return blocks, stream[count * room :].copy()
