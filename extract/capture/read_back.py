"""Read-back: texts of the first shard are read by key, and are what was computed for them and what it should be.

The shard lies on the disk then, and counts only when this is done: whatever ends it leaves none that was not read.

Which key a latent lies under, and the way to the disk and back, are outside every other check. What one forward gave is
kept by its place in it, and must come back by key to the last bit; the same texts are compared with the plain forward.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.ragged import bounds
from permafrost.data.store.identity import Identity
from permafrost.data.store.key_index import text_keys
from permafrost.data.store.plan import TOKENS, Columns
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text, short
from permafrost.extract.capture.self_check import TOLERATED_SHARE, SelfCheck, SelfCheckError, evenly_spaced

READ_BACK_TOLERANCE = {"float32": 0.02, "bfloat16": 0.3}
"""Most that what is read back may differ from the plain forward: root mean squares over dimensions, each as a share of
its largest value."""

SMALLEST_FLOAT16 = 2.0**-24

WATCHED_TEXTS, READ_TEXTS = 8, 2
"""Of each forward, how many are watched; and of those, how many are compared with the plain forward at least."""


class ReadBack:
    """Watches a run until its first shard is written, and reads that before it counts."""

    def __init__(self, check: SelfCheck, texts: Sequence[Text], columns: Columns) -> None:
        self._check, self._texts, self._columns = check, texts, columns
        self._members: list[NDArray[np.int64]] = []
        self._watched: dict[int, dict[str, NDArray[Any]]] = {}
        self._done = False

    def watch(self, members: NDArray[np.int64], captured: Mapping[str, NDArray[Any]]) -> None:
        """Keep what one forward gave for some of its texts, by their places in it, until it is read back.

        Args:
            members: the texts of the forward, in its order.
            captured: their latents, as :func:`~extract.capture.capture` gives them.
        """
        if self._done:
            return
        self._members.append(members)
        ends = bounds(self._check.tokens.viewed[members])
        known = np.flatnonzero(np.isin(members, list(self._check.known_states))).tolist()
        for place in {*known, *evenly_spaced(np.arange(len(members)), WATCHED_TEXTS)}:
            own = {view: slice(ends[place], ends[place + 1]) if view == TOKENS else place for view in captured}
            latents = {view: np.array(values[:, own[view]]) for view, values in captured.items()}
            self._watched[int(members[place])] = latents

    def compare_found(self, found: Mapping[str, Any]) -> None:
        """Compare latents that are given out in the order of the texts, and not stored, with what was watched.

        Args:
            found: view -> ``[layer, text, width]``; of ``tokens``, a :class:`~data.ragged.TokenLatents`.

        Raises:
            SelfCheckError: they are those of other texts.
        """
        tokens = self._check.tokens
        for text, captured in self._watched.items():
            for view, expected in captured.items():
                own = found[view].take(np.array([text])) if view == TOKENS else None
                values = own.states if own else found[view][:, text]
                right = np.array_equal(values, expected.astype(values.dtype))
                if own and tokens.characters is not None:
                    seen = tokens.seen(np.array([text]))
                    right &= np.array_equal(own.ids, tokens.ids[seen])
                    right &= np.array_equal(own.spans, tokens.characters[seen])
                if not right:
                    raise SelfCheckError(f"text {short(self._texts[text])} is given the latents of another")

    def __call__(self, path: Path) -> None:
        """Compare the file of a shard with what was watched.

        Raises:
            SelfCheckError: it is not what was to be stored.
        """
        self._compare(path)
        self._members, self._watched, self._done = [], {}, True

    def _compare(self, path: Path) -> None:
        columns, tokens = self._columns, self._check.tokens
        store = _OneShard(path, self._check.identity)
        members = np.concatenate(self._members)
        keys, held = text_keys([self._texts[text] for text in members]), store.shards[0].keys
        order = np.argsort(keys)
        found = order[np.minimum(np.searchsorted(keys, held, sorter=order), len(keys) - 1)]
        if not np.array_equal(keys[found], held):
            raise SelfCheckError("the first shard holds a key of no text of this run")
        here = members[found]
        if not np.array_equal(store.lengths([self._texts[text] for text in here]), tokens.uncut[here]):
            raise SelfCheckError("texts of the first shard have the lengths of others")
        if TOKENS in columns:
            self._compare_tokens(store, here)
        watched = sorted(self._watched.keys() & set(here.tolist()))
        if not watched:
            raise SelfCheckError("the first shard holds none of the texts whose latents were kept for comparison")
        known = [text for text in watched if text in self._check.known_states]
        chosen = known if len(known) >= READ_TEXTS else evenly_spaced(np.array(watched), READ_TEXTS)
        alone = [self._check.reference_latents(text, columns) for text in chosen]
        for view, layers in columns.items():
            stored = dict(
                zip(watched, _read(store, [self._texts[text] for text in watched], view, layers), strict=True)
            )
            for text, values in stored.items():
                if not np.array_equal(values, self._watched[text][view].astype(values.dtype)):
                    raise SelfCheckError(
                        f"the stored latents of text {short(self._texts[text])} (view {view}) are not those that were "
                        "computed for it"
                    )
            self._compare_alone(view, [stored[text] for text in chosen], [latents[view] for latents in alone])

    def _compare_tokens(self, store: LatentStore, here: NDArray[np.int64]) -> None:
        """Ids and character spans of all texts of a shard are those that were made of them."""
        read, seen = store.read_tokens([self._texts[text] for text in here], []), self._check.tokens.seen(here)
        assert self._check.tokens.characters is not None
        if not (
            np.array_equal(read.lengths, self._check.tokens.viewed[here])
            and np.array_equal(read.ids, self._check.tokens.ids[seen])
            and np.array_equal(read.spans, self._check.tokens.characters[seen])
        ):
            raise SelfCheckError("texts of the first shard have the tokens of others")

    def _compare_alone(self, view: str, stored: Sequence[NDArray[Any]], alone: Sequence[NDArray[Any]]) -> None:
        """What is read back is near the plain forward of the real weights, as near as the run's precision allows."""
        dtype = self._check.identity.compute_dtype
        limit = READ_BACK_TOLERANCE[dtype]
        joined = np.concatenate if view == TOKENS else np.stack
        found, wanted = joined(stored, 1), joined(alone, 1)
        largest = np.abs(wanted).max(1, keepdims=True)
        scale = np.maximum(largest, np.median(largest, -1, keepdims=True))
        if found.dtype == np.float16:  # what is smaller is rounded to nothing
            scale = np.maximum(scale, SMALLEST_FLOAT16 / limit)
        difference = np.divide(found - wanted, scale, where=scale > 0, out=np.zeros(wanted.shape))
        distance = np.quantile(np.sqrt((difference**2).mean(-1)), TOLERATED_SHARE[dtype])
        if not distance <= limit:
            raise SelfCheckError(
                f"what was stored of view {view} differs from the plain forward of the backbone by {distance:.2g} of "
                f"the largest value of each dimension; {limit:g} is allowed in {dtype}"
            )


class _OneShard(LatentStore):
    """A store as if it held one shard alone; another process may have stored the same texts, with other last bits."""

    def __init__(self, path: Path, identity: Identity) -> None:
        super().__init__(path.parent, identity)
        self._only = Shard(path)

    @property
    def shards(self) -> list[Shard]:
        """The one shard."""
        return [self._only]


def _read(store: LatentStore, texts: Sequence[Text], view: str, layers: tuple[int, ...]) -> list[NDArray[Any]]:
    """For each text, ``[layer, width]``, or of tokens ``[layer, token, width]``."""
    if view != TOKENS:
        return list(store.read(texts, view, layers).swapaxes(0, 1))
    read = store.read_tokens(texts, layers)
    return np.split(read.states, read.offsets[1:-1], axis=1)
