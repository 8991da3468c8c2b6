"""Small random models with the structure of a configuration, to find and to prove things about the large one.

A forward pass that treats masks, positions, padding or layers wrongly does so on the small model too.
"""

import copy
import inspect
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from permafrost.data.errors import first_line
from permafrost.data.spec import plain
from permafrost.extract.architecture.architecture import Architecture
from permafrost.extract.architecture.configuration import BackboneError, canonical_json
from permafrost.extract.architecture.discover import (
    block_classes,
    blocks_of,
    discover,
    positive_size,
    text_config,
    text_tower,
)
from permafrost.extract.architecture.small_config import (
    DEPTH_KEYS,
    LEAST_WIDTHS,
    MOST_BLOCKS,
    narrow_config,
    small_config,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PARTS = ("audio_config", "decoder", "encoder", "generator", "text_config", "text_encoder", "vision_config")
"""Keys by which transformers takes a model for one of several parts; left out where the kind has no such part."""

MOST_PARAMETERS, WIDE_PARAMETERS = 1_000_000_000, 8_000_000
"""Largest number of parameters of a block, and of those of a small model whose states are as wide as in the large
model."""


@lru_cache(maxsize=256)
def find_architecture(canonical: str) -> str:
    """Return as JSON what a small model of a configuration, given as JSON, shows, with the sizes of the large one."""
    values = json.loads(canonical)
    try:
        small = small_values(values)
        found = resized(discover(small_model(small)), small, values)
    except BackboneError:
        raise
    except Exception as error:  # a configuration can be wrong in as many ways as it has keys
        raise BackboneError(f"its config.json makes no model that can be run ({first_line(error)})") from error
    return json.dumps(plain(found))


def resized(architecture: Architecture, origin: Mapping[str, Any], values: Mapping[str, Any]) -> Architecture:
    """Return an architecture with the sizes of another configuration of the same structure.

    Args:
        origin: the configuration that it is the architecture of.
        values: the other one.
    """
    config = make_config(values).get_text_config()
    widths = [_width(values), _width(origin)]
    return replace(
        architecture,
        layers=int(config.num_hidden_layers) + 1,
        width=architecture.width if widths[0] == widths[1] else widths[0],
        window=positive_size(config, "sliding_window"),
        chunk=positive_size(config, "attention_chunk_size"),
    )


def _width(values: Mapping[str, Any]) -> int:
    """Return the width of hidden states that a configuration says."""
    return positive_size(make_config(values).get_text_config(), "hidden_size") or 0


def make_config(values: Mapping[str, Any]) -> "PreTrainedConfig":
    """Return the configuration of transformers with these keys.

    Raises:
        BackboneError: transformers has no such kind of model, or the values do not make one.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    others = dict(values)
    kind = str(others.pop("model_type", None))
    if kind not in CONFIG_MAPPING:
        raise BackboneError(f"transformers has no model of the kind '{kind}', and code that comes with one is not run")
    parts = getattr(CONFIG_MAPPING[kind], "sub_configs", {})
    others = {key: value for key, value in others.items() if key in parts or key not in PARTS}
    try:
        config = AutoConfig.for_model(kind, **others)
    except Exception as error:  # as above
        reason = first_line(error.__cause__ or error)
        raise BackboneError(f"its config.json cannot be used ({reason})") from error
    if type(config) not in MODEL_MAPPING:
        raise BackboneError(f"transformers has no base model of the kind '{kind}'")
    return config


def model_arguments(config: "PreTrainedConfig") -> dict[str, Any]:
    """Return the arguments by which a model of a configuration is made without a pooler, where it can be."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    made = MODEL_MAPPING[type(config)]
    parameters = inspect.signature((made[0] if isinstance(made, tuple) else made).__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


def small_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the smallest configuration whose model has every kind of block of the large one.

    Raises:
        BackboneError: no model can be made of the configuration.
    """
    return copy.deepcopy(_small_values(canonical_json(values)))


@lru_cache(maxsize=256)
def _small_values(canonical: str) -> dict[str, Any]:
    values = json.loads(canonical)
    config = make_config(values)
    complete = {key: value for key, value in config.to_dict().items() if key not in ("transformers_version", "dtype")}
    depth = max((value for key, value in complete.items() if key in DEPTH_KEYS and type(value) is int), default=2)
    depth = max(depth, int(getattr(config.get_text_config(), "num_hidden_layers", 0) or 0))
    if depth > MOST_BLOCKS:
        raise BackboneError(f"its config.json says {depth:,} blocks, and at most {MOST_BLOCKS:,} are read")
    with torch.device("meta"):
        model = _make(small_config(complete, depth))
        if sum(parameter.numel() for parameter in model.parameters()) / max(depth, 1) > MOST_PARAMETERS:
            raise BackboneError("its blocks are too large to make some of them in memory")
        _, tower = text_tower(model)
        blocks = blocks_of(tower, next(block_classes(tower, depth), ()))
        text = text_config(model, tower)
        signatures = [(_signature(block), *_settings(text, number)) for number, block in enumerate(blocks)]
    first_of_each = [signatures.index(signature) for signature in set(signatures)]
    small = small_config(complete, max([1, *first_of_each]) + 1)
    return _narrow(small) if _parameters(small) > WIDE_PARAMETERS else small


def _narrow(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with narrow states; the same, if no model of it runs, or the width is not what it says."""
    for least in LEAST_WIDTHS:
        narrow = narrow_config(values, least)
        if _parameters(narrow) < _parameters(values):
            with suppress(Exception):  # other sizes may hang on the width
                if discover(small_model(narrow)).width == _width(narrow):
                    return narrow
    return values


def _parameters(values: Mapping[str, Any]) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in _make(values).parameters())


def small_model(values: Mapping[str, Any]) -> "PreTrainedModel":
    """Return a model of a small configuration in float32, with weights by which every module has an effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _make(values)
    _draw_weights(model)
    return model.requires_grad_(False).eval()


def _make(values: Mapping[str, Any]) -> "PreTrainedModel":
    from transformers import AutoModel

    config = make_config(values)
    config._experts_implementation = "eager"  # others have no float64
    try:
        model: PreTrainedModel = AutoModel.from_config(config, **model_arguments(config))
    except Exception as error:  # as above
        raise BackboneError(f"no model can be made of its config.json ({first_line(error)})") from error
    return model


def _signature(block: nn.Module) -> tuple[Any, ...]:
    """Return what tells kinds of blocks apart: the classes of their modules, and switches and windows of these."""
    return tuple(
        (path, type(module).__name__, key, value)
        for path, module in block.named_modules()
        for key, value in [("", None), *sorted(vars(module).items())]
        if isinstance(value, bool | str | None) or ("window" in key or "chunk" in key)
        if not key.startswith("_")
    )


def _settings(config: Any, block: int) -> list[Any]:
    """Return what a configuration says of one block in lists of names and switches that have an entry for each."""
    values = config.to_dict().values()
    lists = [value for value in values if isinstance(value, list) and len(value) == config.num_hidden_layers]
    return [value[block] for value in lists if all(isinstance(entry, bool | str) or entry in (0, 1) for entry in value)]


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
