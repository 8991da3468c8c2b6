"""Backbone families: module paths and configuration keys of each supported architecture."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """Facts about an architecture: module paths in the base model, and keys of its configuration."""

    blocks: str
    """Path of the list of blocks in the base model."""

    causal: bool
    final_norm: str = ""
    """Path of the norm after the last block; empty if there is none."""

    block_count: str = "num_hidden_layers"
    """Configuration key of the number of blocks."""

    width: str = "hidden_size"
    """Configuration key of the width of a hidden state."""

    inner_width: str = "intermediate_size"
    """Configuration key of the width of a block's feed-forward layer."""

    positions: str = "max_position_embeddings"
    """Configuration key of the number of positions."""

    positions_unused: int = 0
    """Number of leading position embeddings that no token uses."""

    attention: str = "sdpa"
    """Attention implementation that transformers is told to use."""

    pooler: bool = False
    """Whether the base model has a pooler; it is never built."""

    segments: bool = False
    """Whether the model takes ``token_type_ids``."""

    embeddings: tuple[str, ...] = ("embeddings",)
    """Paths of the modules that turn token ids into layer 0."""

    attention_dropout: str = "attention.self.dropout"
    """Path within a block of the dropout on attention weights, a module or a number."""


_LLAMA = Family(
    blocks="layers",
    causal=True,
    final_norm="norm",
    embeddings=("embed_tokens",),
    attention_dropout="self_attn.attention_dropout",
)

BACKBONES: dict[str, Family] = {
    "gpt2": Family(
        blocks="h",
        causal=True,
        final_norm="ln_f",
        block_count="n_layer",
        width="n_embd",
        inner_width="n_inner",
        positions="n_positions",
        embeddings=("wte", "wpe", "drop"),
        attention_dropout="attn.attn_dropout",
    ),
    "qwen2": _LLAMA,
    "llama": _LLAMA,
    "bert": Family(blocks="encoder.layer", causal=False, pooler=True, segments=True),
    "roberta": Family(blocks="encoder.layer", causal=False, positions_unused=2, pooler=True),
    "distilbert": Family(
        blocks="transformer.layer",
        causal=False,
        block_count="n_layers",
        width="dim",
        inner_width="hidden_dim",
        attention_dropout="attention.dropout",
    ),
    "mpnet": Family(
        blocks="encoder.layer",
        causal=False,
        positions_unused=2,
        attention="eager",
        pooler=True,
        attention_dropout="attention.attn.dropout",
    ),
}
"""``model_type`` of a configuration -> its family."""
