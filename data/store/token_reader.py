"""Reading the view ``tokens`` in batches: shards are opened and checked once, then read through memory maps."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import Counts, TokenLatents, copy_slices, offsets_from_lengths
from permafrost.data.store.encoding import decode, empty_vectors
from permafrost.data.store.errors import ShardError
from permafrost.data.store.index.locations import TextLocations, group_by
from permafrost.data.store.shard import Shard

IDS, SPANS = -1, -2
"""Output indices of the two datasets that all layers share; other output indices are positions of layers."""


class TokenReader:
    """Reader of the tokens of given texts and layers.

    Hidden states are memory-mapped: the operating system decides how much of the files stays in memory.
    """

    def __init__(
        self,
        example: Shard,
        index: TextLocations[Shard],
        locations_of_layers: Sequence[TextLocations[Shard]],
        layers: Sequence[int],
    ) -> None:
        """Open and check the shards that hold the texts.

        Args:
            example: any shard with the view; all have the same width and dtype.
            index: locations of the texts in any layer, for their ids and spans.
            locations_of_layers: locations of the texts for each of ``layers``.

        Raises:
            ShardError: a shard has changed since it was written, or two shards disagree on the tokens of a text.
        """
        self.keeps_no_pages = False
        """Whether pages of the files leave the memory of this process after every read."""
        self.layers, self.width, self.stored_dtype = tuple(layers), example.width(TOKENS), example.identity.stored_dtype
        columns: dict[int, tuple[TextLocations[Shard], list[tuple[int, int]]]] = {
            id(index): (index, [(IDS, 0), (SPANS, 0)])
        }
        for output, (locations, layer) in enumerate(zip(locations_of_layers, layers, strict=True)):
            columns.setdefault(id(locations), (locations, []))[1].append((output, layer))
        self._tables = [_TokenTable(locations, outputs) for locations, outputs in columns.values()]
        self.lengths: Counts = self._tables[0].lengths
        """``[text]``: number of tokens."""
        for table in self._tables[1:]:
            if (table.lengths != self.lengths).any():
                shard_index = table.locations.shard_indices[int(np.argmax(table.lengths != self.lengths))]
                path = table.locations.open(table.locations.names[shard_index]).path
                raise ShardError(path, "a text has more or fewer tokens than in another shard")

    def read(
        self, indices: NDArray[np.integer[Any]] | Sequence[int], layers: Sequence[int] | None = None
    ) -> TokenLatents:
        """Read the tokens of the given texts, in that order; an index may occur twice.

        Args:
            indices: ``[text]``: indices into the texts that the reader was opened for.
            layers: positions among the layers that the reader was opened for; None reads all.
        """
        stored = self.read_stored(indices, layers)
        return replace(stored, states=decode(stored.states))

    def read_stored(
        self, indices: NDArray[np.integer[Any]] | Sequence[int], layers: Sequence[int] | None = None
    ) -> TokenLatents:
        """Read as :meth:`read`, states as they are stored."""
        texts = np.asarray(indices, np.int64)
        positions = range(len(self.layers)) if layers is None else layers
        offsets = offsets_from_lengths(self.lengths[texts])
        states = empty_vectors((len(positions), int(offsets[-1])), self.stored_dtype, self.width)
        result = TokenLatents(states, offsets, np.empty(offsets[-1], np.int32), np.empty((offsets[-1], 2), np.int32))
        targets: dict[int, NDArray[Any]] = {IDS: result.ids, SPANS: result.spans}
        targets |= dict(zip(positions, result.states, strict=True))
        for table in self._tables:
            table.copy_into(targets, texts, result)
            if self.keeps_no_pages:
                table.release()
        return result

    def in_stored_order(self, most: int) -> Iterator[NDArray[np.int64]]:
        """Yield the indices of all texts as their tokens follow each other on disk, about ``most`` tokens at once."""
        table = self._tables[-1]
        order = np.lexsort([table.starts, table.locations.shard_indices])
        chunk_numbers = np.cumsum(self.lengths[order]) // most
        yield from (np.sort(part) for part in np.split(order, np.flatnonzero(np.diff(chunk_numbers)) + 1) if len(part))


class _TokenTable:
    """The arrays of texts and layers that the same shards hold."""

    def __init__(self, locations: TextLocations[Shard], outputs: Sequence[tuple[int, int]]) -> None:
        """Open the arrays, each given by its output index and its layer."""
        self.locations = locations
        self.starts = np.zeros(len(locations.rows), np.int64)
        self.lengths = np.zeros(len(locations.rows), np.int64)
        self.arrays: dict[int, dict[int, NDArray[Any]]] = {}
        """Index of the shard -> output index -> array of that shard."""
        self._shards = list[Shard]()
        for shard, texts, rows in locations.by_shard():
            self.starts[texts] = shard.offsets[rows]
            self.lengths[texts] = shard.offsets[rows + 1] - shard.offsets[rows]
            self.arrays[int(locations.shard_indices[texts[0]])] = {
                output: _output_array(shard, output, layer) for output, layer in outputs
            }
            self._shards.append(shard)
            shard.release()  # all of it was read for the checksums

    def copy_into(self, targets: dict[int, NDArray[Any]], texts: NDArray[np.int64], result: TokenLatents) -> None:
        """Copy the tokens of ``texts`` into the target of each output index, at the offsets of ``result``."""
        shard_indices = self.locations.shard_indices[texts]
        for shard_index, selected in group_by(shard_indices):
            starts, offsets = self.starts[texts[selected]], result.offsets[:-1][selected]
            slices = list(copy_slices(starts, result.lengths[selected], offsets))
            for output, array in self.arrays[shard_index].items():
                if output in targets:
                    for source, target in slices:
                        targets[output][target] = array[source]

    def release(self) -> None:
        """Take the pages of the shards out of the memory of this process."""
        for shard in self._shards:
            shard.release()


def _output_array(shard: Shard, output: int, layer: int) -> NDArray[Any]:
    if output == IDS:
        return shard.ids
    return shard.spans if output == SPANS else shard.layer(TOKENS, layer)
