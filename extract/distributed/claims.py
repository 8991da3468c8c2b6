"""Claims: columns of texts that earlier blocks of a request have, and that run there, whoever runs them.

One process finds in the store what an earlier block has run. Several that run at once do not: each remembers which
texts the blocks had so far, so that a text that occurs in several of them belongs to the first for all workers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import Columns
from permafrost.data.store.index.segment import Keys

Missing = Sequence[tuple[Columns, Any]]
"""Groups of texts that lack the same columns: those columns, and the indices of the texts."""


class KeySet:
    """A set of keys of texts that takes 8 bytes of memory for each.

    Only the first half of a key is kept. Of 10^8 texts, one in 3,000 such sets takes a text for another; that text is
    left to a run of all texts.
    """

    def __init__(self) -> None:
        self._sorted: list[NDArray[np.uint64]] = []

    def contains(self, keys: Keys) -> NDArray[np.bool_]:
        """Return which keys are in the set, ``[text]``."""
        halves, found = _halves(keys), np.zeros(len(keys), bool)
        for known in self._sorted:
            index = np.minimum(np.searchsorted(known, halves), len(known) - 1)
            found |= known[index] == halves
        return found

    def add(self, keys: Keys) -> None:
        """Add keys; arrays of like sizes are merged, so that there are few."""
        new = np.unique(_halves(keys[~self.contains(keys)]))
        while self._sorted and len(self._sorted[-1]) <= len(new):
            new = np.sort(np.concatenate([self._sorted.pop(), new]))
        if len(new):
            self._sorted.append(new)


class Claims:
    """Columns of texts that earlier blocks have, of any number of stores."""

    def __init__(self) -> None:
        self._of_store: dict[Path, list[tuple[Columns, KeySet]]] = {}

    def claim(self, store: Path, keys: Keys, columns: Columns, missing: Missing) -> Missing:
        """Claim the columns of a block's texts, and return what the block lacks without what was claimed before.

        Args:
            missing: what the store lacks of the block: groups of columns, and the indices of the texts.
        """
        claimed = self._of_store.setdefault(store, [])
        for earlier, known in claimed:
            parts = list[tuple[Columns, NDArray[np.int64]]]()
            for lacking, members in missing:
                is_known = known.contains(keys[members])
                parts += [(lacking, members[~is_known]), (_without(lacking, earlier), members[is_known])]
            missing = _grouped(parts)
        same = next((known for earlier, known in claimed if earlier == columns), None)
        if same is None:
            same = KeySet()
            claimed.append((columns, same))
        same.add(keys)
        return missing


def _halves(keys: Keys) -> NDArray[np.uint64]:
    return np.frombuffer(keys.tobytes(), np.uint64)[::2]


def _grouped(parts: Iterable[tuple[Columns, NDArray[np.int64]]]) -> Missing:
    """Return one group for each set of columns, which texts that run together have in common."""
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[NDArray[np.int64]]] = {}
    for columns, members in parts:
        if columns and len(members):
            groups.setdefault(tuple(sorted(columns.items())), []).append(members)
    return [(dict(columns), np.sort(np.concatenate(members))) for columns, members in groups.items()]


def _without(columns: Columns, others: Columns) -> Columns:
    left = {view: tuple(layer for layer in columns[view] if layer not in others.get(view, ())) for view in columns}
    return {view: layers for view, layers in left.items() if layers}
