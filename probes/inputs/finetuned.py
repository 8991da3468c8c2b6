"""Upper blocks as probes read them: latents that are made as they are asked for, by blocks that learn.

Probes meet them as they meet cached latents. The blocks themselves, and the ids of texts, are handed in: nothing here
loads a language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.ragged import Counts, bounds, ranges
from permafrost.data.spec import SpecError
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column
from permafrost.probes.inputs.latents import ProbeInputs, padded, ragged_of
from permafrost.probes.inputs.providers import FrozenStates, PlanLatents
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates

SAMPLED_TEXTS = 500
"""Texts by which the centre and the scale of latents are measured."""


@dataclass(frozen=True, eq=False)
class CachedStates:
    """The states of the layer at the cut, and of those read beside, as stage one cached them."""

    reader: TokenReader
    offsets: Counts
    spans: NDArray[np.int32]
    starts: Counts

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int8] | None]:
        """As :meth:`FrozenStates.rows`; blocks above the embeddings know no segments."""
        return self.reader.rows(windows).states, None


def cached_states(stored: PlanLatents, texts: Sequence[Text]) -> CachedStates:
    """The cached states of texts, in the layers that a plan of :meth:`UpperSpec.below` asks for."""
    windows, starts = stored.store.windowed(texts)
    reader = stored.store.token_reader(windows, stored.columns[TOKENS])
    index = stored.store.read_tokens(windows, [])
    return CachedStates(reader, index.offsets, index.spans, starts)


@dataclass(frozen=True, eq=False)
class FinetunedInputs(ProbeInputs):
    """Latents that blocks make of what lies below them, as they are now."""

    blocks: nn.Module | None = None
    below: FrozenStates | None = None
    view: str = TOKENS

    @property
    def module(self) -> nn.Module:
        """The blocks."""
        assert self.blocks is not None
        return self.blocks

    @property
    def longest(self) -> int:
        """As :attr:`ProbeInputs.longest`: what blocks run on is tokens, whatever they make of them."""
        assert self.below is not None
        return int(np.diff(self.below.offsets).max(initial=1))

    def states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """As :meth:`ProbeInputs.states`; a window that is asked for twice is run once."""
        assert self.offsets is not None
        once, place = np.unique(windows, return_inverse=True)
        if len(once) == len(windows):
            return self._made(windows, layers)
        lengths = np.diff(self.offsets)
        index = ranges(bounds(lengths[once])[:-1][place.reshape(-1)], lengths[windows])
        return self._made(once, layers)[:, torch.from_numpy(index)]

    def text_states(self, how: SharedReads, sides: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.sides`; a text that several rows of the batch have is run once."""
        if len(sides) > 1:
            raise ValueError("members that train blocks take rows in one order.")
        if self.view == TOKENS:
            return self._token_states(how, sides[0].T)
        texts, place = np.unique(sides[0], return_inverse=True)
        layers = range(len(self.columns)) if how.whole else how.sources.tolist()
        made = self._made(texts, layers)
        index = torch.from_numpy(place.reshape(sides[0].shape))
        return [made[:, column] for column in index.T]

    def _token_states(self, how: SharedReads, columns: NDArray[np.int64]) -> list[TextStates]:
        """``[side, row]``, indices of texts -> the tokens of each side, all of them run together."""
        ragged = ragged_of(self, how, self.windows[columns.reshape(-1)])
        lengths = np.array(ragged.lengths).reshape(columns.shape)
        parts = torch.split(ragged.values, lengths.sum(1).tolist(), 1)
        return [padded(RaggedStates(part, tuple(own))) for part, own in zip(parts, lengths.tolist(), strict=True)]

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`, with the blocks as they are now, and no gradient."""
        with torch.no_grad():
            return super().pooled(layer, texts) if self.view == TOKENS else self._made(texts, [layer])[0]

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`ProbeInputs.moments`, of some of the texts."""
        with torch.no_grad():
            return super().moments(texts[:: max(1, len(texts) // SAMPLED_TEXTS)], center, scale, by_token)

    def _made(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        assert self.below is not None
        values, kinds = self.below.rows(windows)
        lengths = np.diff(self.below.offsets)[windows].tolist()
        told = None if kinds is None else torch.from_numpy(kinds)
        wanted = [self.columns[layer].layer for layer in layers]
        made: Tensor = self.module(torch.from_numpy(values), lengths, self.view, told, wanted)
        return made


def finetuned_inputs(top_blocks: nn.Module, below: FrozenStates, view: str, layers: Sequence[int]) -> FinetunedInputs:
    """What a probe reads of blocks: one view of some of their layers."""
    columns = tuple(Column("", view, layer) for layer in layers)
    width = int(top_blocks.width)  # type: ignore[arg-type]
    nothing, widths = torch.empty(len(columns), 0, width), (width,) * len(columns)
    tokens = view == TOKENS
    if not tokens and (np.diff(below.starts) != 1).any():
        raise SpecError('a view of whole texts cannot be made of windows; set plan.truncation = "cut", or read tokens.')
    offsets, spans, starts = (below.offsets, below.spans, below.starts) if tokens else (None, None, None)
    return FinetunedInputs(nothing, columns, widths, offsets, spans, starts, None, top_blocks, below, view)
