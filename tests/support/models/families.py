"""Kinds of models that tests run as tiny backbones, and where their parts are."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """Paths of the parts of a kind of model."""

    blocks: str
    """Path of the list of blocks in the base model."""

    final_norm: str = ""
    """Path of the norm after the last block; empty if there is none."""

    embeddings: tuple[str, ...] = ("embeddings",)
    """Paths of the modules that turn token ids into layer 0."""


_LLAMA = Family(blocks="layers", final_norm="norm", embeddings=("embed_tokens",))

FAMILIES: dict[str, Family] = {
    "gpt2": Family(blocks="h", final_norm="ln_f", embeddings=("wte", "wpe", "drop")),
    "qwen2": _LLAMA,
    "llama": _LLAMA,
    "bert": Family(blocks="encoder.layer"),
    "roberta": Family(blocks="encoder.layer"),
    "distilbert": Family(blocks="transformer.layer"),
    "mpnet": Family(blocks="encoder.layer"),
}
"""``model_type`` of a configuration -> its family."""
