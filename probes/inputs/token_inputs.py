"""Token inputs: states of every token, read in batches; and reading inputs of either kind from latent stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.device.transfer import to_device, to_numpy
from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import TokenIndex, TokenLatents, offsets_from_lengths, pad_index
from permafrost.data.scratch.latent_file import StoredLayers
from permafrost.data.spec import SpecError
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import Column, view_name
from permafrost.probes.inputs.disk_tokens import DiskTokens
from permafrost.probes.inputs.latents import ProbeInputs, pooled_inputs, single_order
from permafrost.probes.inputs.memory import MemoryLimit
from permafrost.probes.inputs.resident import resident_states
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates, TokenStates

POOLED_AT_ONCE = 512
"""Number of windows that are averaged at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenInputs(ProbeInputs):
    """States of every token, read from a store or from memory or computed by blocks, in batches of windows."""

    tokens: TokenIndex = field()

    read: Callable[[NDArray[np.int64], Sequence[int]], Tensor]
    """(indices of windows, indices of layers) -> ``[layer, token, width]``, in the stored precision."""

    def to(self, device: torch.device) -> Self:
        """As :meth:`ProbeInputs.to`; stored states move if they take at most half of the free memory."""
        if device == self.device:
            return self
        stored = self.blocks is None and device.type != "cpu"
        there = resident_states(self.read, self.tokens, len(self.columns), device) if stored else None
        return replace(self, device=device, read=there or self.read, disk=None if there else self.disk)

    @torch.no_grad()
    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`."""
        windows, inverse = np.unique(self.tokens.starts[texts], return_inverse=True)
        means = np.empty((len(windows), self.width), np.float32)
        for start in range(0, len(windows), POOLED_AT_ONCE):
            chunk = windows[start : start + POOLED_AT_ONCE]
            lengths, states = self.tokens.lengths[chunk], to_numpy(self.read(chunk, [layer])[0].float())
            sums = np.add.reduceat(states, offsets_from_lengths(lengths)[:-1], axis=0)
            means[start : start + len(chunk)] = sums / lengths[:, None].astype(np.float32)
        return to_device(means[inverse.reshape(-1)], self.device)

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`; the windows of all texts are read together."""
        columns = single_order(texts).T
        ragged = self.ragged(reads, self.tokens.starts[columns.reshape(-1)])
        lengths = np.array(ragged.lengths).reshape(columns.shape)
        values = torch.split(ragged.values, lengths.sum(1).tolist(), 1)
        return [padded(states, counts) for states, counts in zip(values, lengths, strict=True)]

    def token_states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """As :meth:`ProbeInputs.token_states`."""
        return to_device(self.read(windows, layers), self.device).float()  # on the device: half the bytes to copy

    def ragged(self, reads: SharedReads, windows: NDArray[np.int64]) -> RaggedStates:
        """Return the token states of some windows, one window after another without padding."""
        layers = range(len(self.columns)) if reads.all_layers else reads.source_layers
        in_second = self.tokens.spans[self.tokens.tokens_of(windows), 0] >= 0
        lengths = tuple(self.tokens.lengths[windows].tolist())
        return RaggedStates(self.token_states(windows, layers), lengths, in_second)


def require_tokens(inputs: ProbeInputs) -> TokenInputs:
    """Return inputs that are token inputs; raise :class:`ValueError` for others."""
    if not isinstance(inputs, TokenInputs):
        raise ValueError("pooled latents have no tokens; read the view tokens.")
    return inputs


def padded(states: Tensor, lengths: NDArray[np.int64]) -> TokenStates:
    """Pad ``[layer, token, width]`` of texts of these lengths to the longest: ``[layer, text, token, width]``."""
    index, mask = pad_index(lengths)
    return TokenStates(states[:, to_device(index, states.device)], to_device(mask, states.device))


def read_inputs(
    stored: Mapping[str, PlanLatents],
    texts: Sequence[Text],
    columns: Sequence[Column],
    limit: MemoryLimit | None = None,
) -> ProbeInputs:
    """Return the latents of ``texts`` in ``columns``, from the store of each plan.

    Args:
        limit: how many bytes of latents may be in memory; None allows any number.

    Raises:
        SpecError: tokens together with pooled latents, or tokens of two plans, which may truncate a text differently.
    """
    if any(column.view == TOKENS for column in columns):
        if len({(column.plan, column.view) for column in columns}) > 1:
            raise SpecError(
                f"probe.inputs joins {view_name(columns)}: the view tokens cannot be combined with other views or with "
                "other plans."
            )
        layers = [column.layer for column in columns]
        reader, tokens, disk = open_tokens(stored[columns[0].plan].store, texts, layers, limit)
        return stored_tokens(reader.read, tokens, columns, reader.width, disk)
    parts = [
        StoredLayers(stored[plan].store, view, tuple(column.layer for column in group))
        for (plan, view), group in groupby(columns, lambda column: (column.plan, column.view))
    ]
    if limit and (on_disk := limit.on_disk(parts, texts, columns)):
        return on_disk
    return pooled_inputs([part.store.read(texts, part.view, part.layers) for part in parts], columns)


def open_tokens(
    store: LatentStore, texts: Sequence[Text], layers: Sequence[int], limit: MemoryLimit | None = None
) -> tuple[TokenReader, TokenIndex, DiskTokens | None]:
    """Open a reader of the token states of some layers, window by window, and return the token index of the texts.

    If the states do not fit the limit, there is a copy of them on disk, in the order of the texts, to be read instead.
    """
    windows, starts = store.expand_windows(texts)
    reader = store.token_reader(windows, layers)
    tokens = reader.read(range(len(windows)), []).index(starts)
    return reader, tokens, limit.tokens_on_disk(reader, tokens) if limit else None


def stored_tokens(
    read: Callable[[NDArray[np.int64], Sequence[int]], TokenLatents],
    tokens: TokenIndex,
    columns: Sequence[Column],
    width: int,
    disk: DiskTokens | None = None,
) -> TokenInputs:
    """Return token latents as probe inputs.

    Args:
        read: (indices of windows, indices of ``columns``) -> their tokens.
        disk: what is read instead.
    """

    def states(windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        return torch.from_numpy(disk.read(windows, layers) if disk else read(windows, layers).states)

    return TokenInputs(
        columns=tuple(columns),
        widths=(width,) * len(columns),
        tokens=tokens,
        disk=disk,
        read=states,
    )
