"""Cut model: the blocks of a model above a layer, entered by given hidden states in place of those from below.

The model's own forward pass is run, so masks, positions, rotary embeddings and position biases are made as in the whole
model. No kind of model is named: whether a model can be cut so is proven in
:mod:`permafrost.extract.finetuning.cut_proof`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import PositionTables, hidden_states
from permafrost.extract.architecture.small_config import special_ids
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.finetuning.dropout import set_dropout
from permafrost.extract.finetuning.varlen import Row, register_attention

Cut = int | Literal["none"]
"""Last layer whose states are frozen, 0 for the embeddings; "none" if nothing is frozen."""

TRIED_TOKENS = 13
"""Tokens of the text that is run to see the calls of a model; no width, and no number of heads."""


class Batching(StrEnum):
    """How texts of unequal length share a forward pass."""

    ROWS = "back to back"
    """In one row without padding; attention is kept within each text."""

    PADDED = "padded"
    """In groups of similar length, padding on the right; masked, unless the model is causal."""

    EQUAL = "equal lengths"
    """In groups of one length."""


@dataclass(frozen=True, kw_only=True)
class CutRoad:
    """How the blocks above a cut are run."""

    batching: Batching
    runs_first: bool = False
    """Whether the first block is run too, on any states, for what it hands to all others (the position bias of T5)."""


@dataclass(frozen=True)
class _Call:
    """Call of a block in the forward pass of the whole model."""

    block: nn.Module
    returned: int | None
    """Number of values that it returned in a tuple; None if it returned hidden states alone."""


class CutModel(nn.Module):
    """Model without the blocks below a cut and above the last layer asked for, in evaluation mode.

    Parameters that frozen blocks share with trained ones (the position bias of MPNet) are frozen too, unless ``cut``
    is 0, because the stored states were computed with them. What is frozen is no parameter, and not in a state dict.
    """

    def __init__(self, backbone: Backbone, cut: Cut, layers: tuple[int, ...], final_norm: bool, road: CutRoad) -> None:
        """Cut the model of a backbone in place.

        Args:
            layers: layers of the output, ascending, all above the cut.
            final_norm: take the backbone's last layer after its final norm.

        Raises:
            SpecError: every parameter above the cut is also used below it.
        """
        super().__init__()
        self.model: Any = backbone.model
        self.source, self.cut, self.layers, self.road = backbone.source, cut, layers, road
        self._architecture, self._frozen = self.source.architecture, 0 if cut == "none" else cut
        special = special_ids(self.source.config)
        self._any_token = next(token for token in range(len(special) + 1) if token not in special)
        is_top = layers[-1] == self._architecture.layers - 1
        self._ends_with_model = is_top and (final_norm or not self._architecture.chained)
        self._first_position = 0
        calls = self._record_calls(backbone)
        below = {weight for call in calls[: self._frozen] for weight in call.block.parameters()}
        self._blocks = self._skip_blocks(calls)
        if not self._ends_with_model:
            for path in self._architecture.tail:
                self.model.set_submodule(path, nn.Identity(), strict=True)
        above = [call.block for call in calls[self._frozen : layers[-1]]]
        self._trained = [self.model] if cut == "none" else [*above, *self._tail()]
        self._freeze(below)
        self.eval()

    def forward(self, inputs: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the layers above the cut for some texts, with the model's own attention.

        Args:
            inputs: ``[text, token, width]``, states of the layer at the cut; if the cut is "none", token ids
                ``[text, token]``. Anything in padding.
            attention_mask: ``[text, token]``, False in padding, which is on the right.
            token_type_ids: ``[text, token]``, with token ids; None if all texts have one segment.

        Returns:
            ``[layer, text, token, width]`` for :attr:`layers`. Anything finite in padding.

        Raises:
            BackboneError: the states are not of this backbone, hold NaN or infinity, or are not padded on the right.
        """
        states, arguments = self._model_inputs(inputs, attention_mask, token_type_ids)
        if not self._architecture.causal and not attention_mask.all():  # a causal model sees nothing of later padding
            arguments["attention_mask"] = attention_mask.long()
        return self._run(states, arguments)

    def run_row(self, inputs: Tensor, row: Row, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the layers above the cut for texts back to back, after :meth:`set_attention`.

        Args:
            inputs: ``[token, width]`` in the order of ``row``, or token ids ``[token]``.
            token_type_ids: ``[token]``, with token ids; None if all texts have one segment.

        Returns:
            ``[layer, token, width]``.

        Raises:
            BackboneError: as :meth:`forward`.
        """
        if self.road.batching is not Batching.ROWS:
            outputs = []
            for group in row.groups:
                segments = None if token_type_ids is None else group.padded(token_type_ids)
                outputs.append(self(group.padded(inputs), group.mask, segments)[:, group.mask])
            return torch.cat(outputs, 1)
        mask = torch.ones(1, len(inputs), dtype=torch.bool, device=inputs.device)
        segments = None if token_type_ids is None else token_type_ids[None]
        states, arguments = self._model_inputs(inputs[None], mask, segments)
        positions = row.positions + (self._first_position if self.cut == "none" else 0)
        return self._run(states, arguments | {"position_ids": positions[None], "groups": row.groups})[:, 0]

    def set_attention(self) -> None:
        """Give the model the attention with which :meth:`run_row` runs it."""
        if self.road.batching is Batching.ROWS:
            self.model.set_attn_implementation(register_attention())

    def set_dropout(self, hidden: float, attention: float) -> None:
        """Set other dropout probabilities than the configuration's: of hidden states, and of attention weights."""
        set_dropout(self.model, hidden, attention, self._try_out, TRIED_TOKENS)

    def train(self, mode: bool = True) -> "CutModel":
        """Set training or evaluation mode; what is below the cut stays in evaluation mode."""
        super().train(False)
        for module in self._trained:
            module.train(mode)
        self.training = mode
        return self

    def _record_calls(self, backbone: Backbone) -> list[_Call]:
        """Return the calls of blocks of one forward pass, in order."""
        calls: list[_Call] = []

        def leave(block: nn.Module, arguments: Any, output: Any) -> None:
            calls.append(_Call(block, len(output) if isinstance(output, tuple) else None))

        handles = [block.register_forward_hook(leave) for block in backbone.blocks]
        try:
            with torch.no_grad(), PositionTables() as tables:
                self.model(**self._without_cache(), input_ids=self._any_ids(1, TRIED_TOKENS))
        finally:
            for handle in handles:
                handle.remove()
        self._first_position = tables.first
        return calls

    def _skip_blocks(self, calls: list[_Call]) -> list[nn.Module]:
        """Replace the blocks that are not trained; return the distinct blocks of the cut model."""
        kept = {call.block for call in calls[self._frozen : self.layers[-1]]}
        first = calls[0].block if self.road.runs_first else None
        paths = {module: path for path, module in self.model.named_modules()}
        blocks: dict[nn.Module, nn.Module] = {}
        for call in calls:
            if call.block not in blocks and call.block not in kept and call.block is not first:
                blocks[call.block] = _SkippedBlock(call, repeats=first is not None)
                self.model.set_submodule(paths[call.block], blocks[call.block], strict=True)
            blocks.setdefault(call.block, call.block)
        return list(blocks.values())

    def _tail(self) -> list[nn.Module]:
        return [self.model.get_submodule(path) for path in self._architecture.tail]

    def _freeze(self, below: set[nn.Parameter]) -> None:
        """Let the parameters learn that blocks below the cut do not use; all others become constants.

        Args:
            below: parameters of the blocks below the cut.
        """
        self.model.requires_grad_(True)
        if self.cut == "none":
            return
        trained = {weight for module in self._trained for weight in module.parameters()} - below
        if not trained:
            raise SpecError(
                f"finetune.cut: the blocks of '{self.source.name}', of the kind '{self.source.config['model_type']}', "
                "share their weights, so those above a layer cannot change while those below it stay; set "
                'finetune.cut = 0 or "none".'
            )
        if self.cut == 0:  # nothing was computed with what embeddings do not use
            others = [weight for weight in self.model.parameters() if weight not in trained]
            with torch.enable_grad():
                gradients = torch.autograd.grad(self._try_out().sum(), others, allow_unused=True)
            trained |= {weight for weight, gradient in zip(others, gradients, strict=True) if gradient is not None}
        table = self.model.get_input_embeddings()
        for module in self.model.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight not in trained:
                    values = weight.detach()
                    if module is table and isinstance(module, nn.Embedding):  # no other token is looked up
                        values, module.padding_idx = values[: self._any_token + 1].clone(), None
                    delattr(module, name)
                    module.register_buffer(name, values, persistent=False)

    def _try_out(self) -> Tensor:
        """Return what comes of one text of any states."""
        device = next(self.model.parameters()).device
        mask = torch.ones(1, TRIED_TOKENS, dtype=torch.bool, device=device)
        states = torch.randn(1, TRIED_TOKENS, self.source.width, device=device)
        return self(self._any_ids(1, TRIED_TOKENS) if self.cut == "none" else states, mask)

    def _any_ids(self, texts: int, tokens: int) -> Tensor:
        """Return ``[text, token]``, ids of a token that is not special: hidden states come in their place."""
        return torch.full((texts, tokens), self._any_token, device=next(self.model.parameters()).device)

    def _without_cache(self) -> dict[str, Any]:
        return {"use_cache": False} if "use_cache" in inspect.signature(self.model.forward).parameters else {}

    def _run(self, states: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        """Return ``[layer, row, token, width]`` of :attr:`layers`; ``states`` enter the first block above the cut."""
        kept: dict[int, Tensor] = {}
        with self._tapped(states, kept):
            self.model(**self._without_cache(), **arguments)
        return torch.stack([kept[layer] for layer in self.layers])

    @contextmanager
    def _tapped(self, given: Tensor | None, kept: dict[int, Tensor]) -> Iterator[None]:
        """Replace what enters the first block above the cut; keep the layers asked for, and run nothing above them."""
        entered, left, last = count(), count(1), self.layers[-1]

        def keep(layer: int, values: Any) -> None:
            if layer in self.layers:
                kept[layer] = self._texts_first(hidden_states(values))
            if layer == last:
                raise _Stop

        def enter(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
            layer = next(entered)
            if given is not None and layer == self._frozen:
                return _with_states(positional, named, self._texts_first(given))
            keep(layer, [*positional, named])
            return positional, named

        def leave(_: nn.Module, arguments: Any, output: Any) -> None:
            layer = next(left)
            if layer == 1 and self.road.runs_first:
                for block in self._blocks:
                    if isinstance(block, _SkippedBlock):
                        block.output = output
            if layer == self._architecture.layers - 1 == last and not self._ends_with_model:
                keep(layer, output)

        handles = [
            block.register_forward_pre_hook(enter, with_kwargs=True, prepend=True) for block in self._blocks
        ]  # first, so that others see the states given
        handles += [block.register_forward_hook(leave) for block in self._blocks]
        if self._ends_with_model:
            handles.append(self.model.register_forward_hook(lambda _, __, output: kept.setdefault(last, output[0])))
        try:
            with suppress(_Stop):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _texts_first(self, states: Tensor) -> Tensor:
        return states.transpose(0, 1) if self._architecture.tokens_first else states

    def _model_inputs(
        self, inputs: Tensor, mask: Tensor, token_type_ids: Tensor | None
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Return the checked inputs, with zeros in padding: states at the cut, and arguments of the model."""
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
            return states, {"input_ids": self._any_ids(*mask.shape)}
        arguments = {"input_ids": inputs.long().masked_fill(~mask, 0)}
        if token_type_ids is not None and self.source.segments:
            arguments["token_type_ids"] = token_type_ids.long().masked_fill(~mask, 0)
        return None, arguments


class _Stop(Exception):  # noqa: N818  no error
    """Ends a forward pass above the last layer that is asked for."""


class _SkippedBlock(nn.Module):
    """Replacement of a block that is not run: returns the states that it is given, or what the first block returned."""

    def __init__(self, call: _Call, repeats: bool) -> None:
        super().__init__()
        settings = {key: value for key, value in vars(call.block).items() if not key.startswith("_")}
        self.__dict__.update(settings)  # the type of its attention, which the model asks for
        self._returned, self._repeats = call.returned, repeats
        self.output: Any = None
        """What the first block returned."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._repeats:
            return self.output
        states = hidden_states([*args, kwargs])
        return states if self._returned is None else (states, *[None] * (self._returned - 1))


def _with_states(
    positional: tuple[Any, ...], named: dict[str, Any], states: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a block with other hidden states."""
    old = hidden_states([*positional, named])
    return (
        tuple(states if value is old else value for value in positional),
        {name: states if value is old else value for name, value in named.items()},
    )
