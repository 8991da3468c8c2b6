"""Latent providers: where a workspace gets latents, token ids and trainable blocks of a backbone from.

:class:`LatentProvider` is the protocol; the one that runs backbones is :class:`permafrost.stages.BackboneProvider`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.ragged import Counts
from permafrost.data.spec import SpecError
from permafrost.data.store.errors import StoreError
from permafrost.data.store.find import find_store
from permafrost.data.store.plan import CapturePlan, Columns, ExtractSpec
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.probes.config.finetuning import FinetuneSpec


@dataclass(frozen=True)
class PlanLatents:
    """The latents of one plan, ready to be read, and what it took to have them."""

    store: LatentStore
    columns: Columns
    """Those that the plan asks for."""

    texts_run: int
    truncated: int
    seconds: float


class TrainableBlocks(Protocol):
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


class FrozenStates(Protocol):
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


class LatentProvider(Protocol):
    """Latents of texts, and blocks of their backbone to fine-tune."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Get the latents of a plan for the texts of a corpus."""

    def blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """Make the blocks above a cut, a :class:`TrainableBlocks` with the backbone's weights."""

    def check_blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError` if there are no such blocks; no weights are read."""

    def token_ids(self, plan: CapturePlan, texts: Sequence[Text]) -> FrozenStates:
        """Tokenize texts, for blocks that begin at the embeddings."""

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> Mapping[str, str]:
        """Digests of a backbone's weights and tokenizer, which identify it if none of its latents are read."""


class CacheProvider:
    """Latents as they lie in the cache; no backbone is looked for, so nothing can be fine-tuned."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Find the latents of a plan for the texts of a corpus.

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
        return PlanLatents(store, columns, 0, truncated, time.perf_counter() - started)

    def blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> nn.Module:
        """As :meth:`check_blocks`."""
        self._refuse(plan, str(spec.cut))

    def check_blocks(self, plan: CapturePlan, spec: FinetuneSpec, layers: tuple[int, ...] | str) -> None:
        """Raise a :class:`SpecError`."""
        self._refuse(plan, str(spec.cut))

    def token_ids(self, plan: CapturePlan, texts: Sequence[Text]) -> FrozenStates:
        """As :meth:`check_blocks`."""
        self._refuse(plan, "none")

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> Mapping[str, str]:
        """As :meth:`check_blocks`."""
        self._refuse(plan, "none")

    def _refuse(self, plan: CapturePlan, cut: str) -> NoReturn:
        raise SpecError(
            f"finetune.cut = {cut} trains blocks of '{plan.backbone}', and cached latents alone have none: 'run' the "
            "recipe."
        )
