"""Poolings: from the hidden states of a text to its latent, never reading padding; and from windows to their text.

A pooling is a pure function. ``hidden`` is ``[..., text, token, width]`` in float32 or float64; ``mask`` is
``[text, token]``, True for the tokens that a view sees of a text, which follow one another; the latent is
``[..., text, width]``.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.plan.plan import TOKENS, Columns, union_of_columns
from permafrost.data.plugin_registry import PluginError, Registered, named_errors
from permafrost.data.plugins import Pooling
from permafrost.data.ragged import Counts, concatenate_ranges, offsets_from_lengths
from permafrost.extract.tokenization.token_batch import TokenBatch


def pool_last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the last token."""
    return _select_token(hidden, mask.cumsum(1).argmax(1))


def pool_cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the first token: ``[CLS]`` or ``<s>`` if the tokenizer adds one."""
    return _select_token(hidden, torch.zeros_like(mask.sum(1)))


def pool_sum(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over tokens."""
    return _sum_tokens(hidden, mask)


def pool_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over tokens.

    Source: Reimers and Gurevych, "Sentence-BERT" (2019), section 3, MEAN-strategy.
    """
    return pool_sum(hidden, mask) / mask.sum(1)[:, None]


def pool_weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the position-weighted mean ``sum_i i h_i / sum_i i``, positions from 1.

    Suits causal models, whose later tokens have seen more of the text.

    Source: Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search" (2022), section 4.1.
    """
    weights = mask * mask.cumsum(1)
    return _sum_tokens(hidden, mask, weights) / weights.sum(1)[:, None]


def pool_max(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the maximum over tokens, dimension by dimension."""
    return _fill_padding(hidden, mask, -torch.inf).amax(-2)


LENGTHS = (5, 1, 9, 2)
"""Lengths of the texts that a pooling is tried on."""

TOLERANCE = 1e-5
"""Largest difference of a text pooled with others and alone, relative to its values: weights may be in float32."""


@cache
def checked_pooling(name: str, part: Pooling) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a pooling, from ``[..., text, token, width]`` and ``[text, token]`` to ``[..., text, width]``.

    It is tried on random states of a width, device and dtype before it is given the first ones of that width.

    Raises:
        PluginError: a text gets another latent beside longer ones than alone, the output has another shape or is not
            finite, or the function fails.
    """

    def pool(hidden: Tensor, mask: Tensor) -> Tensor:
        layers = hidden.reshape(-1, *hidden.shape[-3:])
        return torch.stack([_pool_layer(name, part, layer, mask) for layer in layers]).reshape(
            *hidden.shape[:-2], hidden.shape[-1]
        )

    tried = set[int]()

    def tried_pool(hidden: Tensor, mask: Tensor) -> Tensor:
        if hidden.shape[-1] not in tried:  # a pooling may have weights of one width
            _check(name, pool, hidden)
            tried.add(hidden.shape[-1])
        return pool(hidden, mask)

    return tried_pool


def _pool_layer(name: str, part: Pooling, hidden: Tensor, mask: Tensor) -> Tensor:
    """Pool one layer, ``[text, token, width]``; the tokens of each text, which follow one another, are put first."""
    counts, steps = mask.sum(1)[:, None], torch.arange(max(1, int(mask.sum(1).max())), device=mask.device)
    tokens = (mask.int().argmax(1)[:, None] + steps).clamp(max=mask.shape[1] - 1)
    real = steps < counts
    first = hidden[torch.arange(len(hidden), device=mask.device)[:, None], tokens].masked_fill(~real[..., None], 0)
    problem, plain = f"fails for states of shape {list(first.shape)}", torch.autocast(hidden.device.type, enabled=False)
    with named_errors(name, part, problem), plain:
        pooled = part.function(first, real)
    expected = (len(hidden), hidden.shape[-1])
    if not isinstance(pooled, Tensor) or pooled.shape != expected or pooled.dtype != hidden.dtype:
        found = f"{pooled.dtype} {list(pooled.shape)}" if isinstance(pooled, Tensor) else type(pooled).__name__
        raise PluginError(
            f"the pooling '{name}' must return a tensor of {hidden.dtype} and shape {list(expected)} for states of "
            f"shape {list(first.shape)}, got {found}."
        )
    return pooled


def _check(name: str, pool: Callable[[Tensor, Tensor], Tensor], like: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(len(LENGTHS), max(LENGTHS), like.shape[-1], generator=generator).to(like.device, like.dtype)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).to(like.device)
    with torch.no_grad():
        together = pool(hidden, mask)
        alone = [pool(hidden[n : n + 1, :size], mask[n : n + 1, :size]) for n, size in enumerate(LENGTHS)]
    if not together.isfinite().all():
        raise PluginError(f"the pooling '{name}' returns nan or infinity for random states; let it return numbers.")
    difference = (together - torch.cat(alone)).abs().amax(1) / together.abs().amax(1).clamp(min=1)
    for text, size in enumerate(LENGTHS):
        if not difference[text] <= TOLERANCE:
            raise PluginError(
                f"the pooling '{name}' gives a text of {size} tokens another latent beside one of {max(LENGTHS)} than "
                f"alone (they differ by {difference[text]:.2g}): use its second argument, which is False for "
                "padding, and nothing random."
            )


OURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "last": pool_last,
    "text_last": pool_last,
    "mean": pool_mean,
    "weighted_mean": pool_weighted_mean,
    "cls": pool_cls,
    "max": pool_max,
    "sum": pool_sum,
}

