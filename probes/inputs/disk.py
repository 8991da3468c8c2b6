"""Pooled latents on disk: read batch by batch from a temporary file where they do not fit into memory.

They are the numbers of :class:`permafrost.probes.inputs.latents.PooledInputs`, to the last bit.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.scratch.latent_file import LatentFile, StoredLayers
from permafrost.data.scratch.record_file import Bytes
from permafrost.data.store.encoding import decode, vectors_in
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk_tokens import DiskTokens
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.inputs.read_ahead import ReadAhead
from permafrost.probes.models.shared_reads import SharedReads, TextStates

READ_BYTES = 8 << 20
"""Bytes of records that are read at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DiskInputs(ProbeInputs):
    """One vector for each text and layer, on disk in the stored precision; read in float32."""

    latents: LatentFile
    _ahead: ReadAhead = field(init=False, default_factory=ReadAhead)
    _spare: dict[Hashable, list[list[Tensor]]] = field(init=False, default_factory=dict)
    """Tensors that are read into again: new ones for every batch would leave gaps in the memory of the process."""

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`."""
        return self._read_layers([layer], texts)[0]

    def pooled_layers(self, texts: NDArray[np.int64]) -> Sequence[Tensor]:
        """As :meth:`ProbeInputs.pooled_layers`; each record is read once."""
        return list(self._read_layers(range(len(self.columns)), texts))

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`, in any number of orders of rows."""
        states = self._ahead.take(_key(reads, texts))
        if states is None:
            return list(
                self._fill(self._empty(len(reads.sources), texts), reads.sources.numpy(), reads.row_orders, texts)
            )
        copies: list[TextStates] = [values.clone() for values in states]
        self._spare.setdefault((id(reads), texts.shape), []).append(states)
        return copies

    def prefetch(self, reads: SharedReads, texts: NDArray[np.int64]) -> None:
        """Start to read what :meth:`text_states` will be asked for, in a thread."""
        spare = self._spare.get((id(reads), texts.shape))
        states = spare.pop() if spare else self._empty(len(reads.sources), texts)
        self._ahead.start(
            partial(self._fill, states, reads.sources.numpy(), reads.row_orders, texts), _key(reads, texts)
        )

    def will_need(self, texts: NDArray[np.int64]) -> None:
        """Have the system read texts into its cache, whatever their order and shape, in their order on disk."""
        if texts.size:
            needed = np.sort(texts, axis=None)
            self._ahead.start(lambda: self.latents.file.will_need(needed, needed + 1))

    def end_prefetch(self) -> None:
        """Drop what was read ahead and not asked for, and end the thread."""
        self._ahead.close()
        self._spare.clear()

    def _read_layers(self, layers: Sequence[int], texts: NDArray[np.int64]) -> Tensor:
        """Return ``[layer, text, width]``."""
        rows = texts[None, :, None]
        (states,) = self._fill(self._empty(len(layers), rows), np.array(layers), np.zeros(len(layers), np.int64), rows)
        return states

    def _empty(self, distinct: int, texts: NDArray[np.int64]) -> list[Tensor]:
        make = torch.empty if set(self.widths) == {self.width} else torch.zeros
        return [make(distinct, texts.shape[1], self.width) for _ in range(texts.shape[2])]

    def _fill(
        self,
        states: list[Tensor],
        sources: NDArray[np.int64],
        row_orders: NDArray[np.int64],
        texts: NDArray[np.int64],
    ) -> list[Tensor]:
        """Read the latents of each text of a row into ``[distinct, row, width]``.

        Args:
            sources, row_orders: ``[distinct]``: layer and order of rows.
            texts: ``[order, row, text of the row]``.
        """
        orders, rows, sides = texts.shape
        size = max(1, READ_BYTES // (self.latents.file.record_bytes * orders * sides))
        for start in range(0, rows, size):
            distinct, inverse = np.unique(texts[:, start : start + size], return_inverse=True)
            positions = torch.from_numpy(inverse.reshape(orders, -1, sides))
            records, offset = self.latents.read(distinct, sources.tolist())
            for first, last in self._groups(sources, row_orders):
                layers = self._layers(records, offset, sources[first:last])
                for side, target in enumerate(states):
                    part = target[first:last, start : start + size, : layers.shape[2]]
                    part.copy_(layers[positions[row_orders[first], :, side]].transpose(0, 1))
        return states

    def _groups(self, sources: NDArray[np.int64], row_orders: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Return bounds of distinct latents that are adjacent in a record, alike, and of one order of rows."""
        fields = [self.latents.fields[source] for source in sources]
        alike = [
            one.dtype == other.dtype and one.width == other.width and next_source == source + 1 and order == next_order
            for (one, other), (source, next_source), (order, next_order) in zip(
                pairwise(fields), pairwise(sources.tolist()), pairwise(row_orders.tolist()), strict=True
            )
        ]
        breaks = [index for index, same in enumerate(alike, 1) if not same]
        return list(pairwise([0, *breaks, len(sources)]))

    def _layers(self, records: Bytes, offset: int, sources: NDArray[np.int64]) -> Tensor:
        """Return adjacent layers of some records, ``[text, layer, width]``; in the stored dtype if torch has it."""
        first, last = self.latents.fields[sources[0]], self.latents.fields[sources[-1]]
        step = (last.start - first.start) // max(1, len(sources) - 1) or last.stop - last.start
        shape, strides = (len(records), len(sources)), (records.shape[1], step)
        stored = vectors_in(records, first.start - offset, shape, strides, first.dtype, first.width)
        if first.dtype == "bfloat16":  # torch has it
            return torch.from_numpy(stored).view(torch.bfloat16)
        return torch.from_numpy(decode(stored))


