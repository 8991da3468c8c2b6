"""Structure of the batched forward: texts run together against each alone, in float64, dimension by dimension.

What a mask, position, prefix, pooling or layer does wrong is orders of magnitude beyond the rounding of float64, so no
massive activation and no coarse precision hides it. float32 cannot hold such a rule: a dimension that is nearly equal
for all texts has no spread to speak of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.plan import TOKENS, Columns
from data.ragged import bounds
from extract.loading import Backbone
from extract.reference import POOLINGS, Reference
from extract.token_rows import Tokens
from extract.twin import Float64

if TYPE_CHECKING:
    from extract.job import Job

FLOOR = 1e-2
"""Share of the largest value of a dimension that stands for its spread over texts, where that is smaller."""

ROW_TOKENS, LONG = 24, 150
"""Tokens of a row, and of a text that is longer than one."""


@dataclass(frozen=True)
class Deviation:
    """The largest difference between texts together and alone, and where it is."""

    value: float = 0.0
    view: str = ""
    layer: int = 0

    def larger_of(self, other: "Deviation") -> "Deviation":
        """The larger of both; one that is no number is larger than any."""
        return self if self.value >= other.value or np.isnan(self.value) else other


def structure_deviation(job: "Job", model: Backbone, ids: NDArray[np.int32]) -> Deviation:
    """Deviation of every view and layer in float64, of texts together from each alone.

    Args:
        model: in float64.
        ids: token ids that the texts are made of.
    """
    worst, top = Deviation(), model.source.layers
    texts = [ids[row % len(ids)][: model.source.positions] for row in _made_texts()]
    views = (*POOLINGS, TOKENS)
    for part, layers in ((False, range(top)), (True, range(top - 1))):
        columns = dict.fromkeys(views, tuple(layers))
        tokens = _as_tokens(texts, part, model.source.segments)
        step = 1 + part  # as of a pack that is stored in part: some of its rows, and of those some texts
        packed = job.packed(tokens, ROW_TOKENS, ROW_TOKENS * len(texts))
        packs = [[row[::step] for row in pack[::step]] for pack in packed]
        with Float64():
            together = [job.forward(rows, tokens, columns, model) for rows in packs]
            order = np.concatenate([row for rows in packs for row in rows])
            alone = [_alone(job, model, tokens, int(text), columns) for text in order]
        for view in views:
            found = np.concatenate([latents[view] for latents in together], axis=1)
            wanted = [latents[view] if view == TOKENS else latents[view][:, None] for latents in alone]
            for layer, (mine, theirs) in enumerate(zip(found, np.concatenate(wanted, axis=1), strict=True)):
                worst = Deviation(_by_dimension(mine, theirs), view, layer).larger_of(worst)
    return worst


def _alone(job: "Job", model: Backbone, tokens: Tokens, text: int, columns: Columns) -> dict[str, NDArray[Any]]:
    reference = Reference(model, job.plan.final_norm)
    kinds = tokens.kinds_of(text).tolist() if tokens.kinds is not None else None
    seen = np.arange(tokens.lengths[text])[tokens.span(text)].tolist()
    return reference.latents(reference.states(tokens.of(text).tolist(), kinds), seen, columns)


def _made_texts() -> list[NDArray[np.int64]]:
    """Texts of 1 to 24 tokens, and two longer ones: beginnings of others, equal ends, repetitions."""
    rng = np.random.default_rng(0)

    def drawn(size: int) -> NDArray[np.int64]:
        return rng.integers(0, 1 << 30, size)

    first, second, end = drawn(16), drawn(9), drawn(3)
    made = [first[:1], first[:2], first[:7], [*first[:7], *end], [*first[:7], *drawn(5)], [*first[:12], *drawn(2)]]
    made += [[*first[:12], *drawn(1)], first, second, [*second[:4], *drawn(7), *end], np.repeat(drawn(1), 6)]
    long = drawn(LONG)
    return [np.asarray(row) for row in [*made, drawn(ROW_TOKENS), long, [*long[: LONG // 2], *drawn(20)]]]


def _as_tokens(texts: Sequence[NDArray[np.int32]], part: bool, segments: bool) -> Tokens:
    """Tokens of made-up texts; in ``part``, views see some of the tokens, and there are two segments where told."""
    lengths = np.array([len(row) for row in texts])
    pooled = np.array([[size // 3, size] for size in lengths], np.int32)
    kinds = np.concatenate([np.arange(size) >= size // 2 for size in lengths]).astype(np.int8)
    return Tokens(
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