POOLINGS = Registered(OURS, Pooling, checked_pooling)
"""View -> its pooling."""


def _has_last(counts: Counts, before: Counts, total: Counts) -> NDArray[np.bool_]:
    return np.asarray(counts.astype(bool) & (before + counts == total))


SHARES: dict[str, Callable[[Counts, Counts, Counts], NDArray[Any]]] = {
    "last": _has_last,
    "text_last": _has_last,
    "mean": lambda counts, before, total: counts / total,
    "weighted_mean": lambda counts, before, total: counts * (counts + 1) / (total * (total + 1)),
    "cls": lambda counts, before, total: counts.astype(bool) & (before == 0),
    "sum": lambda counts, before, total: counts.astype(bool),
}
"""View -> the factors ``[window]`` by which the latents of windows add up to that of their text.

Arguments, ``[window]`` each: the tokens that the view sees of a window, of the windows before it, and of its text.
"""


class WindowPools:
    """Latents of texts, made of those of their windows, which may come in any order; sums are in float64."""

    def __init__(self, windows: TokenBatch, text_of_window: Counts, columns: Columns) -> None:
        """Start with nothing added.

        Args:
            windows: all windows of the texts, in order, as :meth:`TokenBatch.in_windows` returns them.
            columns: columns that are wanted of the texts.
        """
        self._windows, self._texts, self._wanted = windows, text_of_window, columns
        weighted = {"mean": columns["weighted_mean"]} if "weighted_mean" in columns else {}
        self.columns: Columns = union_of_columns([columns, weighted])
        """Columns that are needed of the windows."""

        self._shares = {view: SHARES[view](*self._counts(view)) for view in self.columns if view in SHARES}
        self._token_starts = offsets_from_lengths(windows.viewed_lengths)
        self._pools: dict[str, NDArray[Any]] = {}

    def add(self, members: Counts, captured: Mapping[str, NDArray[Any]]) -> None:
        """Add the latents of the windows ``members``, as :func:`permafrost.extract.capture.forward.capture` returns."""
        self._pools = self._pools or {view: self._empty_pool(view, values) for view, values in captured.items()}
        for view, values in captured.items():
            if view == TOKENS:
                lengths = self._windows.viewed_lengths[members]
                self._pools[view][:, concatenate_ranges(self._token_starts[members], lengths)] = values
            else:
                for position, window in enumerate(members.tolist()):
                    self._add_window(view, window, values[:, position])
        if "weighted_mean" in captured:
            self._shift_positions(members, captured["mean"])

    def latents(self, dtype: Any) -> dict[str, NDArray[Any]]:
        """Return view -> ``[layer, text, width]``; of ``tokens``, ``[layer, token, width]``, each token once, in order.

        Args:
            dtype: dtype of what was added.
        """
        latents = {}
        for view, layers in self._wanted.items():
            index = [self.columns[view].index(layer) for layer in layers]
            pool = self._pools[view]
            latents[view] = (pool if index == [*range(len(pool))] else pool[index]).astype(dtype, copy=False)
        return latents

    def _counts(self, view: str) -> tuple[Counts, Counts, Counts]:
        """Return the arguments of :data:`SHARES`."""
        windows, is_first = self._windows, np.append(True, self._texts[1:] != self._texts[:-1])
        counts = windows.viewed_lengths
        if view in windows.own_views and windows.own is not None:
            counts = windows.own[:, 1] - windows.own[:, 0]
        starts = np.cumsum(counts) - counts
        total = np.add.reduceat(counts, np.flatnonzero(is_first))
        return counts, starts - starts[is_first][self._texts], total[self._texts]

    def _empty_pool(self, view: str, values: NDArray[Any]) -> NDArray[Any]:
        layers, _, width = values.shape
        if view == TOKENS:
            return np.empty((layers, int(self._token_starts[-1]), width), values.dtype)
        return np.full((layers, int(self._texts[-1]) + 1, width), -np.inf if view == "max" else 0.0)

    def _add_window(self, view: str, window: int, latents: NDArray[Any]) -> None:
        pool = self._pools[view][:, self._texts[window]]
        if view == "max":
            np.maximum(pool, latents, out=pool)
        elif share := float(self._shares[view][window]):  # the latent of a window without tokens may be nan
            pool += share * latents.astype(np.float64)

    def _shift_positions(self, members: Counts, means: NDArray[Any]) -> None:
        """Add to weighted means what the tokens of windows weigh more by the positions of the windows before."""
        counts, before, total = self._counts("weighted_mean")
        shifts = 2 * counts * before / (total * (total + 1))
        layers = [self.columns["mean"].index(layer) for layer in self.columns["weighted_mean"]]
        for position, window in enumerate(members.tolist()):
            if shifts[window]:
                pool = self._pools["weighted_mean"][:, self._texts[window]]
                pool += shifts[window] * means[layers, position].astype(np.float64)


