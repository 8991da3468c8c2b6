"""Float64 models for the structure proof: a small twin of a backbone, or a copy of it.

The twin has the classes and the configuration of the backbone, except two blocks of each layer type, a small
vocabulary, a narrow feed-forward layer and random weights. A forward pass that treats masks, positions, padding or
layers wrongly does so on the twin too.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from permafrost.extract.backbones.load import Backbone, untrained_model
from permafrost.extract.backbones.locate import Source

VOCABULARY, INNER_WIDTH = 64, 64
"""Size of the twin's vocabulary, and width of its feed-forward layers."""

BLOCKS = 2
"""Blocks of each layer type in the twin."""


class Float64(TorchFunctionMode):
    """Torch function mode that replaces float32 by float64 in a model's code: in norms, softmax and rotary tables."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function`` with float64 in place of float32."""
        if function is Tensor.float:
            function = Tensor.double
        arguments = (torch.float64 if value is torch.float32 else value for value in args)
        keywords = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return function(*arguments, **keywords)


def make_twin(backbone: Backbone) -> Backbone:
    """Return a float64 twin with random weights, on the backbone's device if that has float64, else on the CPU."""
    source = replace(backbone.source, folder=None, config=small_config(backbone.source))
    model = untrained_model(source, 0)
    model.set_attn_implementation(source.family.attention)
    _draw_weights(model)
    return _in_float64(backbone, source, model)


def make_copy(backbone: Backbone) -> Backbone:
    """Return a copy of the backbone in float64."""
    return _in_float64(backbone, backbone.source, copy.deepcopy(backbone.model))


def small_config(source: Source) -> dict[str, Any]:
    """Return the configuration of the twin."""
    config = dict(source.config)
    types = config.get("layer_types")
    if isinstance(types, list):
        config["layer_types"] = [name for index, name in enumerate(types) if types[:index].count(name) < BLOCKS]
    config[source.family.block_count] = len(config["layer_types"]) if isinstance(types, list) else BLOCKS
    config |= {"vocab_size": VOCABULARY, source.family.inner_width: INNER_WIDTH}
    for key, value in source.config.items():
        if key.endswith("_token_id"):
            config[key] = [_shrink_id(token) for token in value] if isinstance(value, list) else _shrink_id(value)
    return config


def special_ids(source: Source) -> set[int]:
    """Return the ids that a configuration names for special tokens; some keys hold several."""
    values = [value for key, value in source.config.items() if key.endswith("_token_id")]
    return {token for value in values for token in (value if isinstance(value, list) else [value]) if token is not None}


def _shrink_id(token: int | None) -> int | None:
    return 0 if isinstance(token, int) and token >= VOCABULARY else token


def _draw_weights(model: nn.Module) -> None:
    """Draw weights so that every module has an effect: no norm is the identity, no attention uniform or one-hot."""
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
    return Backbone(source=source, model=model, tokenizer=backbone.tokenizer, dtype=torch.float64, device=device)
