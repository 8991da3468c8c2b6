"""Configuration of a small model with the structure of a large one: few blocks, short windows, a small vocabulary.

What decides how tokens see each other is kept: types of layers, kinds of positions, and the size of heads.
"""

import re
from collections.abc import Mapping
from typing import Any

VOCABULARY, INNER_WIDTH, EXPERTS, WINDOW, SPARSE_BLOCK = 64, 64, 32, 8, 2
"""Sizes in the small model: its vocabulary; largest feed-forward layers, experts of a layer (more than a token is sent
to, and several in each group of them), tokens of a window, and tokens of a block of sparse attention, which takes texts
of many blocks only."""

LEAST_WIDTHS = (256, 64, 1024)
"""Least widths of narrow states, in the order in which they are tried."""

LARGEST = (
    (
        re.compile(r"(intermediate|inner|ffn|feed_forward)_(size|dim|hidden_size)$|^(d_ff|n_inner|hidden_dim)$"),
        INNER_WIDTH,
    ),
    (re.compile(r"(^|_)(num|n)_(\w+_)?experts$|^expert_num$"), EXPERTS),
    (re.compile(r"(window(_size|_len)?|local_attention|local_radius|chunk_(size|length)|capacity)$"), WINDOW),
    (re.compile(r"^index_topk(_blocks)?$"), WINDOW),
    (re.compile(r"(^|_)block_size$"), SPARSE_BLOCK),
)
"""(keys of a configuration, largest value in the small model): whatever changes beyond some number of tokens changes
within the short texts of a proof."""

POSITION_STEP, SHARED_ROW = re.compile(r"(floor_scale|_n_floor)$"), 256
"""Keys of a number of positions after which attention is scaled otherwise; and most tokens in a row of several texts,
within which no larger number matters."""

HEADS = re.compile(r"(^|_)heads?$")
WIDTHS = re.compile(
    r"^(\w*hidden_size|d_model|n_embd|dim|emb_dim|\w*embedding_size|embed_dim|word_embed_proj_dim|lru_width|mamba_d_ssm)$"
)
"""Keys of numbers of heads, and of widths that are multiples of such a number."""

DEPTH_KEYS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_encoder_layers",
    "num_decoder_layers", "depth",
)  # fmt: skip
"""Keys of the number of blocks."""


MOST_BLOCKS = 1_000
"""Most blocks of a model."""


def depth_of(values: Mapping[str, Any]) -> int:
    """Return the largest number of blocks that a configuration names."""
    inner = [depth_of(value) for value in values.values() if isinstance(value, Mapping)]
    return max([0, *inner, *(value for key, value in values.items() if key in DEPTH_KEYS and type(value) is int)])


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


def narrow_config(values: Mapping[str, Any], least: int) -> dict[str, Any]:
    """Return a configuration with fewer heads of the same size, and states that are narrower by the same factor.

    Args:
        least: least width of the states.
    """
    sizes = {key: value for key, value in values.items() if type(value) is int and value > 1}
    heads = {key: value for key, value in sizes.items() if HEADS.search(key)}
    inner = {key for key in sizes if any(pattern.search(key) for pattern, _ in LARGEST)}  # made small already
    widths = {key: value for key, value in sizes.items() if WIDTHS.search(key) and key not in inner}

    def fits(factor: int) -> bool:
        whole = all(width % factor == 0 for width in widths.values())
        return whole and all(count % factor == 0 or count < factor for count in heads.values())

    factor = max(filter(fits, range(1, min(widths.values(), default=0) // least + 1)), default=1)
    narrow = {key: max(1, size // factor) for key, size in (heads | widths).items()}
    parts = {key for key, value in values.items() if isinstance(value, Mapping) and key.endswith("_config")}
    return {**values, **narrow, **{key: narrow_config(values[key], least) for key in parts}}


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
    if POSITION_STEP.search(key) and value < SHARED_ROW:
        return min(value, WINDOW)
    return next((min(value, largest) for pattern, largest in LARGEST if pattern.search(key)), value)
