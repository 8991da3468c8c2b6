"""Reference implementation for the self-check: single texts by transformers' own tokenizer and hidden states.

It shares no code for templates, truncation, packing, masks, positions or pooling with the extraction that it checks;
only the tokenizer's files are read for both by :mod:`permafrost.extract.backbones.tokenizer_files`. It is slow and
short on purpose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.plan.plan import NO_WINDOWS, TOKENS, VIEWS, CapturePlan, Columns
from permafrost.data.plugin_registry import find, named_errors
from permafrost.data.plugins import Pooling
from permafrost.data.text import Segments, Text
from permafrost.extract.architecture.discover import call, hidden_states
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.tokenizer import make_tokenizer
from permafrost.extract.backbones.tokenizer_files import read_tokenizer
from permafrost.extract.tokenization.rewording import reword

if TYPE_CHECKING:  # a run whose latents are all stored does without transformers
    from transformers import BatchEncoding


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda states: states[:, -1],
    "text_last": lambda states: states[:, -1],
    "cls": lambda states: states[:, 0],
    "sum": lambda states: states.sum(1),
    "mean": lambda states: states.mean(1),
    "max": lambda states: states.amax(1),
    "weighted_mean": lambda states: torch.einsum("ltw,t->lw", states, _ranks(states)) / _ranks(states).sum(),
}
"""View -> its pooling by definition, ``[layer, token, width]`` to ``[layer, width]``."""

OVER_MANY = ("mean", "weighted_mean", "max", "sum")
"""Views over many tokens."""


def _ranks(states: Tensor) -> Tensor:
    return torch.arange(1, states.shape[1] + 1, dtype=states.dtype)


Span = tuple[int, int]

NOTHING: Span = (-1, -1)
"""Span of a token that covers no character of the text."""


@dataclass(frozen=True, kw_only=True)
class ReferenceText:
    """Tokens of one text as transformers makes them."""

    ids: list[int]
    token_type_ids: list[int] | None
    """``[token]``; None for a text of one segment."""

    seen: list[int]
    """Indices of the tokens that the views see."""

    words: bool
    """Whether there are words around the text, which views over many tokens leave out."""

    spans: list[Span]
    """Characters of the text that each token in ``seen`` covers, end excluded; (-1, -1) if it covers none."""

    uncut: int
    """Tokens before truncation."""

    inside: Span
    """Range of the tokens of the text, those of the template and special ones left out, end excluded."""

    @property
    def own(self) -> list[int]:
        """Indices of the tokens from the first to the last that covers characters of the text."""
        covering = [index for index, span in zip(self.seen, self.spans, strict=True) if span != NOTHING]
        return [index for index in self.seen if covering and covering[0] <= index <= covering[-1]]


class ReferenceTokenizer:
    """Tokenizer that transformers makes of a folder's files, which are read anew."""

    def __init__(self, folder: Path, plan: CapturePlan) -> None:
        self._tokenizer, self._plan = make_tokenizer(read_tokenizer(folder)), plan
        segments = self._tokenizer("a", "a").sequence_ids(0)
        self._between = "\n" if (0, 1) in pairwise(segments) else ""

    def __call__(self, text: Text, length: int, uncut: int) -> ReferenceText:
        """Tokenize a text as the plan says.

        Args:
            length: number of tokens by the extraction under check; of a window, it also tells which stretch of the
                second segment to return.
            uncut: number of tokens before truncation, likewise.
        """
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
        if isinstance(text, Segments):
            encoding = self._tokenizer(text.first + self._between, text.second, **options)
            return self._tokenize_pair(encoding, length, uncut)
        reworded, pieces = reword(text, self._plan.rewording), self._plan.template.split("{text}")
        starts = [len(reworded.join(pieces[:count])) for count in range(1, len(pieces))]
        options["add_special_tokens"] = self._plan.add_special_tokens
        encoding = self._tokenizer(reworded.join(pieces), **options)
        return self._tokenize_single(encoding, [(start, start + len(reworded)) for start in starts])

    def covers(self, text: Segments, lengths: Sequence[int], uncut: Sequence[int]) -> bool:
        """Return whether windows with these ``lengths`` and ``uncut`` together hold every token of a text."""
        segments = self._tokenizer(text.first + self._between, text.second).sequence_ids(0)
        second = segments.count(1)
        starts = [len(segments) - rest for rest in uncut]
        ends = [start + length - len(segments) + second for start, length in zip(starts, lengths, strict=True)]
        follows = all(start <= end for start, end in zip(starts[1:], ends, strict=False))
        return starts[0] == 0 and follows and ends[-1] == second

    def _tokenize_single(self, encoding: "BatchEncoding", occurrences: Sequence[Span]) -> ReferenceText:
        """Cut every occurrence of the text in its template to the same number of tokens."""
        ids, special, offsets = encoding["input_ids"], encoding["special_tokens_mask"], encoding["offset_mapping"]
        inside = [
            [n for n, (first, end) in enumerate(offsets) if not special[n] and end > low and first < high]
            for low, high in occurrences
        ]
        kept = list(range(len(ids)))
        if len(ids) > self._plan.token_limit and self._plan.overlap == NO_WINDOWS:
            room = (self._plan.token_limit - len(ids) + sum(map(len, inside))) // len(inside)
            kept = sorted({*kept} - {n for tokens in inside for n in tokens[room:]})
        pooled = {*inside[-1]}
        seen = [index for index, n in enumerate(kept) if len(occurrences) == 1 or n in pooled]
        low, high = occurrences[-1]
        spans = [
            (max(offsets[n][0], low) - low, min(offsets[n][1], high) - low)
            if n in pooled and offsets[n][0] < offsets[n][1]
            else NOTHING
            for n in (kept[index] for index in seen)
        ]
        return ReferenceText(
            ids=[ids[n] for n in kept],
            token_type_ids=None,
            seen=seen,
            words=len(occurrences) == 1 and self._plan.template != "{text}",
            spans=spans,
            uncut=len(ids),
            inside=(inside[-1][0], inside[-1][-1] + 1) if inside[-1] else (0, 0),
        )

    def _tokenize_pair(self, encoding: "BatchEncoding", length: int, uncut: int) -> ReferenceText:
        """Cut the second segment, or select the stretch of it that a window holds."""
        ids, segments = encoding["input_ids"], encoding.sequence_ids(0)
        second = [n for n, segment in enumerate(segments) if segment == 1]
        fixed = len(ids) - len(second)
        whole = self._plan.overlap == NO_WINDOWS or len(ids) <= self._plan.token_limit
        start = 0 if whole else max(0, len(ids) - uncut)
        size = min(len(ids) if whole else length, self._plan.token_limit) - fixed
        held = set(second[start : start + size])
        kept = [n for n, segment in enumerate(segments) if segment != 1 or n in held]
        offsets = encoding["offset_mapping"]
        spans = [tuple(offsets[n]) if segments[n] == 1 and offsets[n][0] < offsets[n][1] else NOTHING for n in kept]
        return ReferenceText(
            ids=[ids[n] for n in kept],
            token_type_ids=[encoding["token_type_ids"][n] for n in kept],
            seen=list(range(len(kept))),
            words=False,
            spans=spans,
            uncut=len(ids) - start,
            inside=(0, len(kept)),
        )


