"""Read-back check: the keys of latents, and their way to the disk and back, which no other check covers.

What a forward pass computed is kept by the index of the text in it, and must come back from the first shard by key, bit
by bit; the same texts are compared with the plain forward pass of transformers. The shard is on the disk by then, but
counts only once the check has passed, so an interrupted check leaves no shard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import TOKENS, Columns
from permafrost.data.ragged import Counts, TokenLatents, concatenate_ranges, offsets_from_lengths
from permafrost.data.store.encoding import decode
from permafrost.data.store.int8 import largest_errors
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text, quote_text
from permafrost.extract.capture.rounding import encode
from permafrost.extract.proofs.proof import SelfCheckError
from permafrost.extract.proofs.self_check import MOST_WINDOWS, TOLERATED_SHARE, SelfCheck
from permafrost.extract.proofs.structure import evenly_spaced

READ_BACK_TOLERANCE = {"float32": 0.02, "bfloat16": 0.3}
"""Largest difference allowed between stored latents and the reference: root mean square over dimensions, each
difference as a share of the largest value of its dimension."""

SMALLEST_FLOAT16 = 2.0**-24

WATCHED_TEXTS, READ_TEXTS = 8, 2
"""About how many texts of each forward pass are watched, and least number of those compared with the reference."""


@dataclass(frozen=True, eq=False)
class _Latents:
    """Latents of some texts."""

    texts: Counts
    """``[text]``: indices of the texts."""

    offsets: Counts
    """``[text + 1]``: text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``, of those that the views see."""

    by_view: Mapping[str, NDArray[Any]]
    """View -> ``[layer, text, width]``; of ``tokens``, ``[layer, token, width]``."""

    def select(self, places: Counts) -> "_Latents":
        """Return copies of the latents of the texts in some places."""
        lengths = np.diff(self.offsets)[places]
        tokens = concatenate_ranges(self.offsets[places], lengths) if TOKENS in self.by_view else places
        by_view = {view: values.take(tokens if view == TOKENS else places, 1) for view, values in self.by_view.items()}
        return _Latents(self.texts[places], offsets_from_lengths(lengths), by_view)

    def of_text(self, place: int, view: str) -> NDArray[Any]:
        """Return those of one text and view, ``[layer, width]``; of ``tokens``, ``[layer, token, width]``."""
        return self.by_view[view][:, slice(*self.offsets[place : place + 2]) if view == TOKENS else place]


class ReadBack:
    """Watcher of a run until its first shard is written, which then reads the shard before it counts."""

    def __init__(self, check: SelfCheck, columns: Columns) -> None:
        self._check, self._columns = check, columns
        self._members: list[Counts] = []
        self._watched: list[_Latents] = []
        self._done = False

    def watch(self, members: Counts, captured: Mapping[str, NDArray[Any]]) -> None:
        """Keep the latents of some texts of a forward pass until the shard is read back.

        Args:
            members: indices of the texts of the forward pass, in its order.
            captured: their latents, as :func:`permafrost.extract.capture.forward.capture` returns them.
        """
        if self._done:
            return
        self._members.append(members)
        known = (place for place, text in enumerate(members.tolist()) if text in self._check.known_states)
        spaced = range(0, len(members), -(-len(members) // WATCHED_TEXTS))
        chosen = np.array(sorted({*known, *spaced, len(members) - 1}))
        ends = offsets_from_lengths(self._check.tokens.viewed_lengths[members])
        self._watched.append(_Latents(members, ends, captured).select(chosen))

    def compare_returned(self, latents: Mapping[str, Any]) -> None:
        """Compare latents that are returned in the order of the texts, and not stored, with those watched.

        Args:
            latents: view -> ``[layer, text, width]``; of ``tokens``, a :class:`permafrost.data.ragged.TokenLatents`.

        Raises:
            SelfCheckError: a text has the latents of another.
        """
        watched = _join(self._watched)
        for view in watched.by_view:
            if view == TOKENS:
                tokens = latents[TOKENS].select(watched.texts)
                if not self._are_tokens_of(watched.texts, tokens):
                    raise SelfCheckError("texts are given the tokens of others")
                returned = tokens.states
            else:
                returned = latents[view][:, watched.texts]
            if (text := self._find_other(watched, view, returned)) is not None:
                raise SelfCheckError(f"text {quote_text(self._check.texts[text])} is given the latents of another")

    def __call__(self, path: Path) -> None:
        """Compare a shard's file with what was computed.

        Raises:
            SelfCheckError: the file does not hold what was to be stored.
        """
        # another process may have stored the same texts with other last bits
        store = LatentStore(path.parent, self._check.identity, only=path.name)
        stored_texts = self._find_texts(store)
        if TOKENS in self._columns:
            tokens = store.read_tokens(self._select_texts(stored_texts), [])
            if not self._are_tokens_of(stored_texts, tokens):
                raise SelfCheckError("texts of the first shard have the tokens of others")
        watched = _join(self._watched)
        watched = watched.select(np.flatnonzero(np.isin(watched.texts, stored_texts)))
        if not len(watched.texts):
            raise SelfCheckError("the first shard holds none of the texts whose latents were kept for comparison")
        comparable = np.flatnonzero(self._check.window_counts[watched.texts] <= MOST_WINDOWS)
        known = comparable[np.isin(watched.texts[comparable], list(self._check.known_states))]
        enough = len(known) >= READ_TEXTS or not len(comparable)
        chosen = known.tolist() if enough else evenly_spaced(comparable, READ_TEXTS)
        expected = [self._check.reference_latents(int(watched.texts[place]), self._columns) for place in chosen]
        for view, layers in self._columns.items():
            stored = self._compare_watched(store, watched, view, layers)
            if chosen:
                self._compare_reference(
                    view,
                    [stored.of_text(place, view) for place in chosen],
                    [latents[view] for latents in expected],
                    [watched.of_text(place, view) for place in chosen],
                )
        self._members, self._watched, self._done = [], [], True

    def _find_texts(self, store: LatentStore) -> Counts:
        """Return the indices of the texts of a shard, in its order; their keys and lengths must be known."""
        members = np.concatenate(self._members)
        in_windows = self._check.identity.in_windows
        keys, stored_keys = text_keys(self._select_texts(members), in_windows), store.first_shard.keys
        order = np.argsort(keys)
        index = order[np.minimum(np.searchsorted(keys, stored_keys, sorter=order), len(keys) - 1)]
        if not np.array_equal(keys[index], stored_keys):
            raise SelfCheckError("the first shard holds a key of no text of this run")
        stored_texts: Counts = members[index]
        if not np.array_equal(store.lengths(self._select_texts(stored_texts)), self._check.tokens.uncut[stored_texts]):
            raise SelfCheckError("texts of the first shard have the lengths of others")
        return stored_texts

    def _are_tokens_of(self, texts: Counts, latents: TokenLatents) -> bool:
        """Return whether token ids and character spans are those of some texts."""
        tokens, seen = self._check.tokens, self._check.tokens.viewed_index(texts)
        assert tokens.characters is not None
        pairs = (
            (latents.lengths, tokens.viewed_lengths[texts]),
            (latents.ids, tokens.ids[seen]),
            (latents.spans, tokens.characters[seen]),
        )
        return all(np.array_equal(actual, expected) for actual, expected in pairs)

    def _compare_watched(self, store: LatentStore, watched: _Latents, view: str, layers: tuple[int, ...]) -> _Latents:
        """Return the stored latents of a view of the watched texts, which are those computed, bit by bit."""
        texts = self._select_texts(watched.texts)
        values = store.read_tokens(texts, layers).states if view == TOKENS else store.read(texts, view, layers)
        if (text := self._find_other(watched, view, values)) is not None:
            raise SelfCheckError(
                f"the stored latents of text {quote_text(self._check.texts[text])} (view {view}) are not those "
                "that were computed for it"
            )
        return _Latents(watched.texts, watched.offsets, {view: values})

    def _find_other(self, watched: _Latents, view: str, values: NDArray[Any]) -> int | None:
        """Return the first of the watched texts that has other ``values`` than it would be stored with."""
        expected = decode(self._encode(watched.by_view[view]))
        if np.array_equal(values, expected):
            return None
        place = int(np.flatnonzero((values != expected).any((0, 2)))[0])
        return int(watched.texts[np.searchsorted(watched.offsets, place, "right") - 1 if view == TOKENS else place])

    def _compare_reference(
        self,
        view: str,
        stored: Sequence[NDArray[Any]],
        expected: Sequence[NDArray[Any]],
        watched: Sequence[NDArray[Any]],
    ) -> None:
        """Compare stored latents with the reference, within the tolerance of the run's precision.

        In int8, what each of ``watched`` may have lost to its scale is taken off the difference.
        """
        dtype = self._check.identity.compute_dtype
        limit = READ_BACK_TOLERANCE[dtype]
        join = np.concatenate if view == TOKENS else np.stack
        actual, wanted = join(stored, 1), join(expected, 1)
        largest = np.abs(wanted).max(1, keepdims=True)
        scale = np.maximum(largest, np.median(largest, -1, keepdims=True))
        if actual.dtype == np.float16:  # smaller values are rounded to zero
            scale = np.maximum(scale, SMALLEST_FLOAT16 / limit)
        difference = np.abs(actual - wanted)
        if self._check.identity.stored_dtype == "int8":
            lost = join([largest_errors(self._encode(values)) for values in watched], 1)
            difference = np.maximum(difference - lost, 0)
        difference = np.divide(difference, scale, where=scale > 0, out=np.zeros(wanted.shape))
        distance = np.quantile(np.sqrt((difference**2).mean(-1)), TOLERATED_SHARE[dtype])
        if not distance <= limit:
            raise SelfCheckError(
                f"what was stored of view {view} differs from the plain forward of the backbone by {distance:.2g} of "
                f"the largest value of each dimension; {limit:g} is allowed in {dtype}"
            )

    def _encode(self, values: NDArray[Any]) -> NDArray[Any]:
        return encode(values, self._check.identity.stored_dtype)

    def _select_texts(self, indices: Counts) -> list[Text]:
        return [self._check.texts[index] for index in indices]


def _join(several: Sequence[_Latents]) -> _Latents:
    """Return the latents of the texts of several forward passes."""
    lengths = np.concatenate([np.diff(one.offsets) for one in several])
    by_view = {view: np.concatenate([one.by_view[view] for one in several], 1) for view in several[0].by_view}
    return _Latents(np.concatenate([one.texts for one in several]), offsets_from_lengths(lengths), by_view)
