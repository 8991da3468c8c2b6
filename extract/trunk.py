"""Trunk: trainable blocks over texts of any lengths, back to back and without padding, as a store has them.

Texts of like length run together, so that little is padding and matrices stay large. What comes out is in the order of
what went in, and is that of each text alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.plan import TOKENS, CapturePlan
from data.ragged import bounds
from extract.pooling import POOLINGS
from extract.upper import Cut, UpperBlocks

ROOM = 8192
"""Most places in one forward, padding included; a longer text is alone."""

START = 50
"""What one more forward costs, in places of padding that take as long."""


class Trunk(nn.Module):
    """The blocks above a cut; see :class:`~extract.upper.UpperBlocks`, which they are under the name ``blocks``."""

    def __init__(
        self,
        plan: CapturePlan,
        cut: Cut,
        layers: tuple[int, ...] | str = (-1,),
        dropout: float | None = None,
        attention_dropout: float | None = None,
    ) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: what :meth:`forward` can give, as a plan names layers; all of them above the cut.
            dropout: in all that is trained; None keeps what the backbone's configuration says.
            attention_dropout: of the weights of attention, where ``dropout`` is given; None takes the same.

        Raises:
            BackboneError, SpecError: as :class:`~extract.upper.UpperBlocks`.
        """
        super().__init__()
        self.blocks = UpperBlocks(plan, cut, layers)
        self.cut, self.layers, self.width = cut, self.blocks.layers, self.blocks.source.width
        if dropout is not None:
            self.blocks.set_dropout(dropout, dropout if attention_dropout is None else attention_dropout)

    def forward(
        self,
        below: Tensor,
        lengths: Sequence[int],
        view: str,
        kinds: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """A view of some texts, with the blocks as they are now.

        Args:
            below: ``[token, width]``, the states of the layer at the cut, text after text; where the cut is "none",
                token ids ``[token]``.
            lengths: ``[text]``, how many tokens each has, at least one.
            view: "tokens", or one of :data:`~extract.pooling.POOLINGS`.
            kinds: ``[token]``, which of two segments each counts to, for token ids; None where there is one.
            layers: some of :attr:`layers`; None gives them all.

        Returns:
            In float32 and in the order given, ``[layer, text, width]``, or of tokens ``[layer, token, width]``.

        Raises:
            BackboneError: the states are not of this backbone, or hold NaN or infinity.
            ValueError: the lengths are not those of ``below``.
        """
        counts = np.asarray(lengths, np.int64)
        if counts.sum() != len(below) or counts.min(initial=0) < 0:
            raise ValueError(f"{len(counts)} texts of {counts.sum()} tokens, and {len(below)} tokens are given.")
        chosen = [self.layers.index(layer) for layer in (self.layers if layers is None else layers)]
        device = next(self.parameters()).device
        below, kinds = below.to(device), None if kinds is None else kinds.to(device)
        groups, starts = alike(counts), bounds(counts)[:-1]
        made, order = [], []
        for group in groups:
            longest = int(counts[group].max())
            within = np.arange(longest) < counts[group, None]
            places = np.where(within, starts[group, None] + np.arange(longest), 0)
            real, at = torch.from_numpy(within).to(device), torch.from_numpy(places).to(device)
            states = self.blocks(below[at], real, None if kinds is None else kinds[at])[chosen].float()
            made.append(states[:, real] if view == TOKENS else POOLINGS[view](states, real))
            order.append(places[within] if view == TOKENS else group)
        back = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)
        return torch.cat(made, 1).index_select(1, back)

    def save(self, folder: Path) -> None:
        """Write the whole model as an ordinary model folder; see :meth:`~extract.upper.UpperBlocks.save`."""
        self.blocks.save(folder)


def alike(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Texts in groups of like length, so that padding and the start of one more forward together cost the least."""
    order = np.argsort(lengths, kind="stable")
    sizes, counts = np.unique(lengths, return_counts=True)
    ends = bounds(counts)
    least, begins = np.full(len(ends), np.inf), np.zeros(len(ends), np.int64)
    least[0] = 0
    for end, size in enumerate(sizes, 1):
        costs = least[:end] + START + size * (ends[end] - ends[:end])
        begins[end] = costs.argmin()
        least[end] = costs[begins[end]]
    groups: list[NDArray[np.int64]] = []
    end = len(sizes)
    while end:
        rows = max(1, ROOM // int(sizes[end - 1]))
        part = order[ends[begins[end]] : ends[end]]
        groups += np.array_split(part, -(-len(part) // rows))
        end = int(begins[end])
    return groups
