"""Upper blocks: a backbone from a cut on, trainable, fed with the states that stage one cached of the cut.

What lies at or below the cut is dropped as soon as it is loaded: it never runs, takes no memory, and has no dropout.
The rest stays the family's own model, with its embeddings passed over, so that masks, positions and position biases are
made where they always are, and every weight keeps the name it has in the whole model.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from permafrost.data.atomic import TEMPORARY_SUFFIX
from permafrost.data.spec import SpecError
from permafrost.data.store.layers import resolve_layers
from permafrost.data.store.plan import CapturePlan
from permafrost.extract.backbones.configuration import BackboneError
from permafrost.extract.backbones.families import Family
from permafrost.extract.backbones.file_digest import sample_of
from permafrost.extract.backbones.load import load, tokenizer_beside
from permafrost.extract.backbones.locate import Source, find
from permafrost.extract.finetuning.varlen import Row
from permafrost.extract.tokenization.tokenize import TEXT

Cut = int | Literal["none"]
"""The last layer whose states are frozen, 0 for the embeddings; "none" where nothing is."""


class TopBlocks(nn.Module):
    """Blocks ``cut + 1`` to the last layer asked for, in float32; built in evaluation mode, as every backbone is.

    What frozen blocks share with trained ones (the position bias of MPNet) is frozen too, but for ``cut = 0``: the
    cached states come of it.
    """

    def __init__(self, plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,), device: str = "cpu") -> None:
        """Load the backbone of ``plan``, and drop what is not trained.

        Args:
            layers: what :meth:`forward` gives, as a plan names layers; all of them above the cut.

        Raises:
            BackboneError: the backbone is not here or not whole, or its tokenizer cannot be saved beside it.
            SpecError: the cut is none of this backbone, a layer is not above it, or the plan keeps a part of each
                text's tokens only.
        """
        super().__init__()
        self.source: Source = find(plan)
        self.plan, self.cut = plan, cut
        frozen = _check(self.source, plan, cut)
        self.layers = resolve_layers(layers, range(frozen + 1, self.source.layers))
        """Layers of the output, ascending."""

        family, last = self.source.family, self.layers[-1]
        self.model = load(self.source, plan, "float32", "cpu").model
        self._tokenizer = tokenizer_beside(self.source)
        self._samples = {path: sample_of(path) for path in self.source.stamps}
        if cut != "none":
            for path in family.embeddings:
                self.model.set_submodule(path, _PassedOver(), strict=True)
        if family.final_norm and not (plan.final_norm and last == self.source.layers - 1):
            self.model.set_submodule(family.final_norm, nn.Identity(), strict=True)
        kept = list(self.model.get_submodule(family.blocks).children())[frozen:last]
        self.model.set_submodule(family.blocks, _numbered(kept, frozen), strict=True)
        for part in self._trained(family, frozen):
            part.requires_grad_(True)
        self.eval().to(device)

    def _trained(self, family: Family, frozen: int) -> list[nn.Module]:
        if not frozen:
            return [self.model]
        norm = [self.model.get_submodule(family.final_norm)] if family.final_norm else []
        return [self.model.get_submodule(family.blocks), *norm]

    def forward(self, below: Tensor, real: Tensor, kinds: Tensor | None = None) -> Tensor:
        """The layers above the cut, of some texts.

        Args:
            below: ``[text, token, width]``, the states of the layer at the cut, every token of each text; where the cut
                is "none", token ids ``[text, token]``. Anything in padding.
            real: ``[text, token]``, false in padding, which lies on the right.
            kinds: ``[text, token]``, which of two segments a token counts to, for token ids; None where there is one.

        Returns:
            ``[layer, text, token, width]`` for :attr:`layers`; the last layer of all is after the final norm where the
            plan says so. Anything finite in padding.

        Raises:
            BackboneError: the states are not of this backbone, hold NaN or infinity, or are not padded on the right.
        """
        inputs: dict[str, Any]
        if self.cut != "none":
            inputs = {"inputs_embeds": self._states(below, real)}
        else:
            inputs = {"input_ids": self._ids(below, real)}
            if kinds is not None and self.source.segments:
                inputs["token_type_ids"] = kinds.long().masked_fill(~real, 0)
        if not self.source.family.causal and not real.all():  # a causal one sees nothing of what comes after
            inputs["attention_mask"] = real
        return self._layers(inputs)

    def in_one_row(self, below: Tensor, row: Row, kinds: Tensor | None = None) -> Tensor:
        """The layers above the cut, of texts back to back; the model must have been told of :func:`attention_name`.

        Args:
            below: ``[token, width]`` in the order of ``row``, or token ids ``[token]``.
            kinds: ``[token]``, for token ids.

        Returns:
            ``[layer, token, width]``.

        Raises:
            BackboneError: as :meth:`forward`.
        """
        real = torch.ones(1, len(below), dtype=torch.bool, device=below.device)
        positions = row.positions
        if self.cut != "none":
            inputs = {"inputs_embeds": self._states(below[None], real)}
        else:
            inputs = {"input_ids": self._ids(below[None], real)}
            positions = positions + self.source.family.positions_unused
            if kinds is not None and self.source.segments:
                inputs["token_type_ids"] = kinds[None].long()
        return self._layers(inputs | {"position_ids": positions[None], "groups": row.groups})[:, 0]

    def _layers(self, inputs: dict[str, Any]) -> Tensor:
        """``[layer, row, token, width]`` of what the model is told."""
        if self.source.family.causal:
            inputs = inputs | {"use_cache": False}
        taken: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, given: taken.__setitem__(layer, given[0])

        blocks = self.model.get_submodule(self.source.family.blocks)
        handles = [
            block.register_forward_pre_hook(keep(int(name)))
            for name, block in blocks.named_children()
            if int(name) in self.layers
        ]
        try:
            taken[self.layers[-1]] = self.model(**inputs)[0]
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack([taken[layer] for layer in self.layers])

    def set_dropout(self, hidden: float, attention: float) -> None:
        """Drop other shares than the configuration says: of hidden states, and of the weights of attention."""
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = hidden
        family = self.source.family
        path, _, name = family.attention_dropout.rpartition(".")
        for block in self.model.get_submodule(family.blocks).children():
            part = block.get_submodule(path)
            if isinstance(getattr(part, name), nn.Dropout):
                getattr(part, name).p = attention
            else:
                setattr(part, name, attention)

    def save(self, folder: Path) -> None:
        """Write the whole model, with what was trained in its place, as a model folder with its tokenizer.

        What was not trained is read again from where it was loaded. A pooler is left out, as everywhere. The folder is
        whole or absent.

        Raises:
            BackboneError: there is something at ``folder``, or the backbone is no longer what it was.
            OSError: it could not be written; nothing is left behind.
        """
        if folder.exists():
            raise BackboneError(f"{folder} exists already, and a model is never written over; name another folder.")
        if any(not path.is_file() or sample_of(path) != sample for path, sample in self._samples.items()):
            raise BackboneError(f"{self.source.folder} is no longer the model whose blocks learnt; put it back.")
        whole = load(replace(self.source), self.plan, "float32", "cpu").model
        strange = whole.load_state_dict(self.model.state_dict(), strict=False).unexpected_keys
        assert not strange, strange
        for key in ("activation_function", "hidden_act"):  # loaded as another name of the same function
            if key in self.source.config:
                setattr(whole.config, key, self.source.config[key])
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.parent / f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
        try:
            whole.save_pretrained(temporary)
            self._tokenizer.write(temporary)
            for path in temporary.iterdir():
                with open(path, "r+b") as file:
                    os.fsync(file.fileno())
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _states(self, below: Tensor, real: Tensor) -> Tensor:
        width, name = self.source.width, self.source.name
        if below.dim() != 3 or below.shape[2] != width:
            raise BackboneError(
                f"'{name}' has states [text, token, {width}], and these are {list(below.shape)}: take them of layer "
                f"{self.cut} of the same backbone."
            )
        _check_real(real, below)
        states = below.float().masked_fill(~real[:, :, None], 0)  # not times real: 0 * nan is nan
        if not states.isfinite().all():
            raise BackboneError(f"the states of layer {self.cut} of '{name}' hold NaN or infinity; extract them again.")
        return states

    def _ids(self, below: Tensor, real: Tensor) -> Tensor:
        if below.dim() != 2 or below.is_floating_point():
            raise BackboneError(
                f"cut = \"none\" runs '{self.source.name}' from token ids [text, token], and was given "
                f"{list(below.shape)} of {below.dtype}."
            )
        _check_real(real, below)
        return below.long().masked_fill(~real, 0)


def check_cut(plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,)) -> None:
    """Raise what :class:`TopBlocks` would of the same arguments, by the backbone's configuration alone."""
    source = find(plan)
    frozen = _check(source, plan, cut)
    try:
        resolve_layers(layers, range(frozen + 1, source.layers))
    except SpecError as error:
        raise SpecError(f"a probe reads layers above the cut, {cut}: {error}") from None


