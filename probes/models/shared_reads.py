"""Reading: latents that several members read are fetched, and multiplied, once.

Members side by side that take rows in the same order read the same latents of a layer. ``[distinct, row, width]``
holds each of them once; ``at`` says which one each layer of the probe reads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from permafrost.probes.models.member_layout import MemberLayout


class TokenStates(NamedTuple):
    """Texts as the states of their tokens."""

    values: Tensor
    """``[layer, row, token, width]``; anything beyond the end of a text."""

    real: Tensor
    """``[row, token]``: whether a text has that token."""


class RaggedStates(NamedTuple):
    """The tokens of some texts, one text after another without padding."""

    values: Tensor
    """``[layer, token, width]``."""

    lengths: tuple[int, ...]
    """``[text]``: how many tokens each has."""

    second: Tensor | None = None
    """``[token]``: whether it covers characters, of two segments those of the second; None where nothing says so."""


TextStates = Tensor | TokenStates
"""One side of some rows: latents ``[layer, row, width]``, or the states of their tokens."""


def both_texts(first: TextStates, second: TextStates) -> TextStates:
    """The rows of two sides, one after another."""
    if isinstance(first, TokenStates) and isinstance(second, TokenStates):
        longest = max(first.real.shape[1], second.real.shape[1])
        values, real = zip(*(_padded(side, longest) for side in (first, second)), strict=True)
        return TokenStates(torch.cat(values, 1), torch.cat(real))
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return torch.cat([first, second], 1)


def _padded(side: TokenStates, longest: int) -> TokenStates:
    missing = longest - side.real.shape[1]
    return TokenStates(functional.pad(side.values, (0, 0, 0, missing)), functional.pad(side.real, (0, missing)))


@dataclass(frozen=True, eq=False)
class SharedReads:
    """Which latents a probe's layers read, each once."""

    sources: Tensor
    """``[distinct]``: which layer of the inputs."""

    row_orders: NDArray[np.int64]
    """``[distinct]``: in which order of rows."""

    index: Tensor | None
    """``[layer]``: which of the distinct latents it reads; None where each layer reads its own."""

    whole: bool
    """Whether the distinct latents are the inputs' layers as they are."""

    def first(self, by_layer: Tensor) -> Tensor:
        """What belongs to layers, ``[layer, ...]``, taken once for those that read the same: ``[distinct, ...]``."""
        if self.index is None:
            return by_layer
        first = torch.empty(len(self.sources), dtype=torch.int64)
        first[self.index] = torch.arange(len(self.index))
        return by_layer[first]

    def spread(self, x: Tensor) -> Tensor:
        """``[distinct, ...]`` -> ``[layer, ...]``."""
        return x if self.index is None else x[self.index]

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """``[distinct, row, width]`` by ``[layer, width, code]`` -> ``[layer, row, code]``.

        Weights that meet the same latents lie side by side in one matmul.
        """
        if self.index is None:
            return torch.bmm(x, weight)
        (distinct, rows, width), code = x.shape, weight.shape[2]
        place = torch.zeros_like(self.index)
        order = torch.argsort(self.index, stable=True)
        counts = torch.bincount(self.index, minlength=distinct)
        place[order] = torch.arange(len(order)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        most = int(counts.max())
        beside = weight.new_zeros(distinct, most, width, code).index_put((self.index, place), weight)
        made = torch.bmm(x, beside.transpose(1, 2).reshape(distinct, width, most * code))
        return made.view(distinct, rows, most, code)[self.index, :, place]


def shared_reads(layout: MemberLayout, orders: NDArray[np.int64] | None = None) -> SharedReads:
    """How the layers of a probe read rows.

    Args:
        orders: of each member, which order of rows it takes; None where all take the same.
    """
    of_member = np.zeros(len(layout.members), np.int64) if orders is None else orders
    pairs = np.stack([of_member[layout.member_of.numpy()], np.array(layout.sources)], 1)
    distinct, at = np.unique(pairs, axis=0, return_inverse=True)
    sources = torch.from_numpy(np.ascontiguousarray(distinct[:, 1]))
    same = len(distinct) == len(pairs) and bool((distinct == pairs).all())
    whole = not distinct[:, 0].any() and distinct[:, 1].tolist() == list(range(len(layout.input_widths)))
    return SharedReads(sources, distinct[:, 0], None if same else torch.from_numpy(at.reshape(-1)), whole)
