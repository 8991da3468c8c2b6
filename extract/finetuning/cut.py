"""The cut of a backbone below its trainable blocks, and whether a backbone has one there; nothing here loads torch."""

from typing import Literal

from permafrost.data.spec import SpecError
from permafrost.data.store.plan import TEXT, CapturePlan, ExtractSpec, resolve_layers
from permafrost.extract.backbones.locate import Source, find_backbone
from permafrost.extract.finetuning.families import family_of

Cut = int | Literal["none"]
"""Last layer whose states are frozen, 0 for the embeddings; "none" if nothing is frozen."""


def check_cut(
    plan: CapturePlan, cut: Cut, layers: tuple[int, ...] | str = (-1,), cache: str = ExtractSpec.cache
) -> None:
    """Raise what a ``TopBlocks`` would raise for the same arguments, without reading weights."""
    source = find_backbone(plan, cache)
    frozen = count_frozen(source, plan, cut)
    try:
        resolve_layers(layers, range(frozen + 1, source.layers))
    except SpecError as error:
        raise SpecError(f"a probe reads layers above the cut, {cut}: {error}") from None


def count_frozen(source: Source, plan: CapturePlan, cut: Cut) -> int:
    """Return the number of frozen blocks; raise :class:`SpecError` if the backbone cannot be cut there."""
    family_of(source)
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
