"""Upper blocks as probes read them: latents that are made as they are asked for, by blocks that learn.

Probes meet them as they meet cached latents. The blocks themselves, and the ids of texts, are handed in: nothing here
loads a language model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data.corpus import Corpus
from data.plan import CapturePlan, ExtractSpec, check_layers, resolve_layers
from data.progress import Progress
from data.ragged import Counts, bounds, ranges
from data.spec import SpecError
from data.text import Text
from data.token_reader import TokenReader
from probes.inputs import TOKENS, Column, Inputs, Stored, padded, ragged_of
from probes.reading import RaggedStates, Reading, Side

SAMPLED_TEXTS = 500
"""Texts by which the centre and the scale of latents are measured."""


@dataclass(frozen=True)
class UpperSpec:
    """Which blocks of the backbone learn."""

    cut: int | Literal["frozen", "none"] = "frozen"
    """The last layer whose states are frozen and cached; the blocks above it learn with the probe. 0 freezes the
    embeddings alone. frozen: nothing learns, the probe reads cached views. none: all of it learns, from text."""

    beside: tuple[int, ...] | str = ()
    """Layers at or below the cut that the probe reads beside those that learn, from the cache: a list, a range such as
    "0..2", or all; -1 is the cut. probe.layers names those above it."""

    dropout: float = 0.1
    """In the blocks that learn, on hidden states; and on attention where attention_dropout says so."""

    attention_dropout: float = 0.0
    """In the blocks that learn, on attention: on a CPU it makes a step slower."""

    def __post_init__(self) -> None:
        if isinstance(self.cut, int) and self.cut < 0:
            raise SpecError(f'cut must be a layer from 0, "frozen" or "none", got {self.cut}.')
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        if self.beside and isinstance(self.cut, str):
            raise SpecError(
                f'beside names layers that are cached below a cut, and cut = "{self.cut}" caches none; set cut to a '
                "layer, or leave beside out."
            )
        self.cached_beside()

    def cached_beside(self) -> tuple[int, ...]:
        """The layers of ``beside``, ascending."""
        if not isinstance(self.cut, int) or not self.beside:
            return ()
        try:
            check_layers(self.beside)
            return resolve_layers(self.beside, range(self.cut + 1))
        except SpecError as error:
            raise SpecError(f"beside names layers at or below the cut, {self.cut}: {error}") from None

    @property
    def learns(self) -> bool:
        """Whether any block does."""
        return self.cut != "frozen"

    def below(self, plan: CapturePlan) -> CapturePlan | None:
        """What is to be cached for the blocks and beside them; None where they begin at the text."""
        if isinstance(self.cut, str):
            return None
        return replace(plan, views=("tokens",), layers=tuple(sorted({*self.cached_beside(), self.cut})))


class Trunk(Protocol):
    """The blocks above a cut, and what is cached below them, as an ``nn.Module``."""

    layers: tuple[int, ...]
    """Those read from the cache included."""

    width: int

    def __call__(
        self,
        below: Tensor,
        lengths: Sequence[int],
        view: str,
        kinds: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """A view of the layers: ``[layer, text, width]``, or of tokens ``[layer, token, width]``.

        Args:
            below: states ``[layer, token, width]``, the layer at the cut last, or ids ``[token]``, text after text.
            kinds: ``[token]``, which of two segments each counts to.
        """

    def save(self, folder: Path) -> None:
        """Write the whole model as an ordinary model folder."""


class Below(Protocol):
    """What the blocks are fed with, window by window."""

    @property
    def offsets(self) -> Counts:
        """``[window + 1]``: where the tokens of each begin."""

    @property
    def spans(self) -> NDArray[np.int32]:
        """``[token, 2]``: the characters that each covers."""

    @property
    def starts(self) -> Counts:
        """``[text + 1]``: where the windows of each text begin."""

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int8] | None]:
        """States ``[layer, token, width]`` or ids ``[token]`` of some windows, one after another; and the segment of
        each token.
        """


@runtime_checkable
class Backbones(Protocol):
    """Stage one, where it can hand over blocks as well as latents."""

    def __call__(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> Stored:
        """The latents of a plan for the texts of a corpus."""

    def trunk(self, plan: CapturePlan, spec: UpperSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """The blocks above a cut, a :class:`Trunk` with fresh weights."""

    def check(self, plan: CapturePlan, spec: UpperSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError` where there are no such blocks; no weights are read."""

    def ids(self, plan: CapturePlan, texts: Sequence[Text]) -> Below:
        """Texts as token ids."""

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> Mapping[str, str]:
        """What a backbone is told apart by where none of its latents are read: of its weights and its tokenizer."""