def reference_states(
    backbone: Backbone, final_norm: bool, ids: Sequence[int], token_type_ids: Sequence[int] | None = None
) -> Tensor:
    """Return the hidden states of one text by the plain forward pass of transformers: unpadded, through all blocks.

    Args:
        final_norm: take the last layer after the backbone's final norm.

    Returns:
        ``[layer, token, width]`` in the backbone's dtype.
    """
    segments = {"token_type_ids": token_type_ids} if token_type_ids and backbone.source.segments else {}
    row = {name: torch.tensor([values]).to(backbone.device) for name, values in ({"input_ids": ids} | segments).items()}
    model, architecture = backbone.model, backbone.source.architecture
    entering: list[Tensor] = []
    leaving: list[Tensor] = []
    handles = []
    with backbone.lock:
        for block in backbone.blocks:
            enter = block.register_forward_pre_hook(
                lambda _, values, named: entering.append(hidden_states([*values, named])),
                with_kwargs=True,
            )
            leave = block.register_forward_hook(lambda _, __, output: leaving.append(hidden_states(output)))
            handles += [enter, leave]
        try:
            output = call(model, **row, output_hidden_states=True)
        finally:
            for handle in handles:
                handle.remove()
    last = output[0] if final_norm or not architecture.chained else leaving[-1]
    below = output.hidden_states[:-1] if architecture.reported else entering
    states = [layer.to(backbone.device) for layer in (*below, last)]
    return torch.cat([layer if layer.shape[0] == 1 else layer.transpose(0, 1) for layer in states])


def states_in_windows(states_alone: Callable[[list[int]], Tensor], stretches: Sequence[Span], tokens: int) -> Tensor:
    """Return the hidden states of a text that is run in windows, ``[layer, token, width]``.

    Args:
        states_alone: indices of the tokens of a window -> its hidden states.
        stretches: tokens of the text in each window, end excluded; the tokens around them are in every window.
        tokens: number of tokens of the text, with those around.
    """
    before, after = range(stretches[0][0]), range(stretches[-1][1], tokens)

    def distance(window: int, token: int) -> int:
        """Return how far a token is from the nearer end of a window; negative outside."""
        start, stop = stretches[window]
        return min(token - start, stop - 1 - token)

    windows = range(len(stretches))
    counts_in = [0 if token in before else windows[-1] for token in range(tokens)]
    for token in range(len(before), tokens - len(after)):
        counts_in[token] = max(windows, key=lambda window: (distance(window, token), -window))
    found: list[Tensor] = [torch.empty(0)] * tokens
    for window, stretch in enumerate(stretches):
        held = [*before, *range(*stretch), *after]
        for token, state in zip(held, states_alone(held).unbind(1), strict=True):
            if counts_in[token] == window:
                found[token] = state
    return torch.stack(found, 1)


def reference_latents(
    states: Tensor, seen: Sequence[int], own: Sequence[int], words: bool, columns: Columns
) -> dict[str, NDArray[Any]]:
    """Pool hidden states: view -> ``[layer, width]`` in float64; of ``tokens``, ``[layer, token, width]``.

    Args:
        seen: indices of the tokens that the views see.
        own: indices of those of the text itself.
        words: whether there are words around the text, which views over many tokens leave out.
    """
    exact = states.to("cpu", torch.float64)
    latents = {}
    for view, layers in columns.items():
        over_many = view in OVER_MANY or view not in VIEWS
        chosen = own if view == "text_last" or (words and over_many) else seen
        tokens = exact[:, list(chosen)]
        latents[view] = (tokens if view == TOKENS else _pooled(view, tokens))[list(layers)].numpy()
    return latents


def _pooled(view: str, tokens: Tensor) -> Tensor:
    """Pool the tokens of one text, ``[layer, token, width]``; one from outside is given each layer alone, unpadded."""
    if view in POOLINGS:
        return POOLINGS[view](tokens)
    part, mask = find(Pooling, view), torch.ones(1, tokens.shape[1], dtype=torch.bool)
    with named_errors(view, part):
        return torch.cat([part.function(layer[None], mask) for layer in tokens])
