"""Trunk: trainable blocks over texts of any lengths, back to back and without padding, as a store has them.

What comes out is in the order of what went in, and is that of each text alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from permafrost.data.store.plan import TOKENS, CapturePlan
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.extract.finetuning.top_blocks import Cut, TopBlocks
from permafrost.extract.finetuning.varlen import Row, attention_name, rows_of


class FinetunedBackbone(nn.Module):
    """The blocks above a cut; see :class:`~extract.upper.TopBlocks`, which they are under the name ``blocks``."""

    def __init__(
        self,
        plan: CapturePlan,
        cut: Cut,
        layers: tuple[int, ...] | str = (-1,),
        dropout: float | None = None,
        attention_dropout: float | None = None,
        beside: tuple[int, ...] = (),
    ) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: what the blocks give, as a plan names layers; all of them above the cut.
            dropout: in all that is trained; None keeps what the backbone's configuration says.
            attention_dropout: of the weights of attention, where ``dropout`` is given; None takes the same.
            beside: layers at or below the cut, ascending, that :meth:`forward` gives as they are cached.

        Raises:
            BackboneError, SpecError: as :class:`~extract.upper.TopBlocks`.
        """
        super().__init__()
        self.blocks = TopBlocks(plan, cut, layers)
        self.cut, self.beside, self.width = cut, beside, self.blocks.source.width
        self.layers = (*beside, *self.blocks.layers)
        """What :meth:`forward` can give, ascending."""

        self._in_rows = self.blocks.source.family.attention == "sdpa"  # others know no other attention than their own
        if self._in_rows:
            self.blocks.model.set_attn_implementation(attention_name())
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
            below: ``[layer, token, width]``, the cached states of the layers ``beside`` and of the cut, which is the
                last of them, text after text; where the cut is "none", token ids ``[token]``.
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
        tokens = below.shape[0 if self.cut == "none" else 1]
        if counts.sum() != tokens or counts.min(initial=1) < 1:
            raise ValueError(f"{len(counts)} texts of {counts.sum()} tokens, and {tokens} tokens are given.")
        chosen = [self.layers.index(layer) for layer in (self.layers if layers is None else layers)]
        device = next(self.parameters()).device
        below, kinds = below.to(device), None if kinds is None else kinds.to(device)
        rows = rows_of(counts, device)
        made = []
        for row in rows:
            states = self._states(below, row, None if kinds is None else kinds[row.tokens])[chosen]
            made += [states] if view == TOKENS else [_pooled(states, row, view)]
        if view == TOKENS:
            order = torch.cat([row.tokens for row in rows])
        else:
            texts = np.concatenate([group.texts for row in rows for group in row.groups])
            order = torch.from_numpy(texts).to(device)
        return torch.cat(made, 1).index_select(1, order.argsort())

    def _states(self, below: Tensor, row: Row, kinds: Tensor | None) -> Tensor:
        """``[layer, token, width]`` of :attr:`layers`."""
        if self.cut == "none":
            return self._run(below[row.tokens], row, kinds).float()
        made = self._run(below[-1, row.tokens], row, kinds).float()
        return torch.cat([below[: len(self.beside), row.tokens].float(), made]) if self.beside else made

    def _run(self, below: Tensor, row: Row, kinds: Tensor | None) -> Tensor:
        """``[layer, token, width]`` of what the blocks give."""
        if self._in_rows:
            return self.blocks.in_one_row(below, row, kinds)
        made = []
        for group in row.groups:
            states = self.blocks(group.padded(below), group.real, None if kinds is None else group.padded(kinds))
            made.append(states[:, group.real])
        return torch.cat(made, 1)

    def save(self, folder: Path) -> None:
        """Write the whole model as an ordinary model folder; see :meth:`~extract.upper.TopBlocks.save`."""
        self.blocks.save(folder)


def _pooled(states: Tensor, row: Row, view: str) -> Tensor:
    """``[layer, token, width]`` of a row to ``[layer, text, width]``."""
    pool = POOLINGS[view]
    return torch.cat(
        [pool(torch.stack([group.padded(layer) for layer in states]), group.real) for group in row.groups], 1
    )
