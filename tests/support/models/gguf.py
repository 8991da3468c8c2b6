"""Tiny GGUF files of Llama models, written as llama.cpp's converter does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.models.backbones import byte_tokenizer

BLOCKS, WIDTH, HEADS, KEY_HEADS, INNER = 2, 32, 4, 2, 64
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Module in transformers -> its name in a GGUF file."""


def gguf_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if not module.startswith("layers."):
        return f"{NAMES[module]}.weight"
    _, block, inner = module.split(".", 2)
    return f"blk.{block}.{NAMES[inner]}.weight"


def rotated(name: str, weight: np.ndarray) -> np.ndarray:
    """Rows of queries and keys in the order of llama.cpp's rotary embeddings."""
    heads = {"q_proj": HEADS, "k_proj": KEY_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return weight
    halves = weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def tiny_gguf(path: Path, kind: str = "Q8_0", architecture: str = "llama", **metadata: Any) -> dict[str, np.ndarray]:
    """Write a GGUF file; return its weights, dequantised, by their names in transformers.

    Args:
        kind: type of the matrices; vectors are float32.
        metadata: further keys, with ``__`` for a dot; or other values of the usual ones.
    """
    gguf = pytest.importorskip("gguf")
    import torch
    from transformers import LlamaConfig, LlamaModel

    tokenizer = byte_tokenizer()
    sizes = {"num_key_value_heads": KEY_HEADS, "intermediate_size": INNER, "vocab_size": tokenizer.get_vocab_size()}
    config = LlamaConfig(hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, **sizes)
    torch.manual_seed(0)
    weights = {name: weight.numpy() * 10 for name, weight in LlamaModel(config).state_dict().items()}
    writer = gguf.GGUFWriter(path, architecture)
    usual = {
        f"{architecture}.block_count": BLOCKS,
        f"{architecture}.context_length": 64,
        f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.feed_forward_length": INNER,
        f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": KEY_HEADS,
        f"{architecture}.vocab_size": tokenizer.get_vocab_size(),
    }
    for key, value in (usual | {key.replace("__", "."): value for key, value in metadata.items()}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint32
        add(key, value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{architecture}.rope.freq_base", 10000.0)
    writer.add_tokenizer_model("gpt2")
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token == "<unk>" else 1 for token in vocabulary])
    writer.add_token_merges(merges_of(tokenizer))
    held = {}
    for name, weight in weights.items():
        stored = gguf.GGMLQuantizationType[kind if weight.ndim > 1 else "F32"]
        blocks = gguf.quantize(weight.astype(np.float32), stored)
        held[name] = gguf.dequantize(blocks, stored).reshape(weight.shape).astype(np.float32)
        writer.add_tensor(gguf_name(name), gguf.quantize(rotated(name, held[name]), stored), raw_dtype=stored)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return held


def merges_of(tokenizer: Any) -> list[str]:
    import json

    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]
