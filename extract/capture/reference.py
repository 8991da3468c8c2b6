"""The reference that stage one is checked against: one text alone, by transformers' tokenizer and hidden states.

It shares no template, truncation, packing, mask, position or pooling with what it checks; the tokenizer's files are
read for both by :mod:`extract.tokenizer_files`. Slow and short on purpose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.store.plan import TOKENS, WHOLE, CapturePlan, Columns
from permafrost.data.text import Segments, Text
from permafrost.extract.backbones.load import Backbone, make_tokenizer
from permafrost.extract.backbones.tokenizer_files import read_tokenizer
from permafrost.extract.tokenization.rewording import reword

if TYPE_CHECKING:
    from transformers import BatchEncoding


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda states: states[:, -1],
    "cls": lambda states: states[:, 0],
    "sum": lambda states: states.sum(1),
    "mean": lambda states: states.mean(1),
    "max": lambda states: states.amax(1),
    "weighted_mean": lambda states: torch.einsum("ltw,t->lw", states, _ranks(states)) / _ranks(states).sum(),
}
"""``[layer, token, width]`` -> ``[layer, width]``: each pooling by its definition."""


def _ranks(states: Tensor) -> Tensor:
    return torch.arange(1, states.shape[1] + 1, dtype=states.dtype)


Span = tuple[int, int]

NOTHING: Span = (-1, -1)


@dataclass(frozen=True)
class ReferenceText:
    """One text as transformers tokenizes it."""

    ids: list[int]
    token_type_ids: list[int] | None
    """None for a text of one segment."""

    seen: list[int]
    """Which tokens the views see."""

    spans: list[Span]
    """Of the tokens that the views see: the characters of the text that each covers, or (-1, -1)."""

    uncut: int
    """Tokens before truncation."""


class ReferenceTokenizer:
    """The tokenizer that transformers makes of a folder's files, read anew."""

    def __init__(self, folder: Path, plan: CapturePlan) -> None:
        self._call, self._plan = make_tokenizer(read_tokenizer(folder)), plan
        together = self._call("a", "a").sequence_ids(0)
        self._between = "\n" if (0, 1) in pairwise(together) else ""

    def __call__(self, text: Text, length: int, uncut: int) -> ReferenceText:
        """Tokenize a text as the plan says.

        Args:
            length: tokens that the extraction says the text has. For a window, it also says which stretch of the second
                segment is compared.
            uncut: the same before truncation.
        """
        asked = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_token_type_ids": True}
        if isinstance(text, Segments):
            return self._pair(text, self._call(text.first + self._between, text.second, **asked), length, uncut)
        worded, around = reword(text, self._plan.rewording), self._plan.template.split("{text}")
        starts = [len(worded.join(around[:place])) for place in range(1, len(around))]
        return self._single(self._call(worded.join(around), **asked), [(at, at + len(worded)) for at in starts])

    def covers(self, text: Segments, lengths: Sequence[int], uncut: Sequence[int]) -> bool:
        """Whether the windows of a text, of which these are ``length`` and ``uncut``, leave out no token of it."""
        sides = self._call(text.first + self._between, text.second).sequence_ids(0)
        second = sides.count(1)
        starts = [len(sides) - rest for rest in uncut]
        ends = [start + length - len(sides) + second for start, length in zip(starts, lengths, strict=True)]
        follows = all(start <= end for start, end in zip(starts[1:], ends, strict=False))
        return starts[0] == 0 and follows and ends[-1] == second

    def _single(self, found: "BatchEncoding", places: Sequence[Span]) -> ReferenceText:
        """Tokens of a text within its template, each place cut at its end by as many."""
        ids, special, offsets = found["input_ids"], found["special_tokens_mask"], found["offset_mapping"]
        within = [
            [n for n, (first, end) in enumerate(offsets) if not special[n] and end > low and first < high]
            for low, high in places
        ]
        kept = list(range(len(ids)))
        if len(ids) > self._plan.max_tokens:
            room = (self._plan.max_tokens - len(ids) + sum(map(len, within))) // len(within)
            kept = sorted({*kept} - {n for tokens in within for n in tokens[room:]})
        seen = [at for at, n in enumerate(kept) if len(places) == 1 or n in within[-1]]
        low, high = places[-1]
        spans = [
            (max(offsets[n][0], low) - low, min(offsets[n][1], high) - low)
            if n in within[-1] and offsets[n][0] < offsets[n][1]
            else NOTHING
            for n in (kept[at] for at in seen)
        ]
        return ReferenceText([ids[n] for n in kept], None, seen, spans, len(ids))

    def _pair(self, text: Segments, found: "BatchEncoding", length: int, uncut: int) -> ReferenceText:
        """Tokens of both segments, or of one window: all but a stretch of the second is the same in each."""
        ids, kinds, sides = found["input_ids"], found["token_type_ids"], found.sequence_ids(0)
        second = [n for n, side in enumerate(sides) if side == 1]
        fixed = len(ids) - len(second)
        whole = self._plan.overlap == WHOLE or len(ids) <= self._plan.max_tokens
        start = 0 if whole else max(0, len(ids) - uncut)
        size = min(len(ids) if whole else length, self._plan.max_tokens) - fixed
        held = set(second[start : start + size])
        kept = [n for n, side in enumerate(sides) if side != 1 or n in held]
        offsets = found["offset_mapping"]
        spans = [tuple(offsets[n]) if sides[n] == 1 and offsets[n][0] < offsets[n][1] else NOTHING for n in kept]
        return ReferenceText(
            [ids[n] for n in kept], [kinds[n] for n in kept], list(range(len(kept))), spans, len(ids) - start
        )


class Reference:
    """Latents of single texts by the plain forward of transformers, unpadded, all blocks."""

    def __init__(self, backbone: Backbone, final_norm: bool) -> None:
        """Args:
        final_norm: whether the last layer is taken after the final norm.
        """
        self._backbone, self._final_norm = backbone, final_norm

    def states(self, ids: Sequence[int], token_type_ids: Sequence[int] | None = None) -> Tensor:
        """``[layer, token, width]`` of one text, in the backbone's dtype."""
        model, outputs = self._backbone.model, []
        last = model.get_submodule(self._backbone.source.family.blocks)[-1]
        handle = last.register_forward_hook(lambda _, __, output: outputs.append(output))
        told = {"token_type_ids": token_type_ids} if token_type_ids and self._backbone.source.segments else {}
        row = {name: torch.tensor([values]) for name, values in ({"input_ids": ids} | told).items()}
        try:
            with torch.inference_mode():
                states = model(
                    **{name: values.to(self._backbone.device) for name, values in row.items()},
                    output_hidden_states=True,
                ).hidden_states
        finally:
            handle.remove()
        block = outputs[0] if isinstance(outputs[0], Tensor) else outputs[0][0]
        return torch.cat([*states[:-1], states[-1] if self._final_norm else block])

    def latents(self, states: Tensor, seen: Sequence[int], columns: Columns) -> dict[str, NDArray[Any]]:
        """View -> ``[layer, width]`` of the tokens that the views see; of ``tokens``, ``[layer, token, width]``."""
        exact = states[:, list(seen)].to("cpu", torch.float64)
        return {
            view: (exact if view == TOKENS else POOLINGS[view](exact))[list(layers)].numpy()
            for view, layers in columns.items()
        }
