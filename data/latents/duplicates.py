"""Duplicates: latents that several shards of a store hold, as two processes leave them that extract at once."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import TokenLatents, concatenate_ranges, offsets_from_lengths
from permafrost.data.store.block import Block, write_shard
from permafrost.data.store.errors import OtherVersionError
from permafrost.data.store.shard import Shard
from permafrost.data.store.shard_layout import SUFFIX
from permafrost.data.store.store import LatentStore

Rows = NDArray[np.int64]

Column = tuple[str, int]
"""View and layer."""


def columns_of(shard: Shard) -> list[Column]:
    """Return every view and layer that a shard holds."""
    return [(view, layer) for view, layers in shard.columns.items() for layer in layers]


def remove_duplicates(folders: Iterable[Path]) -> int:
    """Leave one copy of each latent; return the number of texts of which a shard held a further one.

    A shard with further copies is written anew without them before it is removed, so that nothing is lost if this is
    stopped. All shards must be intact. A text whose columns lie in several shards stays in each.

    Raises:
        MachineError: the disk is full.
    """
    removed = 0
    for folder in folders:
        if next(folder.glob(f"*{SUFFIX}"), None):
            with suppress(OtherVersionError):
                while found := _remove(_rows_to_keep(LatentStore.open(folder))):  # new names are another order
                    removed += found
    return removed


def _remove(found: Iterable[tuple[Shard, Rows]]) -> int:
    """Write the rows of shards that are to be kept to new ones, and remove these; return the number of other rows."""
    written, removed = set[Path](), 0
    for shard, kept in found:
        if shard.path in written:  # a shard before it without its further copies has the same bytes
            continue
        if len(kept):
            written.add(write_shard(shard.path.parent, shard.identity, shard.provenance, _rows_of(shard, kept)))
        removed += shard.texts - len(kept)
        shard.path.unlink()
    return removed


def _rows_to_keep(store: LatentStore) -> Iterator[tuple[Shard, Rows]]:
    """Yield the shards with rows that shards before them hold in all their columns, and their other rows."""
    shards = store.shards
    known = np.unique(np.concatenate([shard.keys for shard in shards]))
    seen: dict[Column, NDArray[np.bool_]] = {}
    for shard in shards:
        texts = np.searchsorted(known, shard.keys)
        held = [seen.setdefault(column, np.zeros(len(known), bool)) for column in columns_of(shard)]
        repeated = np.logical_and.reduce([of_column[texts] for of_column in held])
        for of_column in held:
            of_column[texts] = True
        if repeated.any():
            yield shard, np.flatnonzero(~repeated)


def _rows_of(shard: Shard, rows: Rows) -> Block:
    """Return some texts of a shard, as it stores them."""
    tokens, columns = None, dict(shard.columns)
    if layers := columns.get(TOKENS):
        lengths = np.diff(shard.offsets)[rows]
        chosen = concatenate_ranges(shard.offsets[rows], lengths)
        states = np.stack([shard.layer(TOKENS, layer)[chosen] for layer in layers])
        tokens = TokenLatents(states, offsets_from_lengths(lengths), shard.ids[chosen], shard.spans[chosen])
    latents = {
        view: np.stack([shard.layer(view, layer)[rows] for layer in layers])
        for view, layers in columns.items()
        if view != TOKENS
    }
    return Block(keys=shard.keys[rows], lengths=shard.lengths[rows], columns=columns, latents=latents, tokens=tokens)
