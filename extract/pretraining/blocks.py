"""Tokenised documents to blocks of text of one length, which need no padding; and what is to be guessed in them.

Everything drawn depends on the seed and on a block's place in the training alone: not on what shares its batch, nor on
where a training was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

IGNORED = -100
"""The label of a place where nothing is to be guessed."""

HIDDEN, REPLACED = 0.8, 0.1
"""Of the tokens to be guessed, how many are hidden and how many are another token; the rest stay."""


@dataclass(frozen=True)
class Frame:
    """The special tokens of a block, as the tokenizer puts them around a text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    """Between two documents in one block."""


@dataclass(frozen=True)
class Masking:
    """How tokens of a block are hidden."""

    mask: int
    """The id that hides a token."""

    ordinary: Ids
    """Ids that are neither special nor absent: what can be guessed, and what can stand in another's place."""

    share: float

    def __call__(self, block: Ids, random: np.random.Generator) -> tuple[Ids, Ids]:
        """Ids as the model sees them, and labels: ``[token]`` each. Every block has the same share, at least one."""
        places = np.flatnonzero(np.isin(block, self.ordinary))
        count = min(len(places), max(1, round(self.share * len(block))))
        chosen = random.choice(places, count, replace=False)
        fate = random.random(count)
        seen, labels = block.copy(), np.full_like(block, IGNORED)
        labels[chosen] = block[chosen]
        seen[chosen[fate < HIDDEN]] = self.mask
        others = chosen[(fate >= HIDDEN) & (fate < HIDDEN + REPLACED)]
        seen[others] = random.choice(self.ordinary, len(others))
        return seen, labels


def following(block: Ids) -> tuple[Ids, Ids]:
    """Ids as the model sees them, and of each the one that follows: ``[token]`` each."""
    return block, np.append(block[1:], IGNORED)


class BlockDataset:
    """The blocks of all epochs, one after another, each epoch in an order of its own."""

    def __init__(self, blocks: NDArray[np.int32], epochs: int, seed: int, masking: Masking | None) -> None:
        self.blocks, self.epochs, self.seed, self.masking = blocks, epochs, seed, masking
        self._order = lru_cache(maxsize=2)(self._drawn_order)

    def __len__(self) -> int:
        return self.epochs * len(self.blocks)

    def __getitem__(self, index: int) -> tuple[Ids, Ids]:
        """What the model sees and what it is to guess, of the ``index``-th block of the training."""
        epoch, place = divmod(index, len(self.blocks))
        block = self.blocks[self._order(epoch)[place]].astype(np.int64)
        return self.masking(block, np.random.default_rng([self.seed, 1, index])) if self.masking else following(block)

    def _drawn_order(self, epoch: int) -> Ids:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.blocks))


def held_out(lengths: Ids, share: float, seed: int) -> NDArray[np.bool_]:
    """Which documents are held out: as many, drawn by seed, as stay within ``share`` of all tokens, at least one."""
    out = np.zeros(len(lengths), bool)
    if share:
        order = np.random.default_rng(seed).permutation(len(lengths))
        within = np.searchsorted(np.cumsum(lengths[order]), share * lengths.sum(), side="right")
        out[order[: max(1, within)]] = True
    return out


def cut(documents: Sequence[Sequence[int]], frame: Frame, block_tokens: int) -> NDArray[np.int32]:
    """``[block, token]``: documents joined in their order and cut; what fills no block at the end is left out."""
    between = np.array(frame.between, np.int32)
    parts = [part for document in documents for part in (np.asarray(document, np.int32), between)]
    stream = np.concatenate(parts) if parts else between
    room = block_tokens - len(frame.before) - len(frame.after)
    rows = len(stream) // room
    around = [np.tile(np.array(part, np.int32), (rows, 1)) for part in (frame.before, frame.after)]
    return np.concatenate([around[0], stream[: rows * room].reshape(rows, room), around[1]], axis=1)
