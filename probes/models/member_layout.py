"""Member layout: which input layers each ensemble member of a stacked probe reads.

The layers of all members (seeds, ablated variants, left-out layers) follow each other on one layer axis, and every
layer belongs to one member. A single probe is one member.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


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
        sizes = torch.tensor([len(member) for member in self.members])
        return torch.repeat_interleave(torch.arange(len(self.members)), sizes)

    @cached_property
    def mask(self) -> Tensor:
        """``[member, position]``: whether the member has a layer at this position."""
        sizes = torch.tensor([len(member) for member in self.members])
        return torch.arange(int(sizes.max())) < sizes[:, None]

    def by_member(self, x: Tensor) -> Tensor:
        """Return ``[layer, ...]`` as ``[member, position, ...]``, padded with zeros if a member has fewer layers."""
        if self.mask.all():
            return x.reshape(*self.mask.shape, *x.shape[1:])
        padded = x.new_zeros(*self.mask.shape, *x.shape[1:])
        padded[self.mask] = x
        return padded

    @staticmethod
    def stack(layouts: "Sequence[MemberLayout]") -> "MemberLayout":
        """Return the layout with the members of several layouts of the same inputs, one layout after another."""
        return replace(layouts[0], members=tuple(member for layout in layouts for member in layout.members))
