"""Probe inputs: the interface of what a probe reads, and its simplest kind, one vector for each text.

The other kinds are in :mod:`permafrost.probes.inputs.token_inputs` and :mod:`permafrost.probes.inputs.finetuned`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.device.transfer import CPU, to_device
from permafrost.data.ragged import TokenIndex
from permafrost.data.store.block import Latents
from permafrost.probes.config.columns import Column
from permafrost.probes.inputs.disk_tokens import DiskTokens
from permafrost.probes.inputs.resident import fits
from permafrost.probes.models.shared_reads import SharedReads, TextStates

WHOLE_TEXTS = 1 << 16
"""Maximum number of texts whose moments are computed at once; those of more are sums over parts."""

SUMMED_TEXTS = 1 << 10
"""Number of texts of such a part."""

ROUNDING = 1e-12
"""Share of the mean square below which a variance is a rounding error of a constant."""

MEASURED_TEXTS = 500
"""Approximate number of texts of which tokens, or latents of trainable blocks, are measured for moments."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbeInputs(ABC):
    """Latents that a probe reads, with the plan, view and layer of every index on their layer axis."""

    columns: tuple[Column, ...]
    """``[layer]``: plan, view and layer."""

    widths: tuple[int, ...]
    """``[layer]``: width of the latents."""

    tokens: TokenIndex | None = None
    """Windows and tokens of the texts; None if every text is pooled to one vector."""

    blocks: nn.Module | None = None
    """Trainable blocks that compute the latents whenever they are read; None if the latents are stored."""

    disk: DiskTokens | None = None
    """Where stored token states, or the frozen states below the blocks, are read from; None if it is the store."""

    device: torch.device = CPU
    """Device of all tensors that are returned, which is that of the probe."""

    _moments: dict[tuple[bytes, bool, str, bool], tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def to(self, device: torch.device) -> Self:
        """Return these inputs with their tensors on a device; those of fine-tuned blocks move with the blocks."""
        return self if device == self.device else replace(self, device=device)

    @property
    def width(self) -> int:
        """Largest width of a layer; latents of narrower layers are padded with zeros to it."""
        return max(self.widths)

    @property
    def longest(self) -> int:
        """Largest number of latents of a window in a layer: 1 if pooled, else its number of tokens."""
        return 1 if self.tokens is None else self.tokens.longest

    @abstractmethod
    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """Return ``[text, width]`` of a layer: the pooled latents, or the mean over the tokens of the first window."""

    @abstractmethod
    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """Return for each text of a row its latents ``[distinct, row, width]``, or token states of its first window.

        Args:
            texts: ``[order, row, text of the row]``, indices of texts in each order of rows.

        Raises:
            ValueError: tokens, or latents of trainable blocks, in more than one order of rows.
        """

    def pooled_layers(self, texts: NDArray[np.int64]) -> Sequence[Tensor]:
        """Return :meth:`pooled` of every layer."""
        return [self.pooled(layer, texts) for layer in range(len(self.columns))]

    def token_states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """Return the token states of some windows, ``[layer, token, width]`` in float32, one window after another.

        Raises:
            ValueError: the latents are pooled.
        """
        raise ValueError("pooled latents have no tokens; read the view tokens.")

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents of ``texts`` in every layer; computed once.

        Args:
            center: whether to compute the mean; otherwise it is zeros.
            scale: ``layer`` for one standard deviation for each layer, or ``dimension`` for one for each dimension.
            by_token: whether to measure all tokens of the first windows of a sample of the texts; otherwise one vector
                for each text, of a sample of the texts if trainable blocks compute it.

        Returns:
            ``[layer, 1, width]``, and ``[layer, 1, 1]`` or ``[layer, 1, width]``; a standard deviation of 0 becomes 1.

        Raises:
            ValueError: tokens of latents that are pooled.
        """
        if by_token or self.blocks is not None:
            texts = texts[:: max(1, len(texts) // MEASURED_TEXTS)]
        key = (texts.tobytes(), center, scale, by_token)
        if key not in self._moments and len(texts) > WHOLE_TEXTS:
            self._moments[key] = self._summed_moments(texts, center, scale)
        if key not in self._moments:
            pairs = [self._layer_moments(layer, texts, center, scale, by_token) for layer in range(len(self.widths))]
            means, deviations = zip(*pairs, strict=True)
            self._moments[key] = torch.stack(means), torch.stack(deviations)
        return self._moments[key]

    @torch.no_grad()
    def _layer_moments(
        self, layer: int, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool
    ) -> tuple[Tensor, Tensor]:
        windows = texts if self.tokens is None else self.tokens.starts[texts]
        latents = self.token_states(windows, [layer])[0] if by_token else self.pooled(layer, texts)
        mean = latents.mean(0, keepdim=True) if center else latents.new_zeros(1, latents.shape[1])
        squares = (latents - mean).square_()
        if scale == "layer":
            deviation = squares[:, : self.widths[layer]].mean().sqrt().view(1, 1)
        else:
            deviation = squares.mean(0, keepdim=True).sqrt()
        return mean, torch.where(deviation > 0, deviation, 1)

    @torch.no_grad()
    def _summed_moments(self, texts: NDArray[np.int64], center: bool, scale: str) -> tuple[Tensor, Tensor]:
        """Return the moments of many texts, part by part in float64: the same from memory and from disk."""
        sums, squares = torch.zeros(2, len(self.widths), self.width, dtype=torch.float64)
        for start in range(0, len(texts), SUMMED_TEXTS):
            for layer, latents in enumerate(self.pooled_layers(texts[start : start + SUMMED_TEXTS])):
                values = latents.double()
                sums[layer] += values.sum(0)
                squares[layer] += values.square_().sum(0)
        means, square_means = (sums if center else sums * 0) / len(texts), squares / len(texts)
        variances = square_means - means.square()
        variances = torch.where(variances > square_means * ROUNDING, variances, 0)
        if scale == "layer":
            by_layer = [variance[:width].mean() for variance, width in zip(variances, self.widths, strict=True)]
            variances = torch.stack(by_layer)[:, None]
        deviations = variances.sqrt().float()[:, None]
        return means.float()[:, None], torch.where(deviations > 0, deviations, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class PooledInputs(ProbeInputs):
    """One vector for each text and layer, in memory: that of the device, or of the CPU if they do not fit there."""

    values: Tensor
    """``[layer, text, width]`` in float32, padded with zeros to the largest width."""

    def to(self, device: torch.device) -> Self:
        """As :meth:`ProbeInputs.to`; the latents move if they take at most half of the free memory."""
        if device == self.device:
            return self
        moves = fits(self.values.nbytes, device)
        return replace(self, device=device, values=to_device(self.values, device) if moves else self.values)

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`ProbeInputs.pooled`."""
        return to_device(self.values[layer, self._index(texts)], self.device)

    def text_states(self, reads: SharedReads, texts: NDArray[np.int64]) -> list[TextStates]:
        """As :meth:`ProbeInputs.text_states`, in any number of orders of rows."""
        columns = np.moveaxis(texts, -1, 0)
        if reads.all_layers:
            return [to_device(self.values[:, self._index(column[0])], self.device) for column in columns]
        in_place = reads.device == self.values.device
        layers = reads.sources if in_place else torch.tensor(reads.source_layers)
        return [
            to_device(self.values[layers[:, None], self._index(column[reads.row_orders])], self.device)
            for column in columns
        ]

    def _index(self, texts: NDArray[np.int64]) -> Tensor:
        return to_device(texts, self.values.device)


def pooled_inputs(parts: Sequence[Latents], columns: Sequence[Column]) -> PooledInputs:
    """Concatenate ``[layer, text, width]`` along the layer axis, in float32, padded with zeros to the largest width."""
    layers = [layer for part in parts for layer in part]
    widths = tuple(layer.shape[1] for layer in layers)
    values = torch.zeros(len(layers), len(layers[0]), max(widths))
    for index, layer in enumerate(layers):
        values[index, :, : widths[index]] = torch.from_numpy(layer)  # from float16 several times as fast as in numpy
    return PooledInputs(columns=tuple(columns), widths=widths, values=values)


def single_order(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``[row, ...]`` from ``[order, row, ...]``; raise :class:`ValueError` for several orders."""
    if len(rows) > 1:
        raise ValueError("members that read tokens, or that train blocks, take rows in one order.")
    return np.asarray(rows[0])
