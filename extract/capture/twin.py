"""A model in float64 that structure can be proven on: a small twin of a backbone, or a copy of it.

What a forward pass does wrong with masks, positions, padding or layers, it does on the twin too: the same classes with
the same configuration, but for two blocks of each layer type, a small vocabulary, a narrow feed-forward part, which
looks at one token at a time, and weights that are drawn.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from permafrost.extract.backbones.load import Backbone, untrained
from permafrost.extract.backbones.locate import Source

VOCABULARY, INNER_WIDTH = 64, 64

BLOCKS = 2
"""Of each layer type."""


class Float64(TorchFunctionMode):
    """Keeps a float64 model in float64 where its code asks for float32 by name: norms, softmax, rotary tables."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function`` with float64 in the place of float32."""
        if function is Tensor.float:
            function = Tensor.double
        given = (torch.float64 if value is torch.float32 else value for value in args)
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*given, **named)


def make_twin(backbone: Backbone) -> Backbone:
    """A twin with drawn weights, in float64, on the same device where that has float64."""
    source = replace(backbone.source, folder=None, config=small_config(backbone.source))
    model = untrained(source, 0)
    model.set_attn_implementation(source.family.attention)
    _draw(model)
    return _in_float64(backbone, source, model)


def make_copy(backbone: Backbone) -> Backbone:
    """The backbone itself, in float64."""
    return _in_float64(backbone, backbone.source, copy.deepcopy(backbone.model))


def small_config(source: Source) -> dict[str, Any]:
    """The configuration of the twin."""
    config = dict(source.config)
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        config["layer_types"] = [kind for place, kind in enumerate(kinds) if kinds[:place].count(kind) < BLOCKS]
    config[source.family.block_count] = len(config["layer_types"]) if isinstance(kinds, list) else BLOCKS
    config |= {"vocab_size": VOCABULARY, source.family.inner_width: INNER_WIDTH}
    for key, value in source.config.items():
        if key.endswith("_token_id"):
            config[key] = [_known(token) for token in value] if isinstance(value, list) else _known(value)
    return config


def special_ids(source: Source) -> set[int]:
    """The ids that a configuration gives special tokens, of which some have several."""
    values = [value for key, value in source.config.items() if key.endswith("_token_id")]
    return {token for value in values for token in (value if isinstance(value, list) else [value]) if token is not None}


def _known(token: int | None) -> int | None:
    return 0 if isinstance(token, int) and token >= VOCABULARY else token


def _draw(model: nn.Module) -> None:
    """Weights under which every part matters: no norm is the identity, and attention is neither even nor one-hot."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(drawn / math.sqrt(weight.shape[-1]))
            else:
                weight.add_(drawn, alpha=0.3)


def _in_float64(backbone: Backbone, source: Source, model: Any) -> Backbone:
    device = backbone.device if backbone.device.type in ("cpu", "cuda") else torch.device("cpu")
    model = model.requires_grad_(False).eval().to(device=device, dtype=torch.float64)
    return Backbone(source, model, backbone.tokenizer, torch.float64, device)
