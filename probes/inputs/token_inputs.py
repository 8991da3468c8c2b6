"""Token inputs: stored states of every token, read in batches; and reading inputs of either kind from latent stores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.ragged import TokenIndex, TokenLatents, offsets_from_lengths, pad_index
from permafrost.data.spec import SpecError
from permafrost.data.store.store import LatentStore
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column, view_name
from permafrost.probes.inputs.latents import ProbeInputs, pooled_inputs, single_order, token_index
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates, TokenStates

POOLED_AT_ONCE = 512
"""Number of windows that are averaged at once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenInputs(ProbeInputs):
    """Stored states of every token, read in batches of windows."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    tokens: TokenIndex
    blocks = None

    read: Callable[[NDArray[np.int64], Sequence[int]], TokenLatents]
    """(indices of windows, indices of layers) -> their tokens, from the store or from memory."""

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`."""
        return mean_of_tokens(self, layer, texts)

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`."""
        return padded_texts(self, reads, texts)

    def token_states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """As :meth:`ProbeInputs.token_states`."""
        return torch.from_numpy(self.read(windows, layers).states).float()


def mean_of_tokens(inputs: ProbeInputs, layer: int, texts: NDArray[np.int64]) -> Tensor:
    """Return the mean over the tokens of the first window of some texts in a layer, ``[text, width]``."""
    tokens = token_index(inputs)
    windows, inverse = np.unique(tokens.starts[texts], return_inverse=True)
    means = np.empty((len(windows), inputs.width), np.float32)
    for start in range(0, len(windows), POOLED_AT_ONCE):
        chunk = windows[start : start + POOLED_AT_ONCE]
        lengths = tokens.lengths[chunk]
        states = inputs.token_states(chunk, [layer])[0].numpy()
        sums = np.add.reduceat(states, offsets_from_lengths(lengths)[:-1], axis=0)
        means[start : start + POOLED_AT_ONCE] = sums / lengths[:, None].astype(np.float32)
    return torch.from_numpy(means[inverse.reshape(-1)])


def read_ragged(inputs: ProbeInputs, reads: SharedReads, windows: NDArray[np.int64]) -> RaggedStates:
    """Return the token states of some windows, one window after another without padding."""
    tokens = token_index(inputs)
    layers = range(len(inputs.columns)) if reads.all_layers else reads.sources.tolist()
    in_second = torch.from_numpy(tokens.spans[tokens.tokens_of(windows), 0] >= 0)
    lengths = tuple(tokens.lengths[windows].tolist())
    return RaggedStates(inputs.token_states(windows, layers), lengths, in_second)


def padded_texts(inputs: ProbeInputs, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
    """Return token states as :meth:`ProbeInputs.text_states`; the windows of all texts are read together."""
    columns = single_order(texts).T
    ragged = read_ragged(inputs, reads, token_index(inputs).starts[columns.reshape(-1)])
    lengths = np.array(ragged.lengths).reshape(columns.shape)
    values = torch.split(ragged.values, lengths.sum(1).tolist(), 1)
    return [padded(RaggedStates(*pair)) for pair in zip(values, map(tuple, lengths.tolist()), strict=True)]


def padded(ragged: RaggedStates) -> TokenStates:
    """Return the same token states padded to the longest text: ``[layer, text, token, width]``."""
    index, mask = pad_index(np.array(ragged.lengths))
    return TokenStates(ragged.values[:, torch.from_numpy(index)], torch.from_numpy(mask))


def read_inputs(stored: Mapping[str, PlanLatents], texts: Sequence[Text], columns: Sequence[Column]) -> ProbeInputs:
    """Return the latents of ``texts`` in ``columns``, from the store of each plan.

    Raises:
        SpecError: tokens together with pooled latents, or tokens of two plans, which may truncate a text differently.
    """
    if any(column.view == TOKENS for column in columns):
        if len({(column.plan, column.view) for column in columns}) > 1:
            raise SpecError(
                f"probe.inputs joins {view_name(columns)}: the view tokens cannot be combined with other views or with "
                "other plans."
            )
        reader, tokens = open_tokens(stored[columns[0].plan].store, texts, [column.layer for column in columns])
        widths = (reader.width,) * len(columns)
        return TokenInputs(columns=tuple(columns), widths=widths, tokens=tokens, read=reader.read)
    return pooled_inputs(
        [stored[column.plan].store.read(texts, column.view, [column.layer]) for column in columns], columns
    )


def open_tokens(store: LatentStore, texts: Sequence[Text], layers: Sequence[int]) -> tuple[TokenReader, TokenIndex]:
    """Open a reader of the token states of some layers, window by window, and return the token index of the texts."""
    windows, starts = store.expand_windows(texts)
    reader = store.token_reader(windows, layers)
    return reader, reader.read(range(len(windows)), []).index(starts)


def tokens_as_inputs(tokens: TokenLatents, columns: Sequence[Column], starts: NDArray[np.int64]) -> TokenInputs:
    """Return token latents in memory as probe inputs.

    Args:
        tokens: latents of windows, their layers in the order of ``columns``.
        starts: ``[text + 1]``, text ``i`` has the windows from ``starts[i]`` to ``starts[i + 1]``.
    """
    widths = (tokens.states.shape[2],) * len(columns)
    return TokenInputs(columns=tuple(columns), widths=widths, tokens=tokens.index(starts), read=tokens.select)
