"""Token batches: the token ids of many texts, back to back, and how they are built up text by text."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import TEXT_LAST
from permafrost.data.ragged import NO_SPAN, Counts, concatenate_ranges, offsets_from_lengths
from permafrost.extract.tokenization.text_windows import TextWindows


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Token ids of many texts, back to back."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    """``[text + 1]``: text ``i`` has the ids from ``offsets[i]`` to ``offsets[i + 1]``."""

    uncut: NDArray[np.int32]
    """``[text]``: tokens before truncation; of a window, those from its start to the end of the text."""

    pooled: NDArray[np.int32] | None = None
    """``[text, 2]``: the range of tokens that the views see, end excluded; None if they see all tokens."""

    characters: NDArray[np.int32] | None = None
    """``[token, 2]``: the characters of the text that each token covers, end excluded, (-1, -1) if it covers none; of
    two segments, characters of the second. None if not asked for."""

    own: NDArray[np.int64] | None = None
    """``[text, 2]``: the range of tokens from the first to the last that covers characters of the text, end excluded;
    None if no view asks for it."""

    own_views: tuple[str, ...] = (TEXT_LAST,)
    """Views that see the tokens in :attr:`own` alone."""

    token_type_ids: NDArray[np.int8] | None = None
    """``[token]``: the segment of each token, as the tokenizer numbers it; None if all texts have one segment."""

    windows: TextWindows | None = None
    """Windows that the texts run in; None if each runs as it is."""

    def split(self, texts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some texts run in several windows, ``[text]``."""
        if self.windows is None:
            return np.zeros(len(texts), bool)
        return self.windows.offsets[texts + 1] - self.windows.offsets[texts] > 1

    @property
    def run_lengths(self) -> NDArray[np.int64]:
        """``[text]``: tokens that run, those of each window counted."""
        if self.windows is None:
            return self.lengths
        _, sizes = self.windows.pieces(self.lengths)
        return np.add.reduceat(sizes.sum(1), self.windows.offsets[:-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[text]``: tokens after truncation."""
        return np.diff(self.offsets)

    @property
    def viewed_lengths(self) -> NDArray[np.int64]:
        """``[text]``: number of tokens that the views see."""
        return self.lengths if self.pooled is None else np.diff(self.pooled, axis=1)[:, 0].astype(np.int64)

    def viewed_index(self, texts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the indices into ``ids`` of the tokens that the views see of some texts, back to back."""
        first = 0 if self.pooled is None else self.pooled[texts, 0]
        return concatenate_ranges(self.offsets[texts] + first, self.viewed_lengths[texts])

    def viewed_range(self, text: int) -> slice:
        """Return the range of a text's tokens that the views see."""
        return slice(None) if self.pooled is None else slice(*map(int, self.pooled[text]))

    def ids_of(self, text: int) -> NDArray[np.int32]:
        """Return the token ids of one text."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]

    def token_type_ids_of(self, text: int) -> NDArray[np.int8]:
        """Return the token type ids of one text; zeros if all texts have one segment."""
        if self.token_type_ids is None:
            return np.zeros(self.lengths[text], np.int8)
        return self.token_type_ids[self.offsets[text] : self.offsets[text + 1]]

    def rows(self, texts: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int8] | None]:
        """Return the token ids of some texts, one text after another, and their token type ids."""
        chosen = self.select(texts)
        return chosen.ids, chosen.token_type_ids

    def select(self, texts: NDArray[np.int64]) -> "TokenBatch":
        """Return the tokens of some texts, in the order given."""
        index = concatenate_ranges(self.offsets[:-1][texts], self.lengths[texts])
        return TokenBatch(
            ids=self.ids[index],
            offsets=offsets_from_lengths(self.lengths[texts]),
            uncut=self.uncut[texts],
            pooled=None if self.pooled is None else self.pooled[texts],
            characters=None if self.characters is None else self.characters[index],
            own=None if self.own is None else self.own[texts],
            own_views=self.own_views,
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[index],
            windows=None if self.windows is None else self.windows.select(texts),
        )

    def in_windows(self, texts: NDArray[np.int64]) -> tuple["TokenBatch", Counts]:
        """Return the windows of some texts as texts of their own, and the index of the text of each.

        Views see in each window the tokens that count there.
        """
        chosen = self.select(texts)
        windows = chosen.windows
        assert windows is not None
        assert chosen.pooled is None
        starts, sizes = windows.pieces(chosen.lengths)
        first = chosen.offsets[:-1][windows.texts]
        index = concatenate_ranges((starts + first[:, None]).reshape(-1), sizes.reshape(-1))
        counted, shift = windows.counted(chosen.lengths), (starts[:, 1] - sizes[:, 0])[:, None]
        own = None if chosen.own is None else chosen.own[windows.texts].clip(counted[:, :1], counted[:, 1:]) - shift
        batch = TokenBatch(
            ids=chosen.ids[index],
            offsets=offsets_from_lengths(sizes.sum(1)),
            uncut=sizes.sum(1).astype(np.int32),
            pooled=(counted - shift).astype(np.int32),
            own=own,
            own_views=chosen.own_views,
            token_type_ids=None if chosen.token_type_ids is None else chosen.token_type_ids[index],
        )
        return batch, windows.texts


@dataclass(kw_only=True)
class TokenizedText:
    """Tokens of one text, special tokens and those of the template included; fields not asked for stay empty."""

    ids: list[int]
    uncut: int
    """Tokens before truncation."""

    pooled: tuple[int, int] = (0, 0)
    """Range of tokens that the views see, end excluded."""

    token_type_ids: Sequence[int] = ()
    offsets: Sequence[tuple[int, int]] = ()
    """``[token]``: the characters of the tokenizer's input that each token covers, end excluded."""

    outside: Sequence[int] = ()
    """``[token]``: true if the token covers nothing of the text, whatever its offsets."""

    extent: tuple[int, int] = (0, 0)
    """Range of characters that the text has in the tokenizer's input, end excluded."""

    windows: Sequence[tuple[int, int]] = ()
    """Stretches of the windows, as :attr:`TextWindows.ranges`; empty if the text runs as it is."""


class TokenBatchBuilder:
    """Token batch under construction, in flat arrays: an object per text would take more memory than its tokens."""

    def __init__(self, paired: bool, echo: bool, characters: bool) -> None:
        """Start an empty batch.

        Args:
            paired: whether some texts have two segments, so that token type ids are kept.
            echo: whether the template has the text twice, so that the pooled range is kept.
            characters: whether the characters that each token covers are kept.
        """
        self._paired, self._echo, self._characters = paired, echo, characters
        self._ids, self._lengths, self._uncut, self._pooled = array("i"), array("q"), array("i"), array("i")
        self._token_type_ids, self._offsets = array("b"), array("i")
        self._outside, self._extents = array("b"), array("q")
        self._window_counts, self._stretches = array("q"), array("q")

    def add(self, text: TokenizedText) -> None:
        """Append the tokens of the next text."""
        self._ids.extend(text.ids)
        self._lengths.append(len(text.ids))
        self._uncut.append(text.uncut)
        windows = text.windows or [(0, len(text.ids))]
        self._window_counts.append(len(windows))
        self._stretches.extend(chain.from_iterable(windows))
        if self._echo:
            self._pooled.extend(text.pooled)
        if self._paired:
            self._token_type_ids.extend(text.token_type_ids or [0] * len(text.ids))
        if self._characters:
            self._offsets.extend(chain.from_iterable(text.offsets))
            self._outside.extend(text.outside)
            self._extents.extend(text.extent)

    def build(self) -> TokenBatch:
        """Return the batch of all texts added."""
        lengths, counts = np.array(self._lengths, np.int64), np.array(self._window_counts, np.int64)
        ranges = np.array(self._stretches, np.int64).reshape(-1, 2)
        return TokenBatch(
            ids=np.array(self._ids, np.int32),
            offsets=offsets_from_lengths(lengths),
            uncut=np.array(self._uncut, np.int32),
            pooled=np.array(self._pooled, np.int32).reshape(-1, 2) if self._echo else None,
            characters=self._spans(lengths) if self._characters else None,
            token_type_ids=np.array(self._token_type_ids, np.int8) if self._paired else None,
            windows=TextWindows(offsets=offsets_from_lengths(counts), ranges=ranges) if (counts > 1).any() else None,
        )

    def _spans(self, lengths: Counts) -> NDArray[np.int32]:
        extents = np.repeat(np.array(self._extents).reshape(-1, 2), lengths, axis=0)
        low, high = extents[:, :1], extents[:, 1:]
        spans = np.clip(np.array(self._offsets).reshape(-1, 2), low, high) - low  # a token may reach over the border
        covers_nothing = (spans[:, 0] >= spans[:, 1]) | np.array(self._outside, bool)
        spans[covers_nothing] = NO_SPAN
        return np.asarray(spans, np.int32)
