"""Configuration of a small model with the structure of a large one: few blocks, short windows, a small vocabulary.

What decides how tokens see each other is kept: types of layers, kinds of positions, heads, and the width of a state.
"""

import re
from collections.abc import Mapping
from typing import Any

VOCABULARY, INNER_WIDTH, EXPERTS, WINDOW, SPARSE_BLOCK = 64, 64, 8, 8, 2
"""Sizes in the small model: its vocabulary; largest feed-forward layers, experts of a layer, tokens of a window, and
tokens of a block of sparse attention, which takes texts of many blocks only."""

LARGEST = (
    (
        re.compile(r"(intermediate|inner|ffn|feed_forward)_(size|dim|hidden_size)$|^(d_ff|n_inner|hidden_dim)$"),
        INNER_WIDTH,
    ),
    (re.compile(r"^(num|n)_(local_|routed_)?experts$"), EXPERTS),
    (re.compile(r"(window(_size|_len)?|local_attention|local_radius|chunk_size)$"), WINDOW),
    (re.compile(r"(^|_)block_size$"), SPARSE_BLOCK),
)
"""(keys of a configuration, largest value in the small model)."""

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
"""Keys of the number of blocks."""


def small_config(values: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return a configuration with at most ``depth`` blocks; lists with a value for every block are cut to the first.

    Args:
        values: all keys of a configuration, those that have their default included.
    """
    depths = {value for key, value in values.items() if key in DEPTH_KEYS and type(value) is int}
    small: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key.endswith("_config"):
            small[key] = small_config(value, depth)
        elif isinstance(value, list):
            kept = value[:depth] if len(value) in depths else value
            small[key] = [_shrink(key, item) for item in kept]
        else:
            small[key] = min(value, depth) if key in DEPTH_KEYS and type(value) is int else _shrink(key, value)
    return small


def special_ids(values: Mapping[str, Any]) -> set[int]:
    """Return the ids that a configuration names for special tokens; some keys hold several."""
    named = [value for key, value in values.items() if key.endswith("_token_id")]
    return {token for value in named for token in (value if isinstance(value, list) else [value]) if token is not None}


def _shrink(key: str, value: Any) -> Any:
    if type(value) is not int:
        return value
    if "vocab_size" in key and not key.startswith("type_"):
        return VOCABULARY
    if key.endswith("_token_id"):
        return value if value < VOCABULARY else 0
    return next((min(value, largest) for pattern, largest in LARGEST if pattern.search(key)), value)
