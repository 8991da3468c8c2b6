"""Cut models: a whole backbone reduced to the blocks above a cut, and which of its parameters are trained.

The rest stays the family's own model with its embeddings skipped, so that masks, positions and position biases are
made as in the whole model, and every weight keeps its name.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from permafrost.extract.backbones.families import Family


def cut_model(model: nn.Module, family: Family, frozen: int, last: int, *, embeddings: bool, final_norm: bool) -> None:
    """Drop from a model, in place, everything but blocks ``frozen + 1`` to ``last``; make what is trained trainable.

    Args:
        embeddings: whether the embeddings stay, so that the model runs from token ids.
        final_norm: whether the norm after the last block stays.
    """
    if not embeddings:
        for path in family.embeddings:
            model.set_submodule(path, _SkippedEmbeddings(), strict=True)
    if family.final_norm and not final_norm:
        model.set_submodule(family.final_norm, nn.Identity(), strict=True)
    kept = list(model.get_submodule(family.blocks).children())[frozen:last]
    model.set_submodule(family.blocks, _numbered(kept, frozen), strict=True)
    for module in _trained_modules(model, family, frozen):
        module.requires_grad_(True)


def set_dropout(model: nn.Module, family: Family, hidden: float, attention: float) -> None:
    """Set other dropout probabilities than the configuration's: of hidden states, and of attention weights."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = hidden
    path, _, name = family.attention_dropout.rpartition(".")
    for block in model.get_submodule(family.blocks).children():
        owner = block.get_submodule(path)
        if isinstance(getattr(owner, name), nn.Dropout):
            getattr(owner, name).p = attention
        else:
            setattr(owner, name, attention)


class _SkippedEmbeddings(nn.Module):
    """Replacement of an embedding module: returns the hidden states among its inputs, and adds zero for positions."""

    def forward(self, *args: Tensor | None, **kwargs: Tensor | None) -> Tensor:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        states = (tensor for tensor in tensors if tensor.is_floating_point())
        return next(states, tensors[0].new_zeros((), dtype=torch.float32))


def _numbered(blocks: Sequence[nn.Module], first: int) -> nn.ModuleList:
    """Return a list of blocks under the numbers that they have in the whole model."""
    numbered = nn.ModuleList()
    for number, block in enumerate(blocks, first):
        numbered.add_module(str(number), block)
    return numbered


def _trained_modules(model: nn.Module, family: Family, frozen: int) -> list[nn.Module]:
    if not frozen:
        return [model]
    norm = [model.get_submodule(family.final_norm)] if family.final_norm else []
    return [model.get_submodule(family.blocks), *norm]
