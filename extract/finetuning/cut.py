"""The cut of a backbone below its trainable blocks, and how the blocks above it can be run; without torch."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from permafrost.data.digests import digest_of, digest_of_parts
from permafrost.data.machine import package_version
from permafrost.data.plan.plan import TEXT, CapturePlan
from permafrost.data.spec import SpecError
from permafrost.extract.architecture.configuration import canonical_json
from permafrost.extract.backbones.locate import Source

Cut = int | Literal["none"]
"""Last layer whose states are frozen, 0 for the embeddings; "none" if nothing is frozen."""

PROVEN_BY = (
    "data/ragged.py",
    "extract/architecture/discover.py",
    "extract/architecture/small_config.py",
    "extract/architecture/small_model.py",
    "extract/proofs/reference.py",
    "extract/proofs/structure.py",
    "extract/proofs/twin.py",
    "extract/finetuning/cut_model.py",
    "extract/finetuning/cut_proof.py",
    "extract/finetuning/dropout.py",
    "extract/finetuning/skipped_blocks.py",
    "extract/attention/varlen.py",
)
"""Files of the code that is proven, and that proves it; what other code proved is proven again."""


class Batching(StrEnum):
    """How texts of unequal length share a forward pass."""

    ROWS = "back to back"
    """In one row without padding; attention is kept within each text."""

    PADDED = "padded"
    """In groups of similar length, padding on the right; masked, unless the model is causal."""

    EQUAL = "equal lengths"
    """In groups of one length."""


@dataclass(frozen=True, kw_only=True)
class CutRoad:
    """How the blocks above a cut are run."""

    batching: Batching
    runs_first: bool = False
    """Whether the first block is run too, on any states, for what it hands to all others (the position bias of T5)."""


def count_frozen(source: Source, plan: CapturePlan, cut: Cut) -> int:
    """Return the number of frozen blocks; raise :class:`SpecError` if the backbone cannot be cut there."""
    blocks = source.layers - 1
    if cut != "none" and not 0 <= cut < blocks:
        raise SpecError(
            f"finetune.cut = {cut}, but '{source.name}' has {blocks} blocks: a cut lies from 0, which freezes the "
            f'embeddings alone, to {blocks - 1}, or is "none".'
        )
    if plan.template.count(TEXT) > 1:
        raise SpecError(
            "plan.template names {text} twice, so only the second occurrence is pooled, but fine-tuned blocks run on "
            "both; name it once."
        )
    return 0 if cut == "none" else cut


def proof_key(source: Source, final_norm: bool) -> str:
    """Return a key of everything that a proof of a cut depends on, the code included."""
    root = Path(__file__).parents[2]
    code = digest_of_parts([(root / name).read_bytes() for name in PROVEN_BY])
    versions = [package_version("torch"), package_version("transformers"), code]
    return digest_of(repr((canonical_json(source.config), source.architecture, final_norm, versions)).encode())
