"""Inputs: cached latents as probes read them, from one plan or several, and the short names that say which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.ragged import TokenLatents, bounds, ranges
from permafrost.data.spec import SpecError
from permafrost.data.store.shard import Latents
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text
from permafrost.probes.config.columns import TOKENS, Column, view_name
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.models.shared_reads import RaggedStates, SharedReads, TextStates, TokenStates

POOLED_AT_ONCE = 512
"""Texts whose tokens are averaged at once."""

MEASURED_TEXTS = 500
"""Texts whose tokens are measured for their mean and spread."""


@dataclass(frozen=True, eq=False)
class ProbeInputs:
    """Latents as a probe reads them."""

    values: Tensor
    """``[layer, text, width]`` in float32: layers of each view and plan, one after another; narrower latents are padded
    with zeros. ``[layer, token, width]`` as stored where it is tokens that are read, text after text; without tokens
    where a reader has them."""

    columns: tuple[Column, ...]
    """What each index of the layer axis is."""

    widths: tuple[int, ...]
    """Width of each layer's latents."""

    offsets: NDArray[np.int64] | None = None
    """``[window + 1]``: window ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``; None for pooled latents.
    A text that was not too long is one window."""

    spans: NDArray[np.int32] | None = None
    """``[token, 2]``: the characters of its text that each token covers; None for pooled latents."""

    starts: NDArray[np.int64] | None = None
    """``[text + 1]``: text ``i`` has the windows from ``starts[i]`` to ``starts[i + 1]``; None where each has one."""

    reader: TokenReader | None = None
    """Where tokens are read from, some at a time, rather than from memory."""

    @cached_property
    def windows(self) -> NDArray[np.int64]:
        """``[text + 1]``: text ``i`` has the windows from ``windows[i]`` to ``windows[i + 1]``."""
        assert self.offsets is not None
        return np.arange(len(self.offsets)) if self.starts is None else self.starts

    @property
    def longest(self) -> int:
        """Most latents of a text in a layer: 1, or its tokens."""
        return 1 if self.offsets is None else int(np.diff(self.offsets).max(initial=1))

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """``[text, width]``: one vector a text, the mean of its tokens where it is tokens that are read."""
        if self.offsets is None:
            return self.values[layer, torch.from_numpy(texts)]
        windows, place = np.unique(self.windows[texts], return_inverse=True)
        means = np.empty((len(windows), self.values.shape[2]), np.float32)
        for start in range(0, len(windows), POOLED_AT_ONCE):
            some = slice(start, start + POOLED_AT_ONCE)
            lengths = np.diff(self.offsets)[windows[some]]
            sums = np.add.reduceat(self.states(windows[some], [layer])[0].numpy(), bounds(lengths)[:-1], axis=0)
            means[some] = sums / lengths[:, None].astype(np.float32)
        return torch.from_numpy(means[place.reshape(-1)])

    def text_states(self, how: SharedReads, sides: NDArray[np.int64]) -> list[TextStates]:
        """Latents of rows, for each side ``[distinct, row, width]``, or its tokens.

        Args:
            sides: ``[order, row, side]``, indices of texts in each order of rows.
        """
        columns = np.moveaxis(sides, -1, 0)
        if self.offsets is not None:
            if len(sides) > 1:
                raise ValueError("members that read tokens take rows in one order.")
            return [padded(ragged_of(self, how, self.windows[column[0]])) for column in columns]
        if how.whole:
            return [self.values[:, torch.from_numpy(column[0])] for column in columns]
        layers = how.sources[:, None]
        return [self.values[layers, torch.from_numpy(column[how.row_orders])] for column in columns]

    def states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """``[layer, token, width]`` in float32: the tokens of some windows, one window after another."""
        assert self.offsets is not None
        if self.reader is not None:
            return torch.from_numpy(self.reader.rows(windows, layers).states).float()
        index = torch.from_numpy(ranges(self.offsets[windows], np.diff(self.offsets)[windows]))
        values = torch.empty(len(layers), len(index), self.values.shape[2])
        for place, layer in enumerate(layers):
            values[place] = self.values[layer].index_select(0, index)
        return values

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean and spread of the latents of ``texts``, layer by layer.

        Args:
            center: whether the mean is taken off at all; zeros else.
            scale: ``layer`` for one spread a layer, or ``dimension``.
            by_token: of single tokens, those of some of the texts; else of one vector a text.

        Returns:
            ``[layer, 1, width]``, and ``[layer, 1, 1]`` or ``[layer, 1, width]``; a spread of 0 is given as 1.
        """
        key = (texts.tobytes(), center, scale, by_token)
        if key not in self._moments:
            known = self._tokens if by_token else self.pooled
            found = [self._moment(layer, known(layer, texts), center, scale) for layer in range(len(self.values))]
            self._moments[key] = torch.stack([mean for mean, _ in found]), torch.stack([spread for _, spread in found])
        return self._moments[key]

    @cached_property
    def _moments(self) -> dict[tuple[bytes, bool, str, bool], tuple[Tensor, Tensor]]:
        return {}

    def _tokens(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        return self.states(self.windows[texts[:: max(1, len(texts) // MEASURED_TEXTS)]], [layer])[0]

    def _moment(self, layer: int, known: Tensor, center: bool, scale: str) -> tuple[Tensor, Tensor]:
        mean = known.mean(0, keepdim=True) if center else torch.zeros(1, known.shape[1])
        square = (known - mean).square()
        if scale == "layer":
            spread = square[:, : self.widths[layer]].mean().sqrt().view(1, 1)
        else:
            spread = square.mean(0, keepdim=True).sqrt()
        return mean, torch.where(spread > 0, spread, 1)


def read_inputs(stored: Mapping[str, PlanLatents], texts: Sequence[Text], columns: Sequence[Column]) -> ProbeInputs:
    """The latents of ``texts`` in ``columns``, from the store of each plan.

    Raises:
        SpecError: tokens beside pooled latents, or of two plans, which may cut a text differently.
    """
    if any(column.view == TOKENS for column in columns):
        if len({(column.plan, column.view) for column in columns}) > 1:
            raise SpecError(f"probe.inputs joins {view_name(columns)}: tokens are read alone, and of one plan.")
        store = stored[columns[0].plan].store
        windows, starts = store.windowed(texts)
        reader = store.token_reader(windows, [column.layer for column in columns])
        index = store.read_tokens(windows, [])
        nothing, widths = torch.empty(len(columns), 0, reader.width), (reader.width,) * len(columns)
        return ProbeInputs(nothing, tuple(columns), widths, index.offsets, index.spans, starts, reader)
    parts = [stored[column.plan].store.read(texts, column.view, [column.layer]) for column in columns]
    return ProbeInputs(stack(parts), tuple(columns), tuple(part.shape[2] for part in parts))


def tokens_as_inputs(read: TokenLatents, columns: Sequence[Column], starts: NDArray[np.int64]) -> ProbeInputs:
    """Token states as a probe reads them, their layers in the order of ``columns``.

    Args:
        starts: ``[text + 1]``, where the windows of each text begin among those read.
    """
    values = torch.from_numpy(np.ascontiguousarray(read.states))
    widths = (values.shape[2],) * len(columns)
    return ProbeInputs(values, tuple(columns), widths, read.offsets, read.spans, starts)


def stack(parts: Sequence[Latents]) -> Tensor:
    """``[layer, text, width]`` one after another, as one tensor in float32, padded with zeros to the widest."""
    widest = max(part.shape[2] for part in parts)
    stacked = np.zeros((sum(len(part) for part in parts), parts[0].shape[1], widest), np.float32)
    start = 0
    for part in parts:
        stacked[start : start + len(part), :, : part.shape[2]] = part
        start += len(part)
    return torch.from_numpy(stacked)


def ragged_of(inputs: ProbeInputs, how: SharedReads, windows: NDArray[np.int64]) -> RaggedStates:
    """The tokens of some windows one after another, without padding."""
    assert inputs.offsets is not None
    layers = range(len(inputs.values)) if how.whole else how.sources.tolist()
    lengths = np.diff(inputs.offsets)[windows]
    second = None
    if inputs.spans is not None:
        second = torch.from_numpy(inputs.spans[ranges(inputs.offsets[windows], lengths), 0] >= 0)
    return RaggedStates(inputs.states(windows, layers), tuple(lengths.tolist()), second)


def padded(ragged: RaggedStates) -> TokenStates:
    """The same tokens, each text from the first place on up to the longest: ``[layer, text, token, width]``."""
    lengths = np.array(ragged.lengths)
    starts, places = bounds(lengths)[:-1, None], np.arange(lengths.max())
    real = places < lengths[:, None]
    index = np.where(real, starts + places, starts)
    return TokenStates(ragged.values[:, torch.from_numpy(index)], torch.from_numpy(real))
