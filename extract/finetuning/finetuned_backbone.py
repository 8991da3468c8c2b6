"""Fine-tuned backbone: trainable top blocks over texts of any length, in few forward passes.

The output has the order of the input, and is that of each text alone.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.device.transfer import to_device
from permafrost.data.errors import first_line
from permafrost.data.plan.plan import TOKENS, CapturePlan, ExtractSpec
from permafrost.data.spec import SpecError
from permafrost.extract.attention.varlen import Row, rows_of
from permafrost.extract.capture.pooling import POOLINGS
from permafrost.extract.finetuning.cut import Batching, Cut
from permafrost.extract.finetuning.top_blocks import TopBlocks


class FinetunedBackbone(nn.Module):
    """Blocks above a cut, a :class:`permafrost.extract.finetuning.top_blocks.TopBlocks` in the attribute ``blocks``."""

    def __init__(
        self,
        plan: CapturePlan,
        cut: Cut,
        layers: tuple[int, ...] | str = (-1,),
        dropout: float | None = None,
        attention_dropout: float | None = None,
        frozen_layers: tuple[int, ...] = (),
        cache: str = ExtractSpec.cache,
    ) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: layers that the blocks return, as a plan names layers; all must be above the cut.
            dropout: in all trained blocks; None keeps that of the backbone's configuration.
            attention_dropout: of attention weights, if ``dropout`` is given; None takes the same as ``dropout``.
            frozen_layers: layers at or below the cut, ascending, that :meth:`forward` returns as they are stored.
            cache: folder of the latent stores.

        Raises:
            BackboneError, SpecError: as :class:`permafrost.extract.finetuning.top_blocks.TopBlocks`.
        """
        super().__init__()
        self.blocks = TopBlocks(plan, cut, layers, cache)
        self.cut, self.frozen_layers, self.width = cut, frozen_layers, self.blocks.source.width
        self.layers = (*frozen_layers, *self.blocks.layers)
        """Layers that :meth:`forward` can return, ascending."""

        if dropout is not None:
            self.blocks.set_dropout(dropout, dropout if attention_dropout is None else attention_dropout)
        self.blocks.set_attention()

    def forward(
        self,
        inputs: Tensor,
        lengths: Sequence[int],
        view: str,
        token_type_ids: Tensor | None = None,
        layers: Sequence[int] | None = None,
        seen: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Return a view of some texts, computed with the current weights.

        Args:
            inputs: ``[layer, token, width]``, stored states of the frozen layers and of the layer at the cut, which
                comes last, text after text; if the cut is "none", token ids ``[token]``.
            lengths: ``[text]``, tokens of each text, at least one.
            view: "tokens", or one of :data:`permafrost.extract.capture.pooling.POOLINGS`.
            token_type_ids: ``[token]``, with token ids; None if all texts have one segment.
            layers: some of :attr:`layers`; None returns all of them.
            seen: ``[text, 2]``, the range of each text's tokens that the view sees, end excluded; None if all.

        Returns:
            ``[layer, text, width]`` in float32, in the order given; of tokens, ``[layer, token, width]``.

        Raises:
            BackboneError: the states are not of this backbone, or hold NaN or infinity.
            SpecError: the blocks do not run in bfloat16, and autocast is on.
            ValueError: the lengths do not add up to the tokens of ``inputs``.
        """
        counts = np.asarray(lengths, np.int64)
        tokens = inputs.shape[0 if self.cut == "none" else 1]
        if counts.sum() != tokens or counts.min(initial=1) < 1:
            raise ValueError(f"{len(counts)} texts of {counts.sum()} tokens, and {tokens} tokens are given.")
        chosen = [self.layers.index(layer) for layer in (self.layers if layers is None else layers)]
        device = next(self.parameters()).device
        inputs, token_type_ids = inputs.to(device), None if token_type_ids is None else token_type_ids.to(device)
        rows = rows_of(counts, device, self.blocks.road.batching is Batching.EQUAL)
        outputs = []
        for row in rows:
            states = self._states(inputs, row, None if token_type_ids is None else token_type_ids[row.tokens])[chosen]
            outputs.append(states if view == TOKENS else _pool(states, row, view, seen))
        if view == TOKENS:
            order = torch.cat([row.tokens for row in rows])
        else:
            texts = np.concatenate([group.texts for row in rows for group in row.groups])
            order = to_device(texts, device)
        return torch.cat(outputs, 1).index_select(1, order.argsort())

    def _states(self, inputs: Tensor, row: Row, token_type_ids: Tensor | None) -> Tensor:
        """Return ``[layer, token, width]`` of :attr:`layers`."""
        at_cut = inputs[row.tokens] if self.cut == "none" else inputs[-1, row.tokens]
        try:
            states = self.blocks.run_row(at_cut, row, token_type_ids).float()
        except RuntimeError as error:
            if not torch.is_autocast_enabled(inputs.device.type) or "type" not in str(error):
                raise
            source = self.blocks.source
            raise SpecError(
                f"the blocks of '{source.name}', of the kind '{source.config['model_type']}', do not run in bfloat16 "
                f'({first_line(error)}); set train.compute_dtype = "float32".'
            ) from error
        if not self.frozen_layers:
            return states
        return torch.cat([inputs[: len(self.frozen_layers), row.tokens].float(), states])

    def save(self, folder: Path) -> None:
        """Write the whole model; see :meth:`permafrost.extract.finetuning.top_blocks.TopBlocks.save`."""
        self.blocks.save(folder)


def _pool(states: Tensor, row: Row, view: str, seen: NDArray[np.int64] | None) -> Tensor:
    """Pool ``[layer, token, width]`` of a row to ``[layer, text, width]``."""
    pooled = []
    for group in row.groups:
        mask = group.mask
        if seen is not None:
            first, end = to_device(seen[group.texts], mask.device).T[:, :, None]
            positions = torch.arange(mask.shape[1], device=mask.device)
            mask = (first <= positions) & (positions < end)
        pooled.append(POOLINGS[view](torch.stack([group.padded(layer) for layer in states]), mask))
    return torch.cat(pooled, 1)
