"""Distribution of the packs of a request among workers.

Packs are laid out over a whole block, and depend on the request alone. So does which worker runs which pack: the
workers together store the bits of one process, in any order, and whatever was stored before.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import CapturePlan, Columns
from permafrost.data.progress import Progress
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.distributed.claims import Claims, Missing
from permafrost.extract.tokenization.token_batch import TokenBatch

if TYPE_CHECKING:  # this loads torch
    from permafrost.extract.capture.runner import BackboneRunner

Packs = Sequence[Sequence[NDArray[np.int64]]]
"""Rows of each forward pass; each row holds the indices of its texts."""


class BlockWork(NamedTuple):
    """A block of texts that is tokenized and laid out, and what a store lacks of it."""

    runner: "BackboneRunner"
    asked: CapturePlan
    """The plan as it was written."""

    store: LatentStore
    texts: Sequence[Text]
    tokens: TokenBatch
    packs: Packs
    missing: Missing


class Finished(NamedTuple):
    """What ran elsewhere since the last time."""

    texts_run: int = 0
    truncated: int = 0


class Distribution:
    """How the packs of all requests of a command are shared among workers; by itself, this process runs all."""

    share = 1.0
    """Expected share of the packs that this process runs, or hands out."""

    def __init__(self) -> None:
        """Start before the first block."""
        self.missing = 0
        """Number of texts that were still missing at the end of each request, summed."""

        self.block = -1
        """Number of the block that runs, stored ones and those of earlier requests counted."""

        self._claims = Claims()
        self._wanted = list[tuple[Columns, Keys]]()
        """Columns that the blocks of a request lacked at their turn, and the keys of their texts."""

    def begin(self, store: LatentStore, windows: Sequence[Text], columns: Columns, missing: Missing) -> Missing:
        """Begin the next block; return what it lacks without what is left to an earlier block."""
        self.block += 1
        keys = text_keys(windows, store.identity.in_windows)
        missing = self._claims.claim(store.path, keys, columns, missing)
        self._wanted += [(lacking, keys[members]) for lacking, members in missing]
        return missing

    def own(self, packs: Packs, tokens: TokenBatch, missing: Missing) -> Missing:
        """Return the part of what a block lacks that this process runs."""
        return missing

    def hand_out(self, work: BlockWork) -> bool:
        """Hand the work of a block out to other processes; return False if this one is to do it."""
        return False

    def finish(self) -> Finished:
        """Wait for what was handed out."""
        return Finished()

    def settle(self, store: LatentStore, progress: Progress) -> None:
        """Count the texts of a request that the store, which was opened anew, still lacks, and tell how to go on."""
        left = sum(len(group) for columns, keys in self._wanted for _, group in store.missing_columns(keys, columns))
        self._wanted = []
        self.missing += left
        progress.note(self.what_is_left(left) if left else "all texts of the request are stored")

    def what_is_left(self, texts: int) -> str:
        """Return a sentence on texts that are not stored at the end of a request."""
        return (
            f"{texts:,} texts of the request are not stored yet: the other workers' parts. The same command without "
            "--shard checks that all are there, and runs what is missing"
        )