class _PassedOver(nn.Module):
    """In the place of embeddings: gives back the states among what it is told, and adds nothing for positions."""

    def forward(self, *given: Tensor | None, **named: Tensor | None) -> Tensor:
        told = [one for one in (*given, *named.values()) if isinstance(one, Tensor)]
        return next((one for one in told if one.is_floating_point()), told[0].new_zeros((), dtype=torch.float32))


def _numbered(blocks: Sequence[nn.Module], first: int) -> nn.ModuleList:
    """Blocks under the numbers that they have in the whole model."""
    found = nn.ModuleList()
    for number, block in enumerate(blocks, first):
        found.add_module(str(number), block)
    return found


def _check(source: Source, plan: CapturePlan, cut: Cut) -> int:
    """How many blocks are frozen."""
    blocks = source.layers - 1
    if cut != "none" and not 0 <= cut < blocks:
        raise SpecError(
            f"finetune.cut = {cut}, but '{source.name}' has {blocks} blocks: a cut lies from 0, which freezes the "
            f'embeddings alone, to {blocks - 1}, or is "none".'
        )
    if plan.template.count(TEXT) > 1:
        raise SpecError(
            "plan.template names {text} twice, so a view is of the second alone, and blocks that learn run on the "
            "tokens of both; name it once."
        )
    return 0 if cut == "none" else cut


def _check_real(real: Tensor, below: Tensor) -> None:
    if real.shape != below.shape[:2]:
        raise BackboneError(f"these are {list(below.shape[:2])} tokens, and their mask is {list(real.shape)}.")
    if (real[:, 1:] & ~real[:, :-1]).any():
        raise BackboneError("a token comes after padding; pad texts on the right.")
