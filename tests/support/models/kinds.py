"""Tiny random models of any kind that transformers has, by rules about the keys of a configuration."""

import re
from typing import Any

import numpy as np
import torch

from permafrost.extract.architecture.discover import call, watched
from permafrost.extract.capture.roads import Road
from tests.support.models.backbones import WORDS

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


ROADS: dict[Road, str] = {
    Road.TREE: """
        gpt2 opt llama gpt_neox gptj codegen falcon phi phi3 stablelm starcoder2 qwen2 qwen3 qwen3_moe gemma
        olmo olmo2 olmoe granite granitemoe cohere mixtral deepseek_v2 deepseek_v3 nemotron glm glm4 smollm3 xglm biogpt
        ctrl jetmoe arcee helium persimmon gpt-sw3 gpt_bigcode gpt_neox_japanese apertus aria_text axk1 axk2 bitnet
        deepseek_v32 diffllama ernie4_5 ernie4_5_moe flex_olmo glm4_moe glm4_moe_lite glm_moe_dsa granite_docling_text
        granitemoeshared hy_v3 hyperclovax internlm3 iquestcoder jais2 laguna mellum minimax_m2 minimax_m3_vl_text
        ministral3 molmo2_text nanochat phimoe qwen2_moe qwen2_vl_text seed_oss
    """,
    Road.WINDOWED_TREE: "mistral",
    Road.TYPED_TREE: """
        gemma2 gemma3 gemma3_text gemma4_text olmo3 cohere2 gpt_oss exaone4 llama4_text modernbert-decoder
        afmoe beam cohere2_moe cwm exaone_moe flint granite_swa granitemoe_swa kolibri1 mimo_v2_flash muse_glimmer_text
        muse_spark_text
    """,
    Road.UNMASKED: """
        bloom mpt gpt_neo openai-gpt clip clip_text_model qwen3_next qwen3_5_text mamba mamba2 falcon_mamba jamba bamba
        lfm2 recurrent_gemma falcon_h1 rwkv doge inkling_text lfm3 minimax olmo_hybrid
    """,
    Road.PADDED: """
        bert roberta distilbert mpnet albert electra ernie xlm-roberta camembert rembert roformer megatron-bert deberta
        deberta-v2 modernbert nomic_bert eurobert xlm flaubert ibert luke t5 mt5 umt5 longt5 bart mbart pegasus
        blenderbot marian m2m_100 switch_transformers xlnet prophetnet align bert-generation blenderbot-small blip
        data2vec-text jina_embeddings_v3 layoutlm markuplm mvp nllb-moe openai_privacy_filter plbart fsmt
        roberta-prelayernorm xlm-roberta-xl tapas
    """,
    Road.EQUAL: "fnet convbert nystromformer yoso mobilebert",
}
"""The fastest road that is exact for a kind."""

REFUSED = {
    "gemma3n_text": "several streams or skips tokens",
    "deepseek_v4": "several streams or skips tokens",
    "longformer": "several streams or skips tokens",  # it pads texts to whole windows
    "led": "several streams or skips tokens",
    "pegasus_x": "several streams or skips tokens",  # likewise
    "canine": "none of its modules is called once for each of its 2 blocks",  # it has blocks before and after those
    "squeezebert": "none of its modules is called once for each of its 2 blocks",
    "hrm_text": "none of its modules is called once for each of its 2 blocks",  # it goes through its blocks in cycles
    "hy_v4": "several streams or skips tokens",
    "cpmant": "several streams or skips tokens",  # it puts a prompt of its own before the text
    "big_bird": "allows no way to run texts together",  # after a short text, its attention stays dense for all others
    "bigbird_pegasus": "allows no way to run texts together",
    "vit": "it is no model of text",
    "wav2vec2": "it is no model of text",
    "perceiver": "it is no model of text",
}

CHANGES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "attn_layer_indices": [1, 3]},  # heads x width = 2 x hidden_size
    **{key: {"num_key_value_heads": 4} for key in ("axk1", "glm4_moe_lite")},  # as many as heads
    **{key: {"num_key_value_heads": 4, "index_topk": 4} for key in ("axk2", "deepseek_v32", "glm_moe_dsa")},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},  # as many as heads; has no default
    "deepseek_v3": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_ssm": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},  # of more blocks than there are
    "gemma4_text": {"per_layer_config": {}},  # likewise
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},  # else no block has attention
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},  # likewise, no convolution
    "mamba2": {"head_dim": 16, "n_groups": 1},  # heads x width = 2 x hidden_size
    "minimax_m3_vl_text": {"index_topk_blocks": 1, "index_block_size": 2},  # fewer than a text has
    "nllb-moe": {"expert_capacity": 2},  # likewise
    "qwen2_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "switch_transformers": {"expert_capacity": 2},
    "nemotron": {"num_key_value_heads": 2},  # has no default
}
"""What the generic rules for sizes do not know of a kind."""


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


def made_texts() -> list[str]:
    """Texts of 1 to 40 words, longer than every window; some begin alike."""
    rng = np.random.default_rng(0)
    alone = [" ".join(rng.choice(WORDS, size)) for size in (1, 2, 5, 9, 14, 20, 33, 40)]
    return list(dict.fromkeys([*alone, *(" ".join(WORDS[:size]) for size in (2, 5, 16)), " ".join(WORDS[:5] * 3)]))


def states_alone(tower: Any, architecture: Any, ids: list[int]) -> list[np.ndarray]:
    """[layer] hidden states ``[token, width]`` of a text: those that transformers reports, else those in its blocks."""
    with watched(tower, architecture.blocks) as watch:
        output = call(tower, input_ids=torch.tensor([ids]), output_hidden_states=True)
    below = output.hidden_states[:-1] if architecture.reported else watch.entering
    layers = [*below, watch.leaving[-1] if architecture.chained else output[0]]
    return [(states.transpose(0, 1) if architecture.tokens_first else states)[0].numpy() for states in layers]
