"""Top blocks: the trainable blocks of a backbone above a cut, run on the stored hidden states of the layer at the cut.

Blocks at or below the cut are dropped as soon as they are loaded: they never run, take no memory and have no dropout.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from permafrost.data.atomic import move_into_place, temporary_path
from permafrost.data.store.plan import CapturePlan, ExtractSpec, resolve_layers
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.file_digest import sample_of
from permafrost.extract.backbones.load import load_backbone
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.backbones.tokenizer import tokenizer_for_saving
from permafrost.extract.finetuning.cut import Cut, count_frozen
from permafrost.extract.finetuning.families import Family, family_of
from permafrost.extract.finetuning.varlen import Row


class TopBlocks(nn.Module):
    """Blocks ``cut + 1`` to the last layer asked for, in float32 and in evaluation mode.

    Parameters that frozen blocks share with trained ones (the position bias of MPNet) are frozen too, unless ``cut``
    is 0, because the stored states were computed with them.
    """

    def __init__(
        self,
        plan: CapturePlan,
        cut: Cut,
        layers: tuple[int, ...] | str = (-1,),
        cache: str = ExtractSpec.cache,
    ) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: layers that :meth:`forward` returns, as a plan names layers; all must be above the cut.
            cache: folder of the latent stores.

        Raises:
            BackboneError: the backbone is missing or incomplete, or its tokenizer cannot be saved with it.
            SpecError: the backbone has no such cut, a layer is not above it, or the plan keeps only a part of each
                text's tokens.
        """
        super().__init__()
        self.source: Source = find_backbone(plan, cache)
        self.family = family_of(self.source)
        self.cut = cut
        frozen = count_frozen(self.source, plan, cut)
        self.layers = resolve_layers(layers, range(frozen + 1, self.source.layers))
        """Layers of the output, ascending."""

        last = self.layers[-1]
        self.model = load_backbone(self.source, plan, "float32", "cpu").model
        self._plan, self._tokenizer = plan, tokenizer_for_saving(self.source)
        self._samples = {path: sample_of(path) for path in self.source.stamps}
        """Samples of the weight files as they were loaded."""

        final_norm = plan.final_norm and last == self.source.layers - 1
        cut_model(self.model, self.family, frozen, last, embeddings=cut == "none", final_norm=final_norm)
        self.eval()

    def forward(self, inputs: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the layers above the cut for some texts.

        Args:
            inputs: ``[text, token, width]``, states of the layer at the cut; if the cut is "none", token ids
                ``[text, token]``. Anything in padding.
            attention_mask: ``[text, token]``, False in padding, which is on the right.
            token_type_ids: ``[text, token]``, with token ids; None if all texts have one segment.

        Returns:
            ``[layer, text, token, width]`` for :attr:`layers`; the backbone's last layer is after the final norm if
            the plan says so. Anything finite in padding.

        Raises:
            BackboneError: the states are not of this backbone, hold NaN or infinity, or are not padded on the right.
        """
        arguments = self._model_inputs(inputs, attention_mask, token_type_ids)
        if (
            not self.source.architecture.causal and not attention_mask.all()
        ):  # a causal model sees nothing of later padding
            arguments["attention_mask"] = attention_mask
        return self._run_model(arguments)

    def in_one_row(self, inputs: Tensor, row: Row, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the layers above the cut for texts back to back.

        The model must use the attention of :func:`permafrost.extract.finetuning.varlen.register_attention`.

        Args:
            inputs: ``[token, width]`` in the order of ``row``, or token ids ``[token]``.
            token_type_ids: ``[token]``, with token ids; None if all texts have one segment.

        Returns:
            ``[layer, token, width]``.

        Raises:
            BackboneError: as :meth:`forward`.
        """
        mask = torch.ones(1, len(inputs), dtype=torch.bool, device=inputs.device)
        arguments = self._model_inputs(inputs[None], mask, None if token_type_ids is None else token_type_ids[None])
        positions = row.positions + (self.family.positions_unused if self.cut == "none" else 0)
        return self._run_model(arguments | {"position_ids": positions[None], "groups": row.groups})[:, 0]

    def save(self, folder: Path) -> None:
        """Write the whole model as an ordinary model folder with its tokenizer; the folder is complete or absent.

        Weights that were not trained are read again from where the backbone was loaded. A pooler is left out.

        Raises:
            BackboneError: ``folder`` exists, or the backbone's files changed since it was loaded.
            OSError: the folder could not be written; nothing is left behind.
        """
        if folder.exists():
            raise BackboneError(f"{folder} exists already, and a model is never written over; name another folder.")
        if any(not path.is_file() or sample_of(path) != sample for path, sample in self._samples.items()):
            raise BackboneError(
                f"{self.source.folder} has changed since its blocks were loaded for fine-tuning; put it back."
            )
        model = load_backbone(replace(self.source), self._plan, "float32", "cpu").model
        unexpected = model.load_state_dict(self.model.state_dict(), strict=False).unexpected_keys
        assert not unexpected, unexpected
        for key in ("activation_function", "hidden_act"):  # loaded under another name of the same function
            if key in self.source.config:
                setattr(model.config, key, self.source.config[key])
        with temporary_path(folder.parent) as temporary:
            model.save_pretrained(temporary)
            self._tokenizer.write(temporary)
            move_into_place(temporary, folder)

    def _run_model(self, arguments: dict[str, Any]) -> Tensor:
        """Return ``[layer, row, token, width]`` of :attr:`layers`."""
        if self.source.architecture.causal:
            arguments = arguments | {"use_cache": False}
        states: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, inputs: states.__setitem__(layer, inputs[0])

        blocks = self.model.get_submodule(self.family.blocks)
        handles = [
            block.register_forward_pre_hook(keep(int(name)))
            for name, block in blocks.named_children()
            if int(name) in self.layers
        ]
        try:
            states[self.layers[-1]] = self.model(**arguments)[0]
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack([states[layer] for layer in self.layers])

    def _model_inputs(self, inputs: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> dict[str, Any]:
        """Return the checked inputs as the model's arguments, with zeros in padding."""
        width, name = self.source.width, self.source.name
        if self.cut == "none" and (inputs.dim() != 2 or inputs.is_floating_point()):
            raise BackboneError(
                f"cut = \"none\" runs '{name}' from token ids [text, token], and was given {list(inputs.shape)} of "
                f"{inputs.dtype}."
            )
        if self.cut != "none" and (inputs.dim() != 3 or inputs.shape[2] != width):
            raise BackboneError(
                f"'{name}' has states [text, token, {width}], and these are {list(inputs.shape)}: take them of layer "
                f"{self.cut} of the same backbone."
            )
        if mask.shape != inputs.shape[:2]:
            raise BackboneError(f"these are {list(inputs.shape[:2])} tokens, and their mask is {list(mask.shape)}.")
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise BackboneError("a token comes after padding; pad texts on the right.")
        if self.cut != "none":
            states = inputs.float().masked_fill(~mask[:, :, None], 0)  # not times mask: 0 * nan is nan
            if not states.isfinite().all():
                raise BackboneError(
                    f"the states of layer {self.cut} of '{name}' hold NaN or infinity; extract them again."
                )
            return {"inputs_embeds": states}
        arguments = {"input_ids": inputs.long().masked_fill(~mask, 0)}
        if token_type_ids is not None and self.source.segments:
            arguments["token_type_ids"] = token_type_ids.long().masked_fill(~mask, 0)
        return arguments


def cut_model(model: nn.Module, family: Family, frozen: int, last: int, *, embeddings: bool, final_norm: bool) -> None:
    """Drop from a model, in place, everything but blocks ``frozen + 1`` to ``last``; make what is trained trainable.

    The rest stays the family's own model with its embeddings skipped, so that masks, positions and position biases are
    made as in the whole model, and every weight keeps its name.

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
