"""Token states on disk: read batch by batch from a temporary file in the order of the corpus, if memory is too small.

They are the numbers that the store's reader returns, to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import TokenIndex, concatenate_ranges, offsets_from_lengths
from permafrost.data.scratch.latent_file import LatentFile
from permafrost.data.store.encoding import decode, vectors_in
from permafrost.data.store.token_reader import TokenReader
from permafrost.probes.inputs.read_ahead import ReadAhead

if TYPE_CHECKING:  # this loads torch, which a command that is refused does without
    from permafrost.probes.models.shared_reads import SharedReads

MOST_ANNOUNCED = 2 << 30
"""Largest announcement, in bytes: more might drive out of the system's cache what is needed first."""


@dataclass(frozen=True, eq=False)
class DiskTokens:
    """States of all tokens of some texts, one record a token; a window is one run of bytes."""

    latents: LatentFile
    tokens: TokenIndex
    _ahead: ReadAhead = field(init=False, default_factory=ReadAhead)

    @classmethod
    def write(cls, folder: Path, reader: TokenReader, tokens: TokenIndex) -> "DiskTokens":
        """Copy the states of a reader's texts, the windows of ``tokens``; raises as :meth:`LatentFile.write`."""
        return cls(LatentFile.write_tokens(folder, reader), tokens)

    def read(self, windows: NDArray[np.int64], layers: Sequence[int]) -> NDArray[Any]:
        """Return the states ``[layer, token, width]`` of windows, one after another; each is read once."""
        distinct, inverse = np.unique(windows, return_inverse=True)
        lengths = self.tokens.lengths
        records, offset = self.latents.read(self.tokens.tokens_of(distinct), layers)
        starts = offsets_from_lengths(lengths[distinct])[:-1][inverse.reshape(-1)]
        index = concatenate_ranges(starts, lengths[windows])
        in_order = len(index) == len(records) and bool((np.diff(index) == 1).all())
        states = []
        for layer in layers:
            at = self.latents.fields[layer]
            stored = vectors_in(records, at.start - offset, records.shape[:1], records.shape[1:], at.dtype, at.width)
            states.append(decode(stored if in_order else stored[index]))
        return np.stack(states)

    def prefetch(self, reads: "SharedReads", texts: NDArray[np.int64]) -> None:
        """As :meth:`will_need`, of the next batch: what is read of it is then a copy from the system's cache."""
        self.will_need(texts)

    def will_need(self, texts: NDArray[np.int64]) -> None:
        """Have the system read the windows of texts into its cache, in their order on disk, in a thread."""
        windows, _ = self.tokens.windows_of(np.unique(texts))
        starts, ends = self.tokens.offsets[windows], self.tokens.offsets[windows + 1]
        if len(windows) and int((ends - starts).sum()) * self.latents.file.record_bytes <= MOST_ANNOUNCED:
            self._ahead.start(lambda: self.latents.file.will_need(starts, ends))

    def end_prefetch(self) -> None:
        """End the thread."""
        self._ahead.close()
