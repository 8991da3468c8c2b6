"""Top blocks: the trainable blocks of a backbone above a cut, run on the stored hidden states of the layer at the cut.

Blocks at or below the cut are dropped as soon as they are loaded: they never run, take no memory and have no dropout.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from permafrost.data.atomic import move_into_place, temporary_path
from permafrost.data.spec import SpecError
from permafrost.data.store.layers import resolve_layers
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.configuration import BackboneError
from permafrost.extract.backbones.file_digest import sample_of
from permafrost.extract.backbones.load import load_backbone, tokenizer_for_saving
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.finetuning.cut_model import cut_model
from permafrost.extract.finetuning.varlen import Row
from permafrost.extract.tokenization.tokenize import TEXT

Cut = int | Literal["none"]
"""Last layer whose states are frozen, 0 for the embeddings; "none" if nothing is frozen."""


class TopBlocks(nn.Module):
    """Blocks ``cut + 1`` to the last layer asked for, in float32 and in evaluation mode.

    Parameters that frozen blocks share with trained ones (the position bias of MPNet) are frozen too, unless ``cut``
    is 0, because the stored states were computed with them.
    """

    def __init__(self, plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,)) -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: layers that :meth:`forward` returns, as a plan names layers; all must be above the cut.

        Raises:
            BackboneError: the backbone is missing or incomplete, or its tokenizer cannot be saved with it.
            SpecError: the backbone has no such cut, a layer is not above it, or the plan keeps only a part of each
                text's tokens.
        """
        super().__init__()
        self.source: Source = find_backbone(plan)
        self.cut = cut
        frozen = _count_frozen(self.source, plan, cut)
        self.layers = resolve_layers(layers, range(frozen + 1, self.source.layers))
        """Layers of the output, ascending."""

        last = self.layers[-1]
        self.model = load_backbone(self.source, plan, "float32", "cpu").model
        self._plan, self._tokenizer = plan, tokenizer_for_saving(self.source)
        self._samples = {path: sample_of(path) for path in self.source.stamps}
        """Samples of the weight files as they were loaded."""

        cut_model(
            self.model,
            self.source.family,
            frozen,
            last,
            embeddings=cut == "none",
            final_norm=plan.final_norm and last == self.source.layers - 1,
        )
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
        if not self.source.family.causal and not attention_mask.all():  # a causal model sees nothing of later padding
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
        positions = row.positions + (self.source.family.positions_unused if self.cut == "none" else 0)
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
        if self.source.family.causal:
            arguments = arguments | {"use_cache": False}
        states: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, inputs: states.__setitem__(layer, inputs[0])

        blocks = self.model.get_submodule(self.source.family.blocks)
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
        if self.cut != "none":
            return {"inputs_embeds": self._checked_states(inputs, mask)}
        arguments = {"input_ids": self._checked_ids(inputs, mask)}
        if token_type_ids is not None and self.source.segments:
            arguments["token_type_ids"] = token_type_ids.long().masked_fill(~mask, 0)
        return arguments

    def _checked_states(self, states: Tensor, mask: Tensor) -> Tensor:
        width, name = self.source.width, self.source.name
        if states.dim() != 3 or states.shape[2] != width:
            raise BackboneError(
                f"'{name}' has states [text, token, {width}], and these are {list(states.shape)}: take them of layer "
                f"{self.cut} of the same backbone."
            )
        _check_mask(mask, states)
        states = states.float().masked_fill(~mask[:, :, None], 0)  # not times mask: 0 * nan is nan
        if not states.isfinite().all():
            raise BackboneError(f"the states of layer {self.cut} of '{name}' hold NaN or infinity; extract them again.")
        return states

    def _checked_ids(self, ids: Tensor, mask: Tensor) -> Tensor:
        if ids.dim() != 2 or ids.is_floating_point():
            raise BackboneError(
                f"cut = \"none\" runs '{self.source.name}' from token ids [text, token], and was given "
                f"{list(ids.shape)} of {ids.dtype}."
            )
        _check_mask(mask, ids)
        return ids.long().masked_fill(~mask, 0)


def check_cut(plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,)) -> None:
    """Raise what :class:`TopBlocks` would raise for the same arguments, without reading weights."""
    source = find_backbone(plan)
    frozen = _count_frozen(source, plan, cut)
    try:
        resolve_layers(layers, range(frozen + 1, source.layers))
    except SpecError as error:
        raise SpecError(f"a probe reads layers above the cut, {cut}: {error}") from None


def _count_frozen(source: Source, plan: CapturePlan, cut: Cut) -> int:
    """Return the number of frozen blocks; raise :class:`SpecError` if the backbone cannot be cut there."""
    blocks = source.layers - 1
    if cut != "none" and not 0 <= cut < blocks:
        raise SpecError(
            f"finetune.cut = {cut}, but '{source.name}' has {blocks} blocks: a cut lies from 0, which freezes the "
            f'embeddings alone, to {blocks - 1}, or is "none".'
        )
    if plan.template.count(TEXT) > 1:
        raise SpecError(
            "plan.template names {text} twice, so only the second occurrence is pooled, but fine-tuned blocks run on "
            "both; name it once."
        )
    return 0 if cut == "none" else cut


def _check_mask(mask: Tensor, inputs: Tensor) -> None:
    if mask.shape != inputs.shape[:2]:
        raise BackboneError(f"these are {list(inputs.shape[:2])} tokens, and their mask is {list(mask.shape)}.")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise BackboneError("a token comes after padding; pad texts on the right.")
