"""Inputs of fine-tuned blocks: latents that trainable blocks of the backbone compute when a probe reads them.

Probes read them like cached latents. The blocks and the frozen states below them are passed in; nothing here loads a
language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.device.transfer import CPU, to_device
from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import concatenate_ranges, covering_ranges, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.store import PlanLatents
from permafrost.data.text import Text, check_unsplit
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.latents import ProbeInputs, single_order
from permafrost.probes.inputs.memory import MemoryLimit
from permafrost.probes.inputs.providers import FrozenStates
from permafrost.probes.inputs.token_inputs import TokenInputs, open_tokens
from permafrost.probes.models.shared_reads import SharedReads, TextStates


def cached_states(stored: PlanLatents, texts: Sequence[Text], limit: MemoryLimit | None = None) -> FrozenStates:
    """Return the cached states of texts: the layer at the cut, and the frozen layers that the probe also reads.

    Args:
        stored: latents of a plan that :meth:`FinetuneSpec.cached_plan` returns.
        limit: how many bytes of them may be in memory; None allows any number.

    Raises:
        SpecError: a text of one segment is split into windows.
    """
    layers = stored.columns[TOKENS]
    reader, tokens, disk = open_tokens(stored.store, texts, layers, limit)
    check_unsplit(tokens.longest, stored.store.identity.max_tokens)

    def rows(windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], None]:  # only embeddings use segments
        return disk.read(windows, range(len(layers))) if disk else reader.read(windows).states, None

    return FrozenStates(tokens, rows, disk)


@dataclass(frozen=True, eq=False, kw_only=True)
class FinetunedInputs(ProbeInputs):
    """One vector for each text and layer that trainable blocks compute with their current weights."""

    blocks: nn.Module = field()

    below: FrozenStates
    """Inputs of the blocks; each text is one window."""

    own: bool = False
    """Whether the view sees the tokens of the text alone, and neither words of a template nor special tokens."""

    @property
    def longest(self) -> int:
        """Largest number of tokens of a text: blocks run on tokens, whatever they return."""
        return self.below.tokens.longest

    @torch.no_grad()
    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`, without a gradient."""
        return _run_blocks(self.blocks, self.below, self.columns, texts, [layer], self.own)[0]

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`; a text that occurs several times is run once."""
        rows = single_order(texts)
        distinct, inverse = np.unique(rows, return_inverse=True)
        layers = range(len(self.columns)) if reads.all_layers else reads.source_layers
        latents = _run_blocks(self.blocks, self.below, self.columns, distinct, layers, self.own)
        return [latents[:, column] for column in to_device(inverse.reshape(rows.shape), latents.device).T]


def finetuned_inputs(
    top_blocks: nn.Module, below: FrozenStates, view: str, layers: Sequence[int], own: bool = False
) -> FinetunedInputs | TokenInputs:
    """Return the inputs of one view of some layers of trainable blocks.

    Args:
        own: whether the view sees the tokens of the text alone.

    Raises:
        SpecError: a pooled view of texts that are split into windows, or of a text that has no tokens of its own.
    """
    columns, device = tuple(Column("", view, layer) for layer in layers), _device_of(top_blocks)
    widths = (int(top_blocks.width),) * len(layers)  # type: ignore[arg-type]
    if view == TOKENS:
        read = partial(_run_distinct, top_blocks, below, columns)
        return TokenInputs(
            columns=columns,
            widths=widths,
            tokens=below.tokens,
            blocks=top_blocks,
            read=read,
            disk=below.disk,
            device=device,
        )
    if (np.diff(below.tokens.starts) != 1).any():
        raise SpecError('a view of whole texts cannot be made of windows; set plan.truncation = "cut", or read tokens.')
    if own and not covering_ranges(below.tokens.spans, below.tokens.offsets)[:, 1].all():
        raise SpecError(f"the tokenizer makes no token of some text, so it has no view {view}; leave such texts out.")
    return FinetunedInputs(
        columns=columns, widths=widths, blocks=top_blocks, below=below, own=own, disk=below.disk, device=device
    )


def _device_of(blocks: nn.Module) -> torch.device:
    return next((parameter.device for parameter in blocks.parameters()), CPU)


def _run_distinct(
    blocks: nn.Module, below: FrozenStates, columns: Sequence[Column], windows: NDArray[np.int64], layers: Sequence[int]
) -> Tensor:
    """Return token states, ``[layer, token, width]``; a window that occurs several times is run once."""
    distinct, inverse = np.unique(windows, return_inverse=True)
    if len(distinct) == len(windows):
        return _run_blocks(blocks, below, columns, windows, layers)
    lengths = below.tokens.lengths
    starts = offsets_from_lengths(lengths[distinct])[:-1]
    index = concatenate_ranges(starts[inverse.reshape(-1)], lengths[windows])
    states = _run_blocks(blocks, below, columns, distinct, layers)
    return states[:, to_device(index, states.device)]


def _run_blocks(
    blocks: nn.Module,
    below: FrozenStates,
    columns: Sequence[Column],
    windows: NDArray[np.int64],
    layers: Sequence[int],
    own: bool = False,
) -> Tensor:
    """Return the view of the columns, ``[layer, window, width]`` or ``[layer, token, width]``."""
    values, segments = below.rows(windows)
    lengths = below.tokens.lengths[windows]
    spans = below.tokens.spans[below.tokens.tokens_of(windows)] if own else None
    seen = None if spans is None else covering_ranges(spans, offsets_from_lengths(lengths))
    device = _device_of(blocks)
    token_type_ids = None if segments is None else to_device(segments, device)
    backbone_layers = [columns[layer].layer for layer in layers]
    latents: Tensor = blocks(
        to_device(values, device), lengths.tolist(), columns[0].view, token_type_ids, backbone_layers, seen
    )
    return latents
