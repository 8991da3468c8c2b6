"""Stage one from the cache alone: the latents of a plan are found, and no backbone is looked for."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.ragged import Counts
from permafrost.data.store.errors import StoreError
from permafrost.data.store.plan import CapturePlan, Columns, ExtractSpec
from permafrost.data.store.store import LatentStore, find_store
from permafrost.data.text import Text
from permafrost.probes.config.finetuning import UpperSpec


@dataclass(frozen=True)
class Stored:
    """The latents of one plan, ready to be read, and what it took to have them."""

    store: LatentStore
    columns: Columns
    """Those that the plan asks for."""

    texts_run: int
    truncated: int
    seconds: float


def find_cached(plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> Stored:
    """The latents of ``plan`` for the texts of a corpus, as they lie in the cache.

    Raises:
        StoreError: there is no store of this plan, or it lacks a view or a layer.
    """
    started = time.perf_counter()
    store = find_store(Path(spec.cache), plan)
    held = store.columns()
    lacking = sorted(set(plan.views) - set(held))
    if lacking:
        raise StoreError(f"{store.path} holds no view '{lacking[0]}', only {', '.join(held)}; run 'extract' first.")
    columns = plan.columns(store.layers)
    truncated = store.truncated(corpus.texts)
    if truncated and plan.truncation == "refuse":
        raise StoreError(
            f'{truncated:,} texts exceed plan.max_tokens = {plan.max_tokens}; raise it, or set plan.truncation = "cut".'
        )
    return Stored(store, columns, 0, truncated, time.perf_counter() - started)


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
