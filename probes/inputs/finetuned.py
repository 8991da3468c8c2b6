"""Inputs of fine-tuned blocks: latents that trainable blocks of the backbone compute when a probe reads them.

Probes read them like cached latents. The blocks and the frozen states below them are passed in; nothing here loads a
language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.ragged import Counts, concatenate_ranges, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column
from permafrost.probes.inputs.latents import ProbeInputs, padded, read_ragged
from permafrost.probes.inputs.providers import FrozenStates, PlanLatents
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates

SAMPLED_TEXTS = 500
"""Approximate number of texts from which centre and scale are measured."""


@dataclass(frozen=True, eq=False)
class CachedStates:
    """Frozen states from the latent store: the layer at the cut, and the frozen layers that the probe also reads."""

    reader: TokenReader
    offsets: Counts
    spans: NDArray[np.int32]
    starts: Counts

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int8] | None]:
        """Return token states as :meth:`FrozenStates.rows`; no segments, as only embeddings use them."""
        return self.reader.read(windows).states, None


def cached_states(stored: PlanLatents, texts: Sequence[Text]) -> CachedStates:
    """Return the cached states of texts, in the layers of a plan that :meth:`FinetuneSpec.cached_plan` returns."""
    windows, starts = stored.store.expand_windows(texts)
    reader = stored.store.token_reader(windows, stored.columns[TOKENS])
    index = stored.store.read_tokens(windows, [])
    return CachedStates(reader, index.offsets, index.spans, starts)


@dataclass(frozen=True, eq=False, kw_only=True)
class FinetunedInputs(ProbeInputs):
    """Latents that trainable blocks compute from the frozen states below them, with the blocks' present weights."""

    blocks: nn.Module | None = None
    below: FrozenStates | None = None
    view: str = TOKENS

    @property
    def module(self) -> nn.Module:
        """The trainable blocks."""
        assert self.blocks is not None
        return self.blocks

    @property
    def longest(self) -> int:
        """Largest number of tokens of a window: blocks run on tokens, also for pooled views."""
        assert self.below is not None
        return int(np.diff(self.below.offsets).max(initial=1))

    def states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """Return token states as :meth:`ProbeInputs.states`; a window that occurs twice is run once."""
        assert self.offsets is not None
        distinct, inverse = np.unique(windows, return_inverse=True)
        if len(distinct) == len(windows):
            return self._run(windows, layers)
        lengths = np.diff(self.offsets)
        index = concatenate_ranges(offsets_from_lengths(lengths[distinct])[:-1][inverse.reshape(-1)], lengths[windows])
        return self._run(distinct, layers)[:, torch.from_numpy(index)]

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """Return latents of rows as :meth:`ProbeInputs.text_states`; a text that occurs in several rows is run once."""
        if len(texts) > 1:
            raise ValueError("members that train blocks take rows in one order.")
        if self.view == TOKENS:
            return self._token_states(reads, texts[0].T)
        distinct, inverse = np.unique(texts[0], return_inverse=True)
        layers = range(len(self.columns)) if reads.all_layers else reads.sources.tolist()
        latents = self._run(distinct, layers)
        index = torch.from_numpy(inverse.reshape(texts[0].shape))
        return [latents[:, column] for column in index.T]

    def _token_states(self, reads: SharedReads, columns: NDArray[np.int64]) -> list[TextStates]:
        """Return the token states of texts ``[text of the row, row]``, all of them run together."""
        ragged = read_ragged(self, reads, self.windows[columns.reshape(-1)])
        lengths = np.array(ragged.lengths).reshape(columns.shape)
        values = torch.split(ragged.values, lengths.sum(1).tolist(), 1)
        pairs = zip(values, lengths.tolist(), strict=True)
        return [padded(RaggedStates(states, tuple(tokens))) for states, tokens in pairs]

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """Return pooled latents as :meth:`ProbeInputs.pooled`, without a gradient."""
        with torch.no_grad():
            return super().pooled(layer, texts) if self.view == TOKENS else self._run(texts, [layer])[0]

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation as :meth:`ProbeInputs.moments`, of a sample of the texts."""
        with torch.no_grad():
            return super().moments(texts[:: max(1, len(texts) // SAMPLED_TEXTS)], center, scale, by_token)

    def _run(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        assert self.below is not None
        values, segments = self.below.rows(windows)
        lengths = np.diff(self.below.offsets)[windows].tolist()
        token_type_ids = None if segments is None else torch.from_numpy(segments)
        backbone_layers = [self.columns[layer].layer for layer in layers]
        latents: Tensor = self.module(torch.from_numpy(values), lengths, self.view, token_type_ids, backbone_layers)
        return latents


def finetuned_inputs(top_blocks: nn.Module, below: FrozenStates, view: str, layers: Sequence[int]) -> FinetunedInputs:
    """Return the inputs of one view of some layers of trainable blocks.

    Raises:
        SpecError: a pooled view of texts that are split into windows.
    """
    width = int(top_blocks.width)  # type: ignore[arg-type]
    tokens = view == TOKENS
    if not tokens and (np.diff(below.starts) != 1).any():
        raise SpecError('a view of whole texts cannot be made of windows; set plan.truncation = "cut", or read tokens.')
    return FinetunedInputs(
        values=torch.empty(len(layers), 0, width),
        columns=tuple(Column("", view, layer) for layer in layers),
        widths=(width,) * len(layers),
        offsets=below.offsets if tokens else None,
        spans=below.spans if tokens else None,
        starts=below.starts if tokens else None,
        blocks=top_blocks,
        below=below,
        view=view,
    )