@dataclass(frozen=True, eq=False)
class CachedBelow:
    """The states of the layer at the cut, and of those read beside, as stage one cached them."""

    reader: TokenReader
    offsets: Counts
    spans: NDArray[np.int32]
    starts: Counts

    def rows(self, windows: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.int8] | None]:
        """As :meth:`Below.rows`; blocks above the embeddings know no segments."""
        return self.reader.rows(windows).states, None


def cached_below(stored: Stored, texts: Sequence[Text]) -> CachedBelow:
    """The cached states of texts, in the layers that a plan of :meth:`UpperSpec.below` asks for."""
    windows, starts = stored.store.windowed(texts)
    reader = stored.store.token_reader(windows, stored.columns[TOKENS])
    index = stored.store.read_tokens(windows, [])
    return CachedBelow(reader, index.offsets, index.spans, starts)


@dataclass(frozen=True, eq=False)
class UpperInputs(Inputs):
    """Latents that blocks make of what lies below them, as they are now."""

    trunk: nn.Module | None = None
    below: Below | None = None
    view: str = TOKENS

    @property
    def module(self) -> nn.Module:
        """The blocks."""
        assert self.trunk is not None
        return self.trunk

    @property
    def longest(self) -> int:
        """As :attr:`Inputs.longest`: what blocks run on is tokens, whatever they make of them."""
        assert self.below is not None
        return int(np.diff(self.below.offsets).max(initial=1))

    def states(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        """As :meth:`Inputs.states`; a window that is asked for twice is run once."""
        assert self.offsets is not None
        once, place = np.unique(windows, return_inverse=True)
        if len(once) == len(windows):
            return self._made(windows, layers)
        lengths = np.diff(self.offsets)
        index = ranges(bounds(lengths[once])[:-1][place.reshape(-1)], lengths[windows])
        return self._made(once, layers)[:, torch.from_numpy(index)]

    def sides(self, how: Reading, sides: NDArray[np.int64]) -> list[Side]:
        """As :meth:`Inputs.sides`; a text that several rows of the batch have is run once."""
        if len(sides) > 1:
            raise ValueError("members that train blocks take rows in one order.")
        if self.view == TOKENS:
            return self._token_sides(how, sides[0].T)
        texts, place = np.unique(sides[0], return_inverse=True)
        layers = range(len(self.columns)) if how.whole else how.sources.tolist()
        made = self._made(texts, layers)
        index = torch.from_numpy(place.reshape(sides[0].shape))
        return [made[:, column] for column in index.T]

    def _token_sides(self, how: Reading, columns: NDArray[np.int64]) -> list[Side]:
        """``[side, row]``, indices of texts -> the tokens of each side, all of them run together."""
        ragged = ragged_of(self, how, self.windows[columns.reshape(-1)])
        lengths = np.array(ragged.lengths).reshape(columns.shape)
        parts = torch.split(ragged.values, lengths.sum(1).tolist(), 1)
        return [padded(RaggedStates(part, tuple(own))) for part, own in zip(parts, lengths.tolist(), strict=True)]

    def pooled(self, layer: int, texts: NDArray[np.int64]) -> Tensor:
        """As :meth:`Inputs.pooled`, with the blocks as they are now, and no gradient."""
        with torch.no_grad():
            return super().pooled(layer, texts) if self.view == TOKENS else self._made(texts, [layer])[0]

    def moments(
        self, texts: NDArray[np.int64], center: bool, scale: str, by_token: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`Inputs.moments`, of some of the texts."""
        with torch.no_grad():
            return super().moments(texts[:: max(1, len(texts) // SAMPLED_TEXTS)], center, scale, by_token)

    def _made(self, windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        assert self.below is not None
        values, kinds = self.below.rows(windows)
        lengths = np.diff(self.below.offsets)[windows].tolist()
        told = None if kinds is None else torch.from_numpy(kinds)
        wanted = [self.columns[layer].layer for layer in layers]
        made: Tensor = self.module(torch.from_numpy(values), lengths, self.view, told, wanted)
        return made


def upper_inputs(trunk: nn.Module, below: Below, view: str, layers: Sequence[int]) -> UpperInputs:
    """What a probe reads of blocks: one view of some of their layers."""
    columns = tuple(Column("", view, layer) for layer in layers)
    width = int(trunk.width)  # type: ignore[arg-type]
    nothing, widths = torch.empty(len(columns), 0, width), (width,) * len(columns)
    tokens = view == TOKENS
    if not tokens and (np.diff(below.starts) != 1).any():
        raise SpecError('a view of whole texts cannot be made of windows; set plan.truncation = "cut", or read tokens.')
    offsets, spans, starts = (below.offsets, below.spans, below.starts) if tokens else (None, None, None)
    return UpperInputs(nothing, columns, widths, offsets, spans, starts, None, trunk, below, view)
