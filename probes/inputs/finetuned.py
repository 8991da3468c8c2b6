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

from permafrost.data.ragged import TokenIndex, concatenate_ranges, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column
from permafrost.probes.inputs.latents import ProbeInputs, single_order, token_index
from permafrost.probes.inputs.providers import FrozenStates, PlanLatents
from permafrost.probes.inputs.token_inputs import mean_of_tokens, open_tokens, padded_texts
from permafrost.probes.models.shared_reads import SharedReads, TextStates


@dataclass(frozen=True, eq=False)
class CachedStates:
    """Frozen states from the latent store: the layer at the cut, and the frozen layers that the probe also reads."""

    reader: TokenReader
    tokens: TokenIndex

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int8] | None]:
        """Return token states as :meth:`FrozenStates.rows`; no segments, as only embeddings use them."""
        return self.reader.read(windows).states, None


def cached_states(stored: PlanLatents, texts: Sequence[Text]) -> CachedStates:
    """Return the cached states of texts, in the layers of a plan that :meth:`FinetuneSpec.cached_plan` returns."""
    return CachedStates(*open_tokens(stored.store, texts, stored.columns[TOKENS]))


@dataclass(frozen=True, eq=False, kw_only=True)
class FinetunedInputs(ProbeInputs):
    """Latents of one view that trainable blocks compute from the frozen states below them, with their current weights.

    Texts and windows that are read twice at once are run once.
    """

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    tokens: TokenIndex | None
    blocks: nn.Module
    below: FrozenStates

    @property
    def longest(self) -> int:
        """Largest number of tokens of a window: blocks run on tokens, also for pooled views."""
        return self.below.tokens.longest

    @torch.no_grad()
    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`, without a gradient."""
        return self._run(texts, [layer])[0] if self.tokens is None else mean_of_tokens(self, layer, texts)

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`."""
        if self.tokens is not None:
            return padded_texts(self, reads, texts)
        rows = single_order(texts)
        distinct, inverse = np.unique(rows, return_inverse=True)
        layers = range(len(self.columns)) if reads.all_layers else reads.sources.tolist()
        latents = self._run(distinct, layers)
        return [latents[:, column] for column in torch.from_numpy(inverse.reshape(rows.shape)).T]

    def token_states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """As :meth:`ProbeInputs.token_states`."""
        lengths = token_index(self).lengths
        distinct, inverse = np.unique(windows, return_inverse=True)
        if len(distinct) == len(windows):
            return self._run(windows, layers)
        starts = offsets_from_lengths(lengths[distinct])[:-1]
        index = concatenate_ranges(starts[inverse.reshape(-1)], lengths[windows])
        return self._run(distinct, layers)[:, torch.from_numpy(index)]

    def _run(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        values, segments = self.below.rows(windows)
        lengths = self.below.tokens.lengths[windows].tolist()
        token_type_ids = None if segments is None else torch.from_numpy(segments)
        view, backbone_layers = self.columns[0].view, [self.columns[layer].layer for layer in layers]
        latents: Tensor = self.blocks(torch.from_numpy(values), lengths, view, token_type_ids, backbone_layers)
        return latents


def finetuned_inputs(top_blocks: nn.Module, below: FrozenStates, view: str, layers: Sequence[int]) -> FinetunedInputs:
    """Return the inputs of one view of some layers of trainable blocks.

    Raises:
        SpecError: a pooled view of texts that are split into windows.
    """
    if view != TOKENS and (np.diff(below.tokens.starts) != 1).any():
        raise SpecError('a view of whole texts cannot be made of windows; set plan.truncation = "cut", or read tokens.')
    return FinetunedInputs(
        columns=tuple(Column("", view, layer) for layer in layers),
        widths=(int(top_blocks.width),) * len(layers),  # type: ignore[arg-type]
        tokens=below.tokens if view == TOKENS else None,
        blocks=top_blocks,
        below=below,
    )
