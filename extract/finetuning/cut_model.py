"""Cut model: the blocks of a model above a layer, entered by given hidden states in place of those from below.

The model's own forward pass is run, so masks, positions, rotary embeddings and position biases are made as in the whole
model. No kind of model is named: whether a model can be cut so is proven in
:mod:`permafrost.extract.finetuning.cut_proof`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.architecture.discover import PositionTables, Stop, hidden_states, stoppable
from permafrost.extract.architecture.small_config import special_ids
from permafrost.extract.attention.varlen import Row, register_attention
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.finetuning.cut import Batching, Cut, CutRoad
from permafrost.extract.finetuning.dropout import set_dropout
from permafrost.extract.finetuning.skipped_blocks import SkippedBlock, recorded_calls, skip_blocks, with_states

TRIED_TOKENS = 13
"""Tokens of the text that is run to see the calls of a model; no width, and no number of heads."""


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
            SpecError: every parameter above the cut is also used below it, or the model changes its weights itself.
        """
        super().__init__()
        self.model: Any = backbone.model
        self.source, self.cut, self.layers, self.road = backbone.source, cut, layers, road
        self._architecture, self._frozen = self.source.architecture, 0 if cut == "none" else cut
        special = special_ids(self.source.config)
        self._any_token = next(token for token in range(len(special) + 1) if token not in special)
        is_top = layers[-1] == self._architecture.layers - 1
        self._ends_with_model = is_top and (final_norm or not self._architecture.chained)
        for module in self.model.modules():
            if hasattr(module, "layerdrop"):
                module.layerdrop = 0.0  # no block is skipped at random in training
        versions = [weight._version for weight in self.model.parameters()]
        one_text = {"input_ids": self._any_ids(1, TRIED_TOKENS), **self._without_cache()}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            with PositionTables(TRIED_TOKENS) as tables, recorded_calls(backbone.blocks) as calls:
                self.model(**one_text)
            self.model.train()(**one_text)
        self.model.eval()
        if versions != [weight._version for weight in self.model.parameters()]:
            raise self._refusal("the model itself changes its weights when it is run", '"frozen"')
        self._first_position = tables.first
        below = {weight for call in calls[: self._frozen] for weight in call.block.parameters()}
        self._blocks = skip_blocks(self.model, calls, range(self._frozen, layers[-1]), road.runs_first)
        if not self._ends_with_model:
            for path in self._architecture.tail:
                self.model.set_submodule(path, nn.Identity(), strict=True)
        above = [call.block for call in calls[self._frozen : layers[-1]]]
        tail = [self.model.get_submodule(path) for path in self._architecture.tail]
        self._trained = [self.model] if cut == "none" else [*above, *tail]
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
        padded = not self._architecture.causal  # which sees nothing of later padding
        if padded and (attention_mask.device.type != "cpu" or not attention_mask.all()):
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
                outputs.append(group.packed_layers(self(group.padded(inputs), group.mask, segments)))
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
            reason = "they share their weights, so those above a layer cannot change while those below it stay"
            raise self._refusal(reason, '0 or "none"')
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

    def _refusal(self, reason: str, others: str) -> SpecError:
        return SpecError(
            f"finetune.cut: the blocks of '{self.source.name}', of the kind '{self.source.config['model_type']}', "
            f"cannot be trained: {reason}. Set finetune.cut = {others}."
        )

    def _try_out(self) -> Tensor:
        """Return what comes of one text of any states."""
        device = next(self.model.parameters()).device
        mask = torch.ones(1, TRIED_TOKENS, dtype=torch.bool, device=device)
        states = torch.randn(1, TRIED_TOKENS, self.source.width, device=device)
        found: Tensor = self(self._any_ids(1, TRIED_TOKENS) if self.cut == "none" else states, mask)
        return found

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
                raise Stop

        def enter(_: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
            layer = next(entered)
            if given is not None and layer == self._frozen:
                return with_states(positional, named, self._texts_first(given))
            keep(layer, [*positional, named])
            return positional, named

        def leave(_: nn.Module, arguments: Any, output: Any) -> None:
            layer = next(left)
            if layer == 1 and self.road.runs_first:
                for block in self._blocks:
                    if isinstance(block, SkippedBlock):
                        block.output = output
            if layer == self._architecture.layers - 1 == last and not self._ends_with_model:
                keep(layer, output)

        handles = [
            block.register_forward_pre_hook(enter, with_kwargs=True, prepend=True) for block in self._blocks
        ]  # first, so that others see the states given
        handles += [block.register_forward_hook(leave) for block in self._blocks]
        if self._ends_with_model:
            handles.append(self.model.register_forward_hook(lambda _, __, output: kept.setdefault(last, output[0])))
        with stoppable(handles):
            yield

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
        on_cpu = mask.device.type == "cpu"  # a GPU would wait; there the loss shows what is not finite
        if on_cpu and (mask[:, 1:] & ~mask[:, :-1]).any():
            raise BackboneError("a token comes after padding; pad texts on the right.")
        if self.cut != "none":
            states = inputs.float().masked_fill(~mask[:, :, None], 0)  # not times mask: 0 * nan is nan
            if on_cpu and not states.isfinite().all():
                raise BackboneError(
                    f"the states of layer {self.cut} of '{name}' hold NaN or infinity; extract them again."
                )
            return states, {"input_ids": self._any_ids(*mask.shape)}
        arguments = {"input_ids": inputs.long().masked_fill(~mask, 0)}
        if token_type_ids is not None and self.source.segments:
            arguments["token_type_ids"] = token_type_ids.long().masked_fill(~mask, 0)
        return None, arguments
