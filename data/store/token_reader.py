"""Reading the token view: the shards of some texts and layers opened and checked once, then read batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import Counts, TokenLatents, empty, pieces
from permafrost.data.store.errors import ShardError
from permafrost.data.store.plan import TOKENS
from permafrost.data.store.shard import Shard

IDS, SPANS = -1, -2
"""In the place of a layer: the two datasets that all layers share."""


@dataclass(frozen=True, eq=False)
class ShardRows:
    """Where texts are held."""

    shards: Sequence[Shard]
    places: NDArray[np.int64]
    """``[text]``: which of ``shards`` holds each."""

    rows: NDArray[np.int64]
    """``[text]``: in which row of it."""


class TokenReader:
    """The tokens of some texts and layers. What is held in memory is what the operating system keeps of the files."""

    def __init__(self, first: Shard, index: ShardRows, homes: Sequence[ShardRows], layers: Sequence[int]) -> None:
        """Open and check every shard that holds something of it.

        Args:
            first: any shard with the view; the others have its width and dtype.
            index: where the texts are held, in whatever layer: ids and spans are read there.
            homes: for each of ``layers``, where the texts are held.

        Raises:
            ShardError: the bytes of a shard are not those that were written, or two disagree on a text.
        """
        self.layers = tuple(layers)
        columns: dict[int, tuple[ShardRows, list[tuple[int, int]]]] = {id(index): (index, [(IDS, 0), (SPANS, 0)])}
        for number, (home, layer) in enumerate(zip(homes, layers, strict=True)):
            columns.setdefault(id(home), (home, []))[1].append((number, layer))
        self._tables = [_Table(home, wanted) for home, wanted in columns.values()]
        self.lengths: Counts = self._tables[0].lengths
        """``[text]``: how many tokens each has in the view."""
        for table in self._tables[1:]:
            if (table.lengths != self.lengths).any():
                place = table.home.places[int(np.argmax(table.lengths != self.lengths))]
                raise ShardError(table.home.shards[place].path, "a text has more or fewer tokens than in another shard")
        self._like = np.empty((len(self.layers), 0, first.width(TOKENS)), first.dtype(TOKENS))

    @property
    def width(self) -> int:
        """Of each token's state."""
        return int(self._like.shape[-1])

    def rows(
        self, indices: NDArray[np.integer[Any]] | Sequence[int], layers: Sequence[int] | None = None
    ) -> TokenLatents:
        """Some of the texts, in the order given; one may be asked for twice.

        Args:
            indices: ``[text]``, into the texts that the reader was opened for.
            layers: places among the layers that the reader was opened for; None takes them all.
        """
        chosen = np.asarray(indices, np.int64)
        places_of_layers = range(len(self.layers)) if layers is None else layers
        found = empty(self._like[list(places_of_layers)], self.lengths[chosen])
        targets: dict[int, NDArray[Any]] = {IDS: found.ids, SPANS: found.spans}
        targets |= dict(zip(places_of_layers, found.states, strict=True))
        for table in self._tables:
            places = table.home.places[chosen]
            for place in np.unique(places).tolist():
                here = np.flatnonzero(places == place)
                moves = list(pieces(table.starts[chosen[here]], found.lengths[here], found.offsets[:-1][here]))
                for number, source in table.parts[place].items():
                    if number in targets:
                        target = targets[number]
                        for lie, go in moves:
                            target[go] = source[lie]
        return found


class _Table:
    """What is wanted of texts that are held by the same shards."""

    def __init__(self, home: ShardRows, wanted: Sequence[tuple[int, int]]) -> None:
        self.home = home
        self.starts = np.zeros(len(home.places), np.int64)
        self.lengths = np.zeros(len(home.places), np.int64)
        self.parts: dict[int, dict[int, NDArray[Any]]] = {}
        for place in np.unique(home.places).tolist():
            shard, here = home.shards[place], np.flatnonzero(home.places == place)
            rows = home.rows[here]
            self.starts[here] = shard.offsets[rows]
            self.lengths[here] = shard.offsets[rows + 1] - shard.offsets[rows]
            self.parts[place] = {number: _part(shard, number, layer) for number, layer in wanted}


def _part(shard: Shard, number: int, layer: int) -> NDArray[Any]:
    return shard.ids if number == IDS else shard.spans if number == SPANS else shard.layer(TOKENS, layer)
