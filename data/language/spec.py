"""The language spec: a small language model that is pretrained from scratch, and the settings of its training.

The origin of the weights (settings, text and vocabulary) is stored with each checkpoint, so that a checkpoint of
another origin is recognised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from permafrost.data.spec import SpecError, plain

SHORTEST_BLOCK = 8

CHANGES_NOTHING = ("corpus", "lines", "folder", "vocabulary", "checkpoint_steps")
"""Settings that do not change the weights; for text and vocabulary, their content counts, not their path."""


@dataclass(frozen=True, kw_only=True)
class LanguageSpec:
    """A small language model that is pretrained from scratch."""

    corpus: str = ""
    """The text: a .txt or .txt.gz file or a folder of them, here or under PERMAFROST_DATA; or samples-sentences. Empty
    pretrains nothing."""

    lines: bool = False
    """Whether each line of the text is a document; else a blank line ends one."""

    folder: str = ""
    """Where the model goes; empty is models/RECIPE in the cache. The backbone called language in a recipe is this
    one."""

    objective: Literal["masked", "causal"] = "masked"
    """masked: a BERT predicts tokens that are hidden from it; causal: a GPT-2 predicts each next token."""

    vocabulary: str = ""
    """Whose tokenizer is taken as it is: a backbone's, by short name or hub id (minilm has BERT's, gpt2 its own), or
    that of a folder. Empty learns one from the text: pieces of words, of bytes."""

    vocabulary_size: int = 0
    """Rows of the embedding table; 0 takes one for each entry of the vocabulary. Of one to be learnt, its entries."""

    blocks: int = 4
    """Transformer blocks."""

    width: int = 256
    """Width of a hidden state."""

    heads: int = 4
    """Attention heads of a block; they share the width evenly."""

    inner: int = 1024
    """Width of the hidden layer in a block's network."""

    dropout: float = 0.1
    """Share of hidden states and of attention that is dropped in training; 0 is faster, and fits better if each text
    is seen a few times only."""

    block_tokens: int = 128
    """Tokens of one block of text, special tokens included, and the most that the model will read."""

    mask_share: float = 0.15
    """Share of the tokens of a block to predict, if masked: 80 % of them are hidden, 10 % replaced by another token,
    10 % kept; drawn anew in every epoch."""

    batch_rows: int = 16
    """Blocks of text in one step."""

    epochs: int = 3
    """Passes over the text."""

    learning_rate: float = 5e-4
    """Peak rate of AdamW, reached after the warm-up, then falling to 0 in a straight line."""

    weight_decay: float = 0.01
    """Weight decay of AdamW; biases and norms have none."""

    warmup: float = 0.06
    """Share of all steps over which the rate rises."""

    clip: float = 1.0
    """Largest norm of the gradient."""

    seed: int = 0
    """Draws the starting weights, the held-out documents, the order of blocks, masks and dropout."""

    held_out: float = 0.02
    """Share of the text, in whole documents, that is held out to measure perplexity; 0 measures none."""

    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the large products; the weights stay in float32. auto is bfloat16 if the hardware multiplies it
    natively."""

    checkpoint_steps: int = 500
    """Steps between checkpoints; a crash costs no more than these."""

    def __post_init__(self) -> None:
        counts = ("blocks", "width", "heads", "inner", "batch_rows", "epochs", "checkpoint_steps")
        for name in counts:
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.width % self.heads:
            raise SpecError(f"heads = {self.heads} must divide width = {self.width}.")
        if self.block_tokens < SHORTEST_BLOCK:
            raise SpecError(f"block_tokens must be at least {SHORTEST_BLOCK}, got {self.block_tokens}.")
        if self.vocabulary_size < 0 or self.seed < 0:
            raise SpecError("vocabulary_size and seed must not be negative.")
        if not 0 < self.mask_share < 1:
            raise SpecError(f"mask_share must be in (0, 1), got {self.mask_share}.")
        if not 0 <= self.held_out < 1 or not 0 <= self.dropout < 1 or not 0 <= self.warmup <= 1:
            raise SpecError("held_out and dropout must be in [0, 1), warmup in [0, 1].")
        if not 0 < self.learning_rate < inf or not self.clip > 0 or not 0 <= self.weight_decay < inf:
            raise SpecError("learning_rate and clip must be positive, weight_decay not negative, rates finite.")


def origin(spec: LanguageSpec, vocabulary: str, text: str, compute_dtype: str) -> dict[str, Any]:
    """Return the origin of pretrained weights: the settings that change them, with digests of vocabulary and text."""
    settings = {name: value for name, value in plain(spec).items() if name not in CHANGES_NOTHING}
    return settings | {"vocabulary": vocabulary, "text": text, "compute_dtype": compute_dtype}


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return the differences of two origins, one phrase for each."""
    return [
        f"another {name}" if name in ("vocabulary", "text") else f"{name} = {stored.get(name)} there, {value} here"
        for name, value in current.items()
        if stored.get(name) != value
    ]
