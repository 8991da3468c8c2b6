"""Probe inputs: cached latents of one plan or several, pooled or token by token, on one layer axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.ragged import TokenLatents, concatenate_ranges, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.shard import Latents
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column, view_name
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates, TokenStates

POOLED_AT_ONCE = 512
"""Number of windows that are averaged at once."""

MEASURED_TEXTS = 500
"""Approximate number of texts whose tokens are measured for mean and standard deviation."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbeInputs:
    """Latents that a probe reads, with the plan, view and layer of every index on their layer axis."""

    values: Tensor
    """Pooled latents ``[layer, text, width]`` in float32, padded with zeros to the largest width; or token states
    ``[layer, token, width]`` in the stored precision, window after window, with no tokens if there is a reader."""

    columns: tuple[Column, ...]
    """``[layer]``: plan, view and layer."""

    widths: tuple[int, ...]
    """``[layer]``: width of the latents."""

    offsets: NDArray[np.int64] | None = None
    """``[window + 1]``: window ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``; None for pooled latents.
    A text of at most ``plan.max_tokens`` tokens is one window."""

    spans: NDArray[np.int32] | None = None
    """``[token, 2]``: first character of the text that the token covers and the first after it, -1 twice if it covers
    none; None for pooled latents."""

    starts: NDArray[np.int64] | None = None
    """``[text + 1]``: text ``i`` has the windows from ``starts[i]`` to ``starts[i + 1]``; None if each has one."""

    reader: TokenReader | None = None
    """Reader of token states from the store, window by window; None if ``values`` holds them."""

    @cached_property
    def windows(self) -> NDArray[np.int64]:
        """``[text + 1]``: text ``i`` has the windows from ``windows[i]`` to ``windows[i + 1]``."""
        assert self.offsets is not None
        return np.arange(len(self.offsets)) if self.starts is None else self.starts

    @property
    def longest(self) -> int:
        """Largest number of latents of a window in a layer: 1 if pooled, else its number of tokens."""
        return 1 if self.offsets is None else int(np.diff(self.offsets).max(initial=1))

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """Return ``[text, width]`` of a layer: the pooled latents, or the mean over the tokens of the first window."""
        if self.offsets is None:
            return self.values[layer, torch.from_numpy(texts)]
        windows, inverse = np.unique(self.windows[texts], return_inverse=True)
        means = np.empty((len(windows), self.values.shape[2]), np.float32)
        for start in range(0, len(windows), POOLED_AT_ONCE):
            chunk = slice(start, start + POOLED_AT_ONCE)
            lengths = np.diff(self.offsets)[windows[chunk]]
            sums = np.add.reduceat(
                self.states(windows[chunk], [layer])[0].numpy(), offsets_from_lengths(lengths)[:-1], axis=0
            )
            means[chunk] = sums / lengths[:, None].astype(np.float32)
        return torch.from_numpy(means[inverse.reshape(-1)])

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """Return for each text of a row its latents ``[distinct, row, width]``, or its token states.

        Args:
            texts: ``[order, row, text of the row]``, indices of texts in each order of rows.

        Raises:
            ValueError: tokens in more than one order of rows.
        """
        columns = np.moveaxis(texts, -1, 0)
        if self.offsets is not None:
            if len(texts) > 1:
                raise ValueError("members that read tokens take rows in one order.")
            return [padded(read_ragged(self, reads, self.windows[column[0]])) for column in columns]
        if reads.all_layers:
            return [self.values[:, torch.from_numpy(column[0])] for column in columns]
        layers = reads.sources[:, None]
        return [self.values[layers, torch.from_numpy(column[reads.row_orders])] for column in columns]

    def states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """Return the token states of some windows, ``[layer, token, width]`` in float32, one window after another."""
        assert self.offsets is not None
        if self.reader is not None:
            return torch.from_numpy(self.reader.read(windows, layers).states).float()
        index = torch.from_numpy(concatenate_ranges(self.offsets[windows], np.diff(self.offsets)[windows]))
        values = torch.empty(len(layers), len(index), self.values.shape[2])
        for row, layer in enumerate(layers):
            values[row] = self.values[layer].index_select(0, index)
        return values

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents of ``texts`` in every layer; computed once.

        Args:
            center: whether to compute the mean; otherwise it is zeros.
            scale: ``layer`` for one standard deviation for each layer, or ``dimension`` for one for each dimension.
            by_token: whether to measure the tokens of a sample of the texts; otherwise one vector for each text.

        Returns:
            ``[layer, 1, width]``, and ``[layer, 1, 1]`` or ``[layer, 1, width]``; a standard deviation of 0 becomes 1.
        """
        key = (texts.tobytes(), center, scale, by_token)
        if key not in self._moments:
            read = self._sample_tokens if by_token else self.pooled
            pairs = [self._layer_moments(layer, read(layer, texts), center, scale) for layer in range(len(self.values))]
            means, deviations = zip(*pairs, strict=True)
            self._moments[key] = torch.stack(means), torch.stack(deviations)
        return self._moments[key]

    @cached_property
    def _moments(self) -> dict[tuple[bytes, bool, str, bool], tuple[Tensor, Tensor]]:
        return {}

    def _sample_tokens(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        return self.states(self.windows[texts[:: max(1, len(texts) // MEASURED_TEXTS)]], [layer])[0]

    def _layer_moments(self, layer: int, latents: Tensor, center: bool, scale: str) -> tuple[Tensor, Tensor]:
        mean = latents.mean(0, keepdim=True) if center else torch.zeros(1, latents.shape[1])
        squares = (latents - mean).square()
        if scale == "layer":
            deviation = squares[:, : self.widths[layer]].mean().sqrt().view(1, 1)
        else:
            deviation = squares.mean(0, keepdim=True).sqrt()
        return mean, torch.where(deviation > 0, deviation, 1)


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
        store = stored[columns[0].plan].store
        windows, starts = store.expand_windows(texts)
        reader = store.token_reader(windows, [column.layer for column in columns])
        index = store.read_tokens(windows, [])
        return ProbeInputs(
            values=torch.empty(len(columns), 0, reader.width),
            columns=tuple(columns),
            widths=(reader.width,) * len(columns),
            offsets=index.offsets,
            spans=index.spans,
            starts=starts,
            reader=reader,
        )
    layers = [stored[column.plan].store.read(texts, column.view, [column.layer]) for column in columns]
    widths = tuple(layer.shape[2] for layer in layers)
    return ProbeInputs(values=stack_latents(layers), columns=tuple(columns), widths=widths)


def tokens_as_inputs(tokens: TokenLatents, columns: Sequence[Column], starts: NDArray[np.int64]) -> ProbeInputs:
    """Return token latents in memory as probe inputs.

    Args:
        tokens: latents of windows, their layers in the order of ``columns``.
        starts: ``[text + 1]``, text ``i`` has the windows from ``starts[i]`` to ``starts[i + 1]``.
    """
    values = torch.from_numpy(np.ascontiguousarray(tokens.states))
    return ProbeInputs(
        values=values,
        columns=tuple(columns),
        widths=(values.shape[2],) * len(columns),
        offsets=tokens.offsets,
        spans=tokens.spans,
        starts=starts,
    )


def stack_latents(parts: Sequence[Latents]) -> Tensor:
    """Concatenate ``[layer, text, width]`` along the layer axis, in float32, padded with zeros to the largest width."""
    widest = max(part.shape[2] for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), parts[0].shape[1], widest), np.float32)
    start = 0
    for part in parts:
        stacked[start : start + len(part), :, : part.shape[2]] = part
        start += len(part)
    return torch.from_numpy(stacked)


def read_ragged(inputs: ProbeInputs, reads: SharedReads, windows: NDArray[np.int64]) -> RaggedStates:
    """Return the token states of some windows, one window after another without padding."""
    assert inputs.offsets is not None
    layers = range(len(inputs.values)) if reads.all_layers else reads.sources.tolist()
    lengths = np.diff(inputs.offsets)[windows]
    in_second = None
    if inputs.spans is not None:
        in_second = torch.from_numpy(inputs.spans[concatenate_ranges(inputs.offsets[windows], lengths), 0] >= 0)
    return RaggedStates(inputs.states(windows, layers), tuple(lengths.tolist()), in_second)


def padded(ragged: RaggedStates) -> TokenStates:
    """Return the same token states padded to the longest text: ``[layer, text, token, width]``."""
    lengths = np.array(ragged.lengths)
    starts, positions = offsets_from_lengths(lengths)[:-1, None], np.arange(lengths.max())
    mask = positions < lengths[:, None]
    index = np.where(mask, starts + positions, starts)
    return TokenStates(ragged.values[:, torch.from_numpy(index)], torch.from_numpy(mask))
