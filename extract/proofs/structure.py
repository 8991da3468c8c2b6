"""Structure of the batched forward pass: texts run together against each alone, in float64, dimension by dimension.

A wrong mask, position, prefix, pooling or layer causes a deviation orders of magnitude beyond the rounding of float64,
so neither massive activations nor low precision can hide it. In float32 no such tolerance exists: a dimension that is
nearly equal for all texts has no spread to compare with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.plan.plan import NO_WINDOWS, SUMMARIES, TEXT_LAST, TOKENS, Columns
from permafrost.data.ragged import Counts, offsets_from_lengths
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.capture.forward import Pooled
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.proofs.reference import POOLINGS, reference_latents, reference_states, states_in_windows
from permafrost.extract.proofs.twin import Float64
from permafrost.extract.tokenization.text_windows import TextWindows
from permafrost.extract.tokenization.token_batch import TokenBatch

FLOOR = 1e-2
"""Least spread of a dimension over texts, as a share of its largest value."""

SHORT_ROW_TOKENS, ROW_TOKENS, LONGEST_TEXT = 24, 256, 48
"""Tokens of a short row, of a row of ordinary length, and of the longest text."""


@dataclass(frozen=True)
class Deviation:
    """Largest difference between texts run together and alone, with its view and layer."""

    value: float
    view: str
    layer: int


def structure_deviation(runner: BackboneRunner, model: Backbone, ids: NDArray[np.int32]) -> Deviation:
    """Return the largest deviation of texts run together from each alone, over all views and layers, in float64.

    NaN counts as larger than any number. Two requests are compared: all layers, in short rows; and in rows of ordinary
    length, the inner layers of a subset of the texts, with views that see a part of the tokens. If the plan has
    windows, a third is of texts in windows.

    Args:
        model: in float64.
        ids: token ids that the texts are made of.
    """
    layers, texts = model.source.layers, [ids[text % len(ids)][: model.source.longest] for text in draw_texts()]
    whole, partial = _as_tokens(texts, False, False), _as_tokens(texts, True, model.source.segments)
    short_packs = runner.pack(whole, SHORT_ROW_TOKENS, SHORT_ROW_TOKENS * len(texts))
    packs = runner.pack(whole, ROW_TOKENS, ROW_TOKENS * len(texts))
    half = [[row[::2] for row in pack[:: 1 + (len(pack) > 2)]] for pack in packs]  # as if the others were stored
    views = (*POOLINGS, TOKENS)
    requests: list[tuple[TokenBatch, Sequence[Sequence[NDArray[np.int64]]], Columns]] = [
        (whole, short_packs, dict.fromkeys(views, tuple(range(layers)))),
        (partial, half, dict.fromkeys(views, tuple(range(1, layers - 1)) or (0,))),
    ]
    if runner.plan.overlap != NO_WINDOWS:
        windowed = replace(whole, own_views=partial.own_views, windows=_draw_windows(whole.lengths))
        requests.append((windowed, runner.pack(windowed), dict.fromkeys(views, tuple(range(layers)))))

    @cache
    def states_alone(text: int, paired: bool) -> Tensor:
        token_type_ids = partial.token_type_ids_of(text).tolist() if paired else None
        return reference_states(model, runner.plan.final_norm, whole.ids_of(text).tolist(), token_type_ids)

    def states_of(text: int, tokens: TokenBatch) -> Tensor:
        if not tokens.split(np.array([text])).any():
            return states_alone(text, tokens.token_type_ids is not None)
        assert tokens.windows is not None
        stretches = tokens.windows.select(np.array([text])).ranges.tolist()
        ids, final_norm = tokens.ids_of(text), runner.plan.final_norm
        return states_in_windows(
            lambda held: reference_states(model, final_norm, ids[held].tolist()), stretches, len(ids)
        )

    deviations: list[Deviation] = []
    with Float64():
        for tokens, request_packs, columns in requests:
            together = [runner.forward(rows, tokens, columns, model) for rows in request_packs]
            alone = []
            for text in np.concatenate([row for rows in request_packs for row in rows]).tolist():
                seen = np.arange(tokens.lengths[text])[tokens.viewed_range(text)].tolist()
                assert tokens.own is not None
                own, words = np.arange(*tokens.own[text]).tolist(), SUMMARIES[0] in tokens.own_views
                alone.append(reference_latents(states_of(text, tokens), seen, own, words, columns))
            deviations += _deviations(together, alone, columns)
    return max(reversed(deviations), key=lambda deviation: (np.isnan(deviation.value), deviation.value))


def evenly_spaced(values: Sequence[int] | NDArray[np.int64], most: int) -> list[int]:
    """Return at most ``most`` of some values, evenly spaced, the first and the last among them."""
    return [int(values[index]) for index in np.unique(np.linspace(0, len(values) - 1, most).astype(int))]


def _deviations(
    together: Sequence[Pooled], alone: Sequence[dict[str, NDArray[Any]]], columns: Columns
) -> Iterator[Deviation]:
    """Yield the deviation of each layer of some columns, of packs run together from their texts alone."""
    for view, layers in columns.items():
        by_layer = np.concatenate([latents[view] for latents in together], axis=1)
        texts = [latents[view] if view == TOKENS else latents[view][:, None] for latents in alone]
        for layer, actual, wanted in zip(layers, by_layer, np.concatenate(texts, axis=1), strict=True):
            yield Deviation(relative_to_spread(actual, wanted), view, layer)


def draw_texts() -> list[NDArray[np.int64]]:
    """Draw texts of 1 to 48 tokens: prefixes of others, equal ends after different beginnings, repetitions."""
    rng = np.random.default_rng(0)

    def draw(size: int) -> NDArray[np.int64]:
        return rng.integers(0, 1 << 30, size)

    first, second, long, end = draw(16), draw(9), draw(LONGEST_TEXT), draw(3)
    texts = [first[:1], first[:7], [*first[:7], *end], [*first[:7], *draw(5)], [*first[:12], *draw(2)], first]
    texts += [second, [*second[:4], *draw(7), *end], np.repeat(draw(1), 6), long, [*long[:30], *draw(6)]]
    return [np.asarray(text) for text in texts]


def _draw_windows(lengths: Counts) -> TextWindows:
    """Return windows of at most eight tokens between the first and the last of a text; short texts have one."""
    of_texts = [
        [(start, min(start + 8, size - 1)) for start in range(1, size - 4, 5)] if size > 12 else [(0, size)]
        for size in lengths.tolist()
    ]
    counts = np.array([len(windows) for windows in of_texts])
    return TextWindows(offsets=offsets_from_lengths(counts), ranges=np.concatenate(of_texts))


def _as_tokens(texts: Sequence[NDArray[np.int32]], partial: bool, segments: bool) -> TokenBatch:
    """Return texts as a batch, whose own tokens lie in the middle.

    If ``partial``, views see a part of the tokens, those over many tokens see the own ones alone, and segments are told
    apart if asked.
    """
    lengths = np.array([len(text) for text in texts])
    pooled = np.array([[size // 3, size] for size in lengths], np.int32)
    own = np.array([[size // 2, size - size // 5] for size in lengths])
    token_type_ids = np.concatenate([np.arange(size) >= size // 2 for size in lengths]).astype(np.int8)
    return TokenBatch(
        ids=np.concatenate(texts).astype(np.int32),
        offsets=offsets_from_lengths(lengths),
        uncut=lengths.astype(np.int32),
        pooled=pooled if partial else None,
        own=own,
        own_views=(TEXT_LAST, *SUMMARIES) if partial else (TEXT_LAST,),
        token_type_ids=token_type_ids if partial and segments else None,
    )


def relative_to_spread(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference of ``[text, width]`` as a share of a dimension's spread; NaN if a value is NaN."""
    finite = np.isfinite(expected).all(0)  # other values are reported by layer and text when they are stored
    actual, expected = actual[:, finite], expected[:, finite]
    scale = np.maximum(expected.std(0), FLOOR * np.abs(expected).max(0, initial=0))
    difference = np.abs(actual - expected).max(0)
    share = np.divide(difference, scale, where=scale > 0, out=np.where(difference == 0, 0, np.inf))
    return float(share.max(initial=0))
