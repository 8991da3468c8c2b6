"""Architecture of a backbone: what capture must know about a model, and how little of a configuration tells it.

No family of models is named here: :mod:`permafrost.extract.backbones.discover` finds these facts by running a small
model of the same configuration.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from permafrost.data.digests import digest_of, digest_of_parts
from permafrost.data.machine import package_version
from permafrost.data.spec import parse, plain
from permafrost.extract.backbones.configuration import canonical_json
from permafrost.extract.backbones.file_digest import Memo

FOUND_BY = ("architecture.py", "discover.py", "small_config.py", "small_model.py")
"""Files of the code that finds an architecture; what other code found is found again."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Facts about the part of a model that reads texts."""

    tower: str
    """Path of the module that turns token ids into hidden states; empty if it is the whole model."""

    blocks: tuple[str, ...]
    """Names of the classes whose calls are the blocks."""

    layers: int
    """Number of layers that can be captured: what enters the first block, and one per block."""

    width: int
    """Width of a hidden state."""

    positions: int | None = None
    """Longest text that the model's positions allow, in tokens; None if nothing limits it."""

    causal: bool
    """Whether no token sees a later one."""

    segments: bool
    """Whether ``token_type_ids`` change the hidden states."""

    tail: tuple[str, ...]
    """Paths of the modules between the last block and ``last_hidden_state``, below the tower: a norm, as a rule."""

    chained: bool
    """Whether each block returns what enters the next; else the last layer is ``last_hidden_state``."""

    tokens_first: bool
    """Whether hidden states are ``[token, text, width]``, and not ``[text, token, width]``."""

    reported: bool
    """Whether ``output_hidden_states`` of transformers gives what enters each block; else it is shifted, or not all."""

    attention: str
    """Attention implementation of transformers."""

    layer_types: tuple[str, ...]
    """Distinct types of attention that the configuration names; empty if it names none."""

    window: int | None = None
    """Tokens that an attention with a sliding window sees, its own included; None if there is no window."""

    chunk: int | None = None
    """Tokens in a chunk of chunked attention; None if there are no chunks."""


def architecture_of(config: Mapping[str, Any], memo: Memo | None = None) -> Architecture:
    """Return the architecture of a model configuration: remembered, or found by running a small model of it.

    Args:
        memo: where it is remembered; None remembers it in this process only.

    Raises:
        BackboneError: it is no configuration of a model that can be read, with the reason.
    """
    canonical = canonical_json(config)
    versions = f"torch {torch.__version__}, transformers {package_version('transformers')}"
    code = digest_of_parts([Path(__file__).with_name(name).read_bytes() for name in FOUND_BY])
    key = f"architecture {digest_of(canonical.encode())} {code} {versions}"
    found = memo.get(key, lambda: _find(canonical)) if memo else _find(canonical)
    return parse(Architecture, json.loads(found), "a remembered architecture")


@lru_cache(maxsize=256)
def _find(canonical: str) -> str:
    """Return as JSON what a small model of a configuration, given as JSON, shows, with the sizes of the large one."""
    from permafrost.extract.backbones.discover import discover, positive_size  # these load transformers
    from permafrost.extract.backbones.small_model import make_config, small_model, small_values

    values = json.loads(canonical)
    found, config = discover(small_model(small_values(values))), make_config(values).get_text_config()
    window, chunk = positive_size(config, "sliding_window"), positive_size(config, "attention_chunk_size")
    layers = int(config.num_hidden_layers) + 1
    return json.dumps(plain(replace(found, layers=layers, window=window, chunk=chunk)))
