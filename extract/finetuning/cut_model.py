"""Cut models: a whole backbone reduced to the blocks above a cut, and which of its parameters are trained.

The rest stays the family's own model with its embeddings skipped, so that masks, positions and position biases are
made as in the whole model, and every weight keeps its name.
"""

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
    blocks = nn.ModuleList()
    for number, block in enumerate(list(model.get_submodule(family.blocks).children())[frozen:last], frozen):
        blocks.add_module(str(number), block)  # the number that it has in the whole model
    model.set_submodule(family.blocks, blocks, strict=True)
    trained = filter(None, (family.blocks, family.final_norm)) if frozen else [""]
    for path in trained:
        model.get_submodule(path).requires_grad_(True)


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
