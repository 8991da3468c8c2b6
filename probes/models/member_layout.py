"""Seats: which layers of the inputs each member of a probe reads.

Members are probes side by side (layers left out, seeds, ablated variants): their layers lie one after another on one
layer axis, and every layer belongs to one member. A probe alone is one member.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class MemberLayout:
    """The layer axis of a probe."""

    members: tuple[tuple[int, ...], ...]
    """For each member, the layers that it reads, as indices into the inputs."""

    input_widths: tuple[int, ...]
    """Width of each layer of the inputs."""

    input_codes: tuple[int, ...]
    """Width of the code of each layer of the inputs, whoever reads it."""

    tokens: bool = False
    """Whether the latents are tokens, to be pooled."""

    @property
    def sources(self) -> tuple[int, ...]:
        """``[layer]``: which layer of the inputs sits here."""
        return tuple(source for member in self.members for source in member)

    @property
    def widths(self) -> tuple[int, ...]:
        """``[layer]``: its width."""
        return tuple(self.input_widths[source] for source in self.sources)

    @property
    def codes(self) -> tuple[int, ...]:
        """``[layer]``: width of its code."""
        return tuple(self.input_codes[source] for source in self.sources)

    @cached_property
    def member_of(self) -> Tensor:
        """``[layer]``: the member that it belongs to."""
        sizes = torch.tensor([len(member) for member in self.members])
        return torch.repeat_interleave(torch.arange(len(self.members)), sizes)

    @cached_property
    def mask(self) -> Tensor:
        """``[member, place]``: whether a member has that many layers."""
        sizes = torch.tensor([len(member) for member in self.members])
        return torch.arange(int(sizes.max())) < sizes[:, None]

    def by_member(self, x: Tensor) -> Tensor:
        """``[layer, ...]`` -> ``[member, place, ...]``, zeros where a member has fewer layers than another."""
        if self.mask.all():
            return x.reshape(*self.mask.shape, *x.shape[1:])
        padded = x.new_zeros(*self.mask.shape, *x.shape[1:])
        padded[self.mask] = x
        return padded

    @staticmethod
    def stack(layout: "list[MemberLayout]") -> "MemberLayout":
        """All members of several, one after another."""
        return replace(layout[0], members=tuple(member for one in layout for member in one.members))
