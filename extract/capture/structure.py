"""Structure of the batched forward: texts run together against each alone, in float64, dimension by dimension.

What a mask, position, prefix, pooling or layer does wrong is orders of magnitude beyond the rounding of float64, so no
massive activation and no coarse precision hides it. float32 cannot hold such a rule: a dimension that is nearly equal
for all texts has no spread to speak of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.ragged import bounds
from permafrost.data.store.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.store.store import LatentStore
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import Source
from permafrost.extract.capture.forward import Pooled
from permafrost.extract.capture.packing import Pack
from permafrost.extract.capture.reference import POOLINGS, Reference
from permafrost.extract.capture.twin import Float64
from permafrost.extract.tokenization.token_batch import TokenBatch

FLOOR = 1e-2
"""Share of the largest value of a dimension that stands for its spread over texts, where that is smaller."""

ROW_TOKENS, USUAL_TOKENS, LONG = 24, 256, 48
"""Tokens of a short row, of a usual one, and of the longest text."""


class Runner(Protocol):
    """What runs texts through a backbone as an extraction does: its job."""

    plan: CapturePlan
    source: Source
    store: LatentStore
    spec: ExtractSpec
    backbone: Backbone

    def packed(self, tokens: TokenBatch, row_tokens: int = ..., batch_tokens: int = 0) -> list[Pack]:
        """Lay texts out in rows."""

    def forward(
        self, rows: Sequence[Any], tokens: TokenBatch, columns: Columns, backbone: Backbone | None = None
    ) -> Pooled:
        """Run rows once, by the job's backbone or another."""


@dataclass(frozen=True)
class Deviation:
    """The largest difference between texts together and alone, and where it is."""

    value: float = 0.0
    view: str = ""
    layer: int = 0

    def larger_of(self, other: "Deviation") -> "Deviation":
        """The larger of both; one that is no number is larger than any."""
        return self if self.value >= other.value or np.isnan(self.value) else other


def structure_deviation(job: Runner, model: Backbone, ids: NDArray[np.int32]) -> Deviation:
    """Deviation of every view and layer in float64, of texts together from each alone.

    Two requests: all layers, in short rows; and in rows of usual length, the layers between first and last of a part of
    the texts, of whose tokens views see a part.

    Args:
        model: in float64.
        ids: token ids that the texts are made of.
    """
    top, texts = model.source.layers, [ids[row % len(ids)][: model.source.longest] for row in _made_texts()]
    whole, part = _as_tokens(texts, False, False), _as_tokens(texts, True, model.source.segments)
    short = job.packed(whole, ROW_TOKENS, ROW_TOKENS * len(texts))
    usual = job.packed(whole, USUAL_TOKENS, USUAL_TOKENS * len(texts))
    half = [[row[::2] for row in pack[:: 1 + (len(pack) > 2)]] for pack in usual]  # as if the others were stored
    views = (*POOLINGS, TOKENS)
    requests: list[tuple[TokenBatch, Sequence[Sequence[NDArray[np.int64]]], Columns]] = [
        (whole, short, dict.fromkeys(views, tuple(range(top)))),
        (part, half, dict.fromkeys(views, tuple(range(1, top - 1)) or (0,))),
    ]
    alone: dict[tuple[int, bool], Tensor] = {}
    found = Deviation()
    with Float64():
        for tokens, packs, columns in requests:
            found = _request_deviation(job, model, tokens, packs, columns, alone).larger_of(found)
    return found


def _request_deviation(
    job: Runner,
    model: Backbone,
    tokens: TokenBatch,
    packs: Sequence[Sequence[NDArray[np.int64]]],
    columns: Columns,
    alone: dict[tuple[int, bool], Tensor],
) -> Deviation:
    """The largest deviation of some columns.

    Args:
        alone: text, and whether it has two segments -> its hidden states; filled as they are needed.
    """
    reference, told = Reference(model, job.plan.final_norm), tokens.token_type_ids is not None
    together = [job.forward(rows, tokens, columns, model) for rows in packs]
    wanted = []
    for text in np.concatenate([row for rows in packs for row in rows]).tolist():
        if (text, told) not in alone:
            kinds = tokens.token_type_ids_of(text).tolist() if told else None
            alone[text, told] = reference.states(tokens.of(text).tolist(), kinds)
        seen = np.arange(tokens.lengths[text])[tokens.span(text)].tolist()
        wanted.append(reference.latents(alone[text, told], seen, columns))
    worst = Deviation()
    for view, layers in columns.items():
        mine = np.concatenate([latents[view] for latents in together], axis=1)
        parts = [latents[view] if view == TOKENS else latents[view][:, None] for latents in wanted]
        for layer, own, theirs in zip(layers, mine, np.concatenate(parts, axis=1), strict=True):
            worst = Deviation(_by_dimension(own, theirs), view, layer).larger_of(worst)
    return worst


def _made_texts() -> list[NDArray[np.int64]]:
    """Texts of 1 to 48 tokens: beginnings of others, equal ends after other beginnings, repetitions."""
    rng = np.random.default_rng(0)

    def drawn(size: int) -> NDArray[np.int64]:
        return rng.integers(0, 1 << 30, size)

    first, second, long, end = drawn(16), drawn(9), drawn(LONG), drawn(3)
    made = [first[:1], first[:7], [*first[:7], *end], [*first[:7], *drawn(5)], [*first[:12], *drawn(2)], first]
    made += [second, [*second[:4], *drawn(7), *end], np.repeat(drawn(1), 6), long, [*long[:30], *drawn(6)]]
    return [np.asarray(row) for row in made]


def _as_tokens(texts: Sequence[NDArray[np.int32]], part: bool, segments: bool) -> TokenBatch:
    """Tokens of made-up texts; in ``part``, views see some of the tokens, and there are two segments where told."""
    lengths = np.array([len(row) for row in texts])
    pooled = np.array([[size // 3, size] for size in lengths], np.int32)
    kinds = np.concatenate([np.arange(size) >= size // 2 for size in lengths]).astype(np.int8)
    return TokenBatch(
        np.concatenate(texts).astype(np.int32),
        bounds(lengths),
        lengths.astype(np.int32),
        pooled if part else None,
        None,
        kinds if part and segments else None,
    )


def _by_dimension(mine: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference of ``[text, width]``, as a share of its spread; nan where one is no number."""
    sound = np.isfinite(theirs).all(0)  # what is not finite is told by layer and text when it is to be stored
    mine, theirs = mine[:, sound], theirs[:, sound]
    scale = np.maximum(theirs.std(0), FLOOR * np.abs(theirs).max(0, initial=0))
    difference = np.abs(mine - theirs).max(0)
    share = np.divide(difference, scale, where=scale > 0, out=np.where(difference == 0, 0, np.inf))
    return float(share.max(initial=0))
