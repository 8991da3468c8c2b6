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

CHANGES_NOTHING = ("corpus", "config", "lines", "folder", "vocabulary", "checkpoint_steps")
"""Settings that do not change the weights; for text and vocabulary, their content counts, not their path."""


@dataclass(frozen=True, kw_only=True)
class LanguageSpec:
    """A small language model that is pretrained from scratch."""

    corpus: str = ""
    """Text to pretrain on: a .txt or .txt.gz file, a folder of them or a pattern such as "texts/*.txt", under
    PERMAFROST_DATA or in the working directory; or samples-sentences; or the id of a hub data set, which is read as a
    stream. Empty pretrains nothing."""

    config: str = ""
    """Configuration of the hub data set, if it has several, e.g. 20231101.en of wikimedia/wikipedia."""

    lines: bool = False
    """Whether each line of the text is a document; otherwise blank lines separate documents."""

    folder: str = ""
    """Output folder of the model; empty is models/RECIPE in the cache. In the same recipe, the backbone name language
    stands for this model."""

    objective: Literal["masked", "causal"] = "masked"
    """Pretraining objective: "masked" trains a BERT to predict masked tokens; "causal" trains a GPT-2 to predict each
    next token."""

    vocabulary: str = ""
    """Tokenizer to reuse unchanged: a backbone by short name or hub id (minilm: BERT's, gpt2: its own), or a folder.
    Empty learns a byte-level BPE vocabulary from the text."""

    vocabulary_size: int = 0
    """Number of rows of the embedding table; 0 uses the size of the vocabulary. If a vocabulary is learned, its number
    of entries."""

    blocks: int = 4
    """Number of transformer blocks."""

    width: int = 256
    """Width of a hidden state."""

    heads: int = 4
    """Number of attention heads per block; it must divide width."""

    inner: int = 1024
    """Width of the hidden layer in the feed-forward network of a block."""

    dropout: float = 0.1
    """Fraction of hidden states and attention weights dropped during training; 0 is faster, and fits better if each
    text is seen only a few times."""

    block_tokens: int = 128
    """Tokens per block of text, special tokens included; also the maximum number of tokens that the model reads."""

    mask_share: float = 0.15
    """For "masked": fraction of the tokens of a block to predict. 80 % of them are masked, 10 % replaced by another
    token, 10 % kept; drawn anew in every epoch."""

    batch_rows: int = 16
    """Blocks of text per step."""

    epochs: int = 3
    """Passes over the text."""

    learning_rate: float = 5e-4
    """Peak learning rate of AdamW, reached after the warm-up, then decayed linearly to 0."""

    weight_decay: float = 0.01
    """Weight decay of AdamW; not applied to biases and norms."""

    warmup: float = 0.06
    """Fraction of all steps over which the learning rate rises."""

    clip: float = 1.0
    """Maximum norm of the gradient."""

    seed: int = 0
    """Seed of the initial weights, held-out documents, order of blocks, masks and dropout."""

    held_out: float = 0.02
    """Fraction of the text, in whole documents, that is held out to measure perplexity; 0 measures none."""

    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of the large matrix products; weights stay in float32. "auto" selects bfloat16 if the hardware supports
    it natively, else float32."""

    checkpoint_steps: int = 500
    """Steps between checkpoints; a crash loses at most this many steps."""

    def __post_init__(self) -> None:
        for name in ("blocks", "width", "heads", "inner", "batch_rows", "epochs", "checkpoint_steps"):
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
