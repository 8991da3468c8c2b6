"""Tiny random models of any kind that transformers has, by rules about the keys of a configuration."""

import re
from typing import Any

BLOCKS, VOCABULARY, LONGEST = 4, 96, 64
"""Blocks, rows of the table of tokens, and longest text of a tiny model."""

DEPTH = re.compile(r"^(n_layers?|num(_hidden)?_layers|(encoder|decoder)_layers|num_(encoder|decoder)_layers)$")
WIDTH = "hidden_size|d_model|n_embd|dim|emb_dim|embedding_size|word_embed_proj_dim|embed_dim|projection_dim"
LARGEST: tuple[tuple[str, int], ...] = (
    (rf"^({WIDTH}|lru_width|attention_hidden_size)$", 32),
    (r"^(n_heads?|num_heads|(num|encoder|decoder)_attention_heads|linear_num_value_heads)$", 4),
    (r"^(num_key_value_heads|linear_num_key_heads|num_experts_per_tok|top_k)$", 2),
    (r"^((shared_expert_)?intermediate_size|((encoder|decoder)_)?ffn_dim|d_ff|hidden_dim|n_inner)$", 48),
    (r"^(num|n)_(local_|routed_)?experts$", 4),
    (r"^moe_intermediate_size$", 16),
    (r"^(q|kv)_lora_rank$", 16),
    (r"^(head_dim|d_head|d_kv|(linear_(key|value)|qk_nope|qk_rope|v)_head_dim)$", 8),
    (r"^rotary_dim$", 4),
    (r"^(n_group|topk_group)$", 1),
    (r"^(sliding_window|attention_window_size|attention_chunk_size)$", 4),
    (r"^local_attention$", 8),
    (r"^(max_position_embeddings|n_positions|n_ctx)$", LONGEST),
    (r"^(src_|tgt_)?vocab_size(_per_layer_input)?$", VOCABULARY),
    (r"^image_size$", 32),
)
"""(keys of a configuration, their largest value in a tiny one)."""


def tiny_config(kind: str, **changes: Any) -> Any:
    """Return the default configuration of a kind of model with every size made small, and some keys set."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(kind)
    return type(default)(**_small(default.to_dict()) | changes)


def _small(values: dict[str, Any]) -> dict[str, Any]:
    depths = {value for key, value in values.items() if DEPTH.search(key)}
    unset = ("model_type", "transformers_version", "dtype", "_name_or_path", "id2label", "label2id")
    return {key: _smaller(key, value, depths) for key, value in values.items() if key not in unset}


def _smaller(key: str, value: Any, depths: set[Any]) -> Any:
    if isinstance(value, dict) and key.endswith("_config"):
        return _small(value)
    if isinstance(value, list) and len(value) in depths:  # a value for every block; of types of blocks, each
        types = list(dict.fromkeys(value)) if isinstance(value[0], str) else value
        return (types * BLOCKS)[:BLOCKS]
    if type(value) is not int:
        return value
    if key.endswith("token_id"):
        return value if value < VOCABULARY else 1
    if DEPTH.search(key):
        return BLOCKS
    return next((min(value, largest) for pattern, largest in LARGEST if re.search(pattern, key)), value)
