"""TODO: extract/backbones/families.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """What stage one must know of an architecture."""

    blocks: str
    """Path of the list of blocks in the base model."""

    causal: bool
    final_norm: str = ""
    """Path of the norm after the last block; empty where there is none."""

    block_count: str = "num_hidden_layers"
    width: str = "hidden_size"
    inner_width: str = "intermediate_size"
    """Of the feed-forward part of a block."""

    positions: str = "max_position_embeddings"
    positions_unused: int = 0
    """Leading position embeddings that no token uses."""

    attention: str = "sdpa"
    """The implementation that transformers is told to use."""

    pooler: bool = False
    """Whether the base model has a pooler, which is left out."""

    segments: bool = False
    """Whether it is told which of two segments a token counts to."""

    embeddings: tuple[str, ...] = ("embeddings",)
    """Paths of all that makes layer 0 of token ids."""

    attention_dropout: str = "attention.self.dropout"
    """Path in a block of the dropout of its attention's weights, a module or a number."""


BACKBONES: dict[str, Family] = {
    "gpt2": Family(
        "h",
        True,
        "ln_f",
        block_count="n_layer",
        width="n_embd",
        inner_width="n_inner",
        positions="n_positions",
        embeddings=("wte", "wpe", "drop"),
        attention_dropout="attn.attn_dropout",
    ),
    "qwen2": Family(
        "layers", True, "norm", embeddings=("embed_tokens",), attention_dropout="self_attn.attention_dropout"
    ),
    "llama": Family(
        "layers", True, "norm", embeddings=("embed_tokens",), attention_dropout="self_attn.attention_dropout"
    ),
    "bert": Family("encoder.layer", False, pooler=True, segments=True),
    "roberta": Family("encoder.layer", False, positions_unused=2, pooler=True),
    "distilbert": Family(
        "transformer.layer",
        False,
        block_count="n_layers",
        width="dim",
        inner_width="hidden_dim",
        attention_dropout="attention.dropout",
    ),
    "mpnet": Family(
        "encoder.layer",
        False,
        positions_unused=2,
        attention="eager",
        pooler=True,
        attention_dropout="attention.attn.dropout",
    ),
}
