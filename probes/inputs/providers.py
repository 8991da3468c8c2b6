"""Latent providers: where a workspace gets latents, token ids and trainable blocks of a backbone from.

:class:`LatentProvider` is the protocol; the one that runs backbones is :class:`permafrost.stage_one.BackboneProvider`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.latents.find_store import find_store
from permafrost.data.plan.plan import CapturePlan, ExtractSpec
from permafrost.data.progress import Progress
from permafrost.data.ragged import TokenIndex
from permafrost.data.remote.mirror import local_cache
from permafrost.data.spec import SpecError, plain
from permafrost.data.store.errors import StoreError
from permafrost.data.store.store import PlanLatents
from permafrost.data.text import Text
from permafrost.probes.config.finetuning import FinetuneSpec
from permafrost.probes.inputs.disk_tokens import DiskTokens

if TYPE_CHECKING:  # latents that are all stored are found without torch
    from torch import nn


def latents_record(latents: PlanLatents) -> dict[str, Any]:
    """Return what the record of a run says about latents: path, identity, columns and provenance."""
    provenance = latents.store.first_shard.provenance
    return {
        "path": str(latents.store.path),
        "identity": plain(latents.store.identity),
        "columns": {view: list(layers) for view, layers in latents.columns.items()},
        "truncated": latents.truncated,
        "seconds": latents.seconds,
        "backbone_parameters": provenance.get("parameters"),
        "device": provenance.get("device"),
        "self_check": provenance.get("self_check"),
    }


def count_backbone_parameters(plans: Iterable[PlanLatents]) -> int:
    """Return the number of parameters of the distinct backbones of some plans."""
    stores = [latents.store for latents in plans]
    parameters = {store.identity.weights: store.first_shard.provenance.get("parameters") or 0 for store in stores}
    return sum(parameters.values())


@dataclass(frozen=True, eq=False)
class FrozenStates:
    """Inputs of trainable blocks, window by window: frozen states of a layer, or token ids."""

    tokens: TokenIndex
    """Windows and tokens of the texts."""

    rows: Callable[[NDArray[np.int64]], tuple[NDArray[np.generic], NDArray[np.int8] | None]]
    """Indices of windows -> their states ``[layer, token, width]`` or token ids ``[token]``, one window after another;
    and the token type ids ``[token]``, None if the blocks need none."""

    disk: DiskTokens | None = None
    """Where the states are read from; None if it is the store, or if there are none."""


class LatentProvider(Protocol):
    """Source of the latents of texts, and of blocks of their backbone to fine-tune."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Get the latents of a plan for the texts of a corpus."""

    def blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> "nn.Module":
        """Make the blocks above a cut, with the backbone's weights: a module with ``layers``, ``width`` and ``save``.

        It is called as :class:`permafrost.extract.finetuning.finetuned_backbone.FinetunedBackbone` is.
        """

    def check_blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> None:
        """Raise a :class:`SpecError` if there are no such blocks; no weights are read."""

    def check_token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> int:
        """Return the maximum number of tokens of a text; raise an :class:`InputError` if :meth:`token_ids` would."""

    def token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> FrozenStates:
        """Tokenize texts, for blocks that begin at the embeddings."""

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> Mapping[str, str]:
        """Digests of a backbone's weights and tokenizer, which identify it if none of its latents are read."""


class CacheProvider:
    """Provider of cached latents only; it loads no backbone, so nothing can be fine-tuned."""

    def latents(self, plan: CapturePlan, spec: ExtractSpec, corpus: Corpus, progress: Progress) -> PlanLatents:
        """Find the latents of a plan for the texts of a corpus.

        Raises:
            StoreError: there is no store of this plan, or it lacks a view or a layer.
        """
        started = time.perf_counter()
        store = find_store(local_cache(spec.cache), plan)
        stored = store.columns()
        missing = sorted(set(plan.views) - set(stored))
        if missing:
            raise StoreError(
                f"{store.path} holds no view '{missing[0]}', only {', '.join(stored)}; run 'extract' first."
            )
        columns = plan.columns(store.layers)
        truncated = store.count_truncated(corpus.texts)
        if truncated and plan.truncation == "refuse":
            raise StoreError(
                f"{truncated:,} texts exceed plan.max_tokens = {store.identity.max_tokens}; raise it, or set "
                'plan.truncation = "cut" or "windows".'
            )
        seconds = time.perf_counter() - started
        return PlanLatents(store=store, columns=columns, texts_run=0, truncated=truncated, seconds=seconds)

    def check_blocks(
        self, plan: CapturePlan, extract: ExtractSpec, spec: FinetuneSpec, layers: tuple[int, ...] | str
    ) -> NoReturn:
        """Raise a :class:`SpecError`: there are no blocks without a backbone."""
        self._refuse(plan, str(spec.cut))

    blocks = check_blocks

    def token_ids(self, plan: CapturePlan, extract: ExtractSpec, texts: Sequence[Text]) -> NoReturn:
        """Raise as :meth:`check_blocks` does."""
        self._refuse(plan, "none")

    check_token_ids = token_ids

    def digests(self, plan: CapturePlan, spec: ExtractSpec) -> Mapping[str, str]:
        """Raise as :meth:`check_blocks` does."""
        self._refuse(plan, "none")

    def _refuse(self, plan: CapturePlan, cut: str) -> NoReturn:
        raise SpecError(
            f"finetune.cut = {cut} trains blocks of '{plan.backbone}', and cached latents alone have none: 'run' the "
            "recipe."
        )
