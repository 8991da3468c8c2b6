"""Settings of ``[similarity]``: sentences whose cosine similarities are measured, without training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from permafrost.data.spec import SpecError, nearest
from permafrost.data.text import list_of_texts, text_problem

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class SimilaritySpec:
    """Which sentences are compared, with which encoders and pooling."""

    texts: tuple[str, ...] = ()
    """Two or more sentences whose pairwise cosine similarities are measured; if empty, the recipe trains probes."""

    backbones: tuple[str, ...] = ("minilm",)
    """Sentence encoders, named as in plan.backbone; an unavailable one is skipped if another is available."""

    pooling: Pooling = "mean"
    """Sentence embedding from the last layer: "mean" over all tokens, special tokens included, or "cls", the first
    token."""

    def __post_init__(self) -> None:
        if len(self.texts) == 1:
            raise SpecError(f"texts must be two sentences or more, got 1: {self.texts[0][:40]!r}.")
        for number, text in enumerate(self.texts, 1):
            if reason := text_problem(text):
                raise SpecError(f"texts: sentence {number} {reason}.")
        repeated = [name for name in self.backbones if self.backbones.count(name) > 1]
        if repeated:
            raise SpecError(f"backbones names '{repeated[0]}' twice.")
        if not self.backbones:
            raise SpecError("backbones must name at least one.")


def with_arguments(
    spec: SimilaritySpec, texts: Sequence[str] | None = None, backbones: Sequence[str] = (), pooling: str = ""
) -> SimilaritySpec:
    """Return ``spec`` with the given sentences, backbones and pooling; what is not given stays.

    Raises:
        SpecError: there are fewer than two sentences, one is empty or no text, a backbone is repeated, or the pooling
            is unknown.
    """
    texts = texts if texts is None else list_of_texts([texts] if isinstance(texts, str) else texts)
    backbones = (backbones,) if isinstance(backbones, str) else backbones
    if texts is not None and not texts:
        raise SpecError("similarity.texts must be two sentences or more, got none.")
    if pooling and pooling not in get_args(Pooling):
        raise SpecError(f"similarity.pooling = '{pooling}': {nearest(pooling, get_args(Pooling))}")
    try:
        return replace(
            spec,
            texts=spec.texts if texts is None else tuple(texts),
            backbones=tuple(backbones) or spec.backbones,
            pooling=pooling or spec.pooling,  # type: ignore[arg-type]
        )
    except SpecError as error:
        raise SpecError(f"similarity.{error}") from error
