"""Kinds of models whose top blocks can be trained, and where their parts are."""

from dataclasses import dataclass

from permafrost.data.spec import SpecError
from permafrost.extract.backbones.locate import Source


@dataclass(frozen=True, kw_only=True)
class Family:
    """Paths of the parts of a kind of model that is cut between two blocks."""

    blocks: str
    """Path of the list of blocks in the base model."""

    final_norm: str = ""
    """Path of the norm after the last block; empty if there is none."""

    positions_unused: int = 0
    """Number of leading position embeddings that no token uses."""

    embeddings: tuple[str, ...] = ("embeddings",)
    """Paths of the modules that turn token ids into layer 0."""

    attention_dropout: str = "attention.self.dropout"
    """Path within a block of the dropout on attention weights, a module or a number."""


_LLAMA = Family(
    blocks="layers", final_norm="norm", embeddings=("embed_tokens",), attention_dropout="self_attn.attention_dropout"
)

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        blocks="h", final_norm="ln_f", embeddings=("wte", "wpe", "drop"), attention_dropout="attn.attn_dropout"
    ),
    "qwen2": _LLAMA,
    "llama": _LLAMA,
    "bert": Family(blocks="encoder.layer"),
    "roberta": Family(blocks="encoder.layer", positions_unused=2),
    "distilbert": Family(blocks="transformer.layer", attention_dropout="attention.dropout"),
    "mpnet": Family(blocks="encoder.layer", positions_unused=2, attention_dropout="attention.attn.dropout"),
}
"""``model_type`` of a configuration -> its family."""


def family_of(source: Source) -> Family:
    """Return the family of a backbone; raise :class:`SpecError` if the blocks of its kind cannot be trained."""
    kind = str(source.config.get("model_type"))
    if kind not in FAMILIES or source.architecture.window:
        raise SpecError(
            f"finetune.cut: the blocks of '{source.name}', of the kind '{kind}', cannot be trained. Without a sliding "
            f"window, those of these kinds can: {', '.join(FAMILIES)}."
        )
    return FAMILIES[kind]