def _sum_tokens(hidden: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sum over tokens, each times its weight, ``[text, token]``."""
    if torch.is_inference_mode_enabled() and hidden.device.type == "cpu":
        return _add_up_rows(hidden, mask, weights)
    real = _fill_padding(hidden, mask, 0)
    return (real if weights is None else real * weights[:, :, None]).sum(-2)


def _add_up_rows(hidden: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    """Do the same in one pass, which copies nothing and reads no padding."""
    *layers, texts, tokens, width = hidden.shape
    every = mask.expand(*layers, texts, tokens).reshape(-1, tokens)
    counts = every.sum(1)
    factors = None if weights is None else weights.to(hidden.dtype).expand(*layers, texts, tokens)
    summed = nn.functional.embedding_bag(
        every.reshape(-1).nonzero()[:, 0],
        hidden.reshape(-1, width),
        counts.cumsum(0) - counts,
        mode="sum",
        per_sample_weights=None if factors is None else factors.reshape(-1, tokens)[every],
    )
    return summed.view(*layers, texts, width)


def _fill_padding(hidden: Tensor, mask: Tensor, filler: float) -> Tensor:
    return hidden.masked_fill(~mask[:, :, None], filler)  # not times mask: 0 * nan is nan


def _select_token(hidden: Tensor, position: Tensor) -> Tensor:
    return hidden[..., torch.arange(len(position), device=position.device), position, :]
