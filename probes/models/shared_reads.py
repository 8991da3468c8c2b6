"""Member layout: which input layers each member of a stacked probe reads; shared reads: what several read comes once.

The layers of all members (seeds, ablated variants, left-out layers) follow each other on one layer axis, and every
layer belongs to one member. A single probe is one member.

Members with the same order of rows read the same latents of a layer. ``[distinct, row, width]`` holds each of these
once; :attr:`SharedReads.index` maps every layer of the probe to the latents that it reads.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from permafrost.data.device.transfer import CPU, to_device
from permafrost.data.ragged import concatenate_ranges


@dataclass(frozen=True)
class MemberLayout:
    """Layer axis of a probe: the layers of its members, one member after another."""

    members: tuple[tuple[int, ...], ...]
    """For each member, the layers that it reads, as indices into the layers of the inputs."""

    input_widths: tuple[int, ...]
    """Width of each layer of the inputs."""

    input_codes: tuple[int, ...]
    """Code width of each layer of the inputs; the same for every member that reads the layer."""

    tokens: bool = False
    """Whether the latents are token states, which the probe pools."""

    @property
    def sources(self) -> tuple[int, ...]:
        """``[layer]``: index of the layer among the layers of the inputs."""
        return tuple(source for member in self.members for source in member)

    @property
    def widths(self) -> tuple[int, ...]:
        """``[layer]``: width of the latents."""
        return tuple(self.input_widths[source] for source in self.sources)

    @property
    def codes(self) -> tuple[int, ...]:
        """``[layer]``: width of the code."""
        return tuple(self.input_codes[source] for source in self.sources)

    @cached_property
    def member_of(self) -> Tensor:
        """``[layer]``: index of the member that the layer belongs to."""
        sizes = np.array([len(member) for member in self.members])
        return torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))

    @cached_property
    def mask(self) -> Tensor:
        """``[member, position]``: whether the member has a layer at this position."""
        sizes = np.array([len(member) for member in self.members])
        return torch.from_numpy(np.arange(sizes.max()) < sizes[:, None])

    @cached_property
    def _positions(self) -> dict[torch.device, Tensor]:
        """Device -> ``[layer]``, the place of the layer among all positions of all members."""
        return {}

    def by_member(self, x: Tensor) -> Tensor:
        """Return ``[layer, ...]`` as ``[member, position, ...]``, padded with zeros if a member has fewer layers."""
        members, most = self.mask.shape
        if len(x) < members * most:
            if x.device not in self._positions:
                self._positions[x.device] = to_device(np.flatnonzero(self.mask), x.device)
            x = x.new_zeros(members * most, *x.shape[1:]).index_copy(0, self._positions[x.device], x)
        return x.reshape(members, most, *x.shape[1:])


class TokenStates(NamedTuple):
    """Token states of texts, padded to the longest text."""

    values: Tensor
    """``[layer, row, token, width]``; arbitrary values after the end of a text."""

    mask: Tensor
    """``[row, token]``: whether the text has a token at this position."""


class RaggedStates(NamedTuple):
    """Token states of texts, one text after another without padding."""

    values: Tensor
    """``[layer, token, width]``."""

    lengths: tuple[int, ...]
    """``[text]``: number of tokens of each text."""

    in_second: NDArray[np.bool_]
    """``[token]``: whether the token covers characters of the text, or of the second of two segments."""


TextStates = Tensor | TokenStates
"""One text of each row: latents ``[layer, row, width]``, or token states."""


def both_texts(first: TextStates, second: TextStates) -> TextStates:
    """Concatenate the first and the second texts of rows along the row axis."""
    if isinstance(first, TokenStates) and isinstance(second, TokenStates):
        longest = max(first.mask.shape[1], second.mask.shape[1])
        values, masks = zip(*(_pad_tokens(states, longest) for states in (first, second)), strict=True)
        return TokenStates(torch.cat(values, 1), torch.cat(masks))
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return torch.cat([first, second], 1)


def _pad_tokens(states: TokenStates, longest: int) -> TokenStates:
    missing = longest - states.mask.shape[1]
    return TokenStates(functional.pad(states.values, (0, 0, 0, missing)), functional.pad(states.mask, (0, missing)))


@dataclass(frozen=True, eq=False)
class SharedReads:
    """Distinct latents that the layers of a probe read, each fetched and multiplied once: layers and orders of rows."""

    source_layers: tuple[int, ...]
    """``[distinct]``: index of the layer among the layers of the inputs."""

    row_orders: NDArray[np.int64]
    """``[distinct]``: index of the order of rows."""

    read_by: NDArray[np.int64] | None
    """``[layer]``: index of the distinct latents that the layer reads; None if it is ``0, 1, 2, ...``."""

    all_layers: bool
    """Whether the distinct latents are all layers of the inputs, in their order and in one order of rows."""

    device: torch.device
    """Device of the probe."""

    @cached_property
    def sources(self) -> Tensor:
        """:attr:`source_layers` on the device."""
        return to_device(np.array(self.source_layers, np.int64), self.device)

    @cached_property
    def index(self) -> Tensor | None:
        """:attr:`read_by` on the device."""
        return None if self.read_by is None else to_device(self.read_by, self.device)

    @cached_property
    def _reader_of(self) -> Tensor:
        """``[distinct]``: the last layer that reads the latents."""
        assert self.read_by is not None
        reader = np.empty(len(self.source_layers), np.int64)
        reader[self.read_by] = np.arange(len(self.read_by))
        return to_device(reader, self.device)

    @cached_property
    def _slots(self) -> tuple[Tensor, int]:
        """``[layer]``, how many layers before it read the same latents; and the largest number of layers that do."""
        assert self.read_by is not None
        counts = np.bincount(self.read_by, minlength=len(self.source_layers))
        slot, order = np.empty_like(self.read_by), np.argsort(self.read_by, kind="stable")
        slot[order] = concatenate_ranges(np.zeros_like(counts), counts)
        return to_device(slot, self.device), int(counts.max())

    def reduce(self, by_layer: Tensor) -> Tensor:
        """Reduce ``[layer, ...]``, equal for layers that read the same latents, to ``[distinct, ...]``."""
        return by_layer if self.index is None else by_layer[self._reader_of]

    def expand(self, x: Tensor) -> Tensor:
        """Expand ``[distinct, ...]`` to ``[layer, ...]``."""
        return x if self.index is None else x[self.index]

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply ``[distinct, row, width]`` by ``[layer, width, code]`` -> ``[layer, row, code]``.

        The weights of layers that read the same latents are concatenated to one matmul.
        """
        if self.index is None:
            return torch.bmm(x, weight)
        (distinct, rows, width), code = x.shape, weight.shape[2]
        slot, most = self._slots
        grouped = weight.new_zeros(distinct, most, width, code).index_put((self.index, slot), weight)
        products = torch.bmm(x, grouped.transpose(1, 2).reshape(distinct, width, most * code))
        return products.view(distinct, rows, most, code)[self.index, :, slot]


def shared_reads(
    layout: MemberLayout, orders: NDArray[np.int64] | None = None, device: torch.device = CPU
) -> SharedReads:
    """Return the shared reads of a probe.

    Args:
        orders: ``[member]``, index of the order of rows of each member; None if all have the same order.
        device: device of the probe.
    """
    order_of_member = np.zeros(len(layout.members), np.int64) if orders is None else orders
    pairs = np.stack([order_of_member[layout.member_of.numpy()], np.array(layout.sources)], 1)
    distinct, index = np.unique(pairs, axis=0, return_inverse=True)
    sources, read_by = tuple(distinct[:, 1].tolist()), index.reshape(-1)
    same = len(distinct) == len(pairs) and bool((distinct == pairs).all())
    all_layers = not distinct[:, 0].any() and sources == tuple(range(len(layout.input_widths)))
    return SharedReads(sources, distinct[:, 0], None if same else read_by, all_layers, device)