@dataclass(frozen=True, eq=False)
class ReadingAhead:
    """Reading of batches of rows before they are needed."""

    inputs: DiskInputs | DiskTokens
    reads: SharedReads
    texts_of: Callable[[NDArray[np.int64]], Sequence[NDArray[np.int64]]]
    """Rows of a batch, ``[order, row]`` -> the texts of each read, as :meth:`DiskInputs.text_states` takes them."""

    def batch(self, rows: NDArray[np.int64]) -> None:
        """Start to read a batch."""
        for texts in self.texts_of(rows):
            self.inputs.prefetch(self.reads, texts)

    def later(self, rows: NDArray[np.int64]) -> None:
        """Announce rows of later batches, indices of any shape; negative ones stand for none."""
        texts = self.texts_of(rows[rows >= 0][None])
        self.inputs.will_need(np.concatenate([part.reshape(-1) for part in texts]))

    def close(self) -> None:
        """Drop what was read and not used."""
        self.inputs.end_prefetch()


def reading_ahead(
    inputs: ProbeInputs, reads: SharedReads, texts_of: Callable[[NDArray[np.int64]], Sequence[NDArray[np.int64]]]
) -> ReadingAhead | None:
    """Return how batches of inputs are read ahead; None if they are not on disk."""
    on_disk = inputs if isinstance(inputs, DiskInputs) else inputs.disk
    return ReadingAhead(on_disk, reads, texts_of) if on_disk else None


def _key(reads: SharedReads, texts: NDArray[np.int64]) -> Hashable:
    return id(reads), texts.shape, texts.tobytes()


def disk_inputs(
    folder: Path, parts: Sequence[StoredLayers], texts: Sequence[Text], columns: Sequence[Column]
) -> DiskInputs:
    """Copy the latents of texts into a temporary file in ``folder``.

    Raises as :meth:`LatentFile.write`.
    """
    latents = LatentFile.write(folder, parts, texts)
    widths = tuple(field.width for field in latents.fields)
    return DiskInputs(columns=tuple(columns), widths=widths, latents=latents)
