"""Extractor: latents of texts in memory, computed and checked as those of the store are."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from permafrost.data.plan.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.ragged import Counts, concatenate
from permafrost.data.store.block import Block
from permafrost.data.store.encoding import decode
from permafrost.data.store.identity import Identity, check_same_latents
from permafrost.data.store.index.segment import Keys
from permafrost.data.store.keys import text_keys
from permafrost.data.text import Text
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.proofs.read_back import ReadBack
from permafrost.extract.proofs.self_check import SelfCheck
from permafrost.extract.resolved_plan import resolve_plan
from permafrost.extract.tokenization.token_ids import check_texts
from permafrost.extract.tokenization.tokenize import windowed


class Extractor:
    """Loaded backbone that turns texts into latents in memory, computed as those of the store are."""

    def __init__(self, plan: CapturePlan, spec: ExtractSpec | None = None, backbone: Backbone | None = None) -> None:
        """Load the backbone of ``plan``; or use ``backbone`` if it is loaded already, for this plan or another."""
        self._runner = resolve_plan(plan, spec or ExtractSpec(), backbone).runner()
        self.identity, self.backbone, self.road = self._runner.identity, self._runner.backbone, self._runner.road
        self._checked = False

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Split texts into windows, as :func:`permafrost.extract.tokenization.tokenize.windowed` does."""
        plan = self._runner.plan
        return windowed(self.backbone.tokenizer, texts, plan.token_limit, plan.overlap)

    def __call__(self, texts: Sequence[Text], columns: Columns) -> dict[str, Any]:
        """Return the latents of distinct ``texts``, for columns of the plan.

        Args:
            texts: if the plan has windows, a text of two segments stands for the one window that it names.

        Returns:
            view -> ``[layer, text, width]`` as the store reads them, in the stored precision; of ``tokens``, a
            :class:`permafrost.data.ragged.TokenLatents`.

        Raises:
            MachineError: the self-check failed, which is done before the first latents are returned.
        """
        check_texts(self._runner.plan, texts)
        tokens, packs = self._runner.tokenize_and_pack(texts, TOKENS in columns)
        everything = np.arange(len(texts))
        read_back = None
        if not self._checked:
            check = SelfCheck(self._runner, texts, tokens)
            check.check_before_run(everything, columns)
            read_back = ReadBack(check, columns)
        self._runner.on_forward = read_back.watch if read_back else None
        with closing(self._runner.blocks(packs, everything, tokens, texts, columns)) as running:
            blocks = [block for _, block in running]
        latents = _in_order(blocks, text_keys(texts, self.identity.in_windows), columns)
        if read_back:
            read_back.compare_returned(latents)
            self._checked = True
        return latents


def _in_order(blocks: Sequence[Block], wanted: Keys, columns: Columns) -> dict[str, Any]:
    """Join the latents of blocks, in the order of the keys wanted."""
    keys = np.concatenate([block.keys for block in blocks])
    order = np.argsort(keys)[np.argsort(np.argsort(wanted))]
    latents: dict[str, Any] = {
        view: decode(np.concatenate([block.latents[view] for block in blocks], axis=1)[:, order])
        for view in columns
        if view != TOKENS
    }
    if TOKENS in columns:
        tokens = concatenate([block.tokens for block in blocks if block.tokens]).select(order)
        latents[TOKENS] = replace(tokens, states=decode(tokens.states))
    return latents


def matching_extractor(
    plan: CapturePlan, spec: ExtractSpec, identity: Identity, origin: str, backbone: Backbone | None = None
) -> Extractor:
    """Return an extractor of the same latents as those that something was trained on.

    Args:
        identity: of those latents; its dtypes replace those of the plan.
        origin: what was trained, for messages.
        backbone: as of :class:`Extractor`.

    Raises:
        CorpusError: the backbone on this machine is another.
    """
    dtypes: dict[str, Any] = {"compute_dtype": identity.compute_dtype, "stored_dtype": identity.stored_dtype}
    plan = replace(plan, **dtypes)
    extractor = Extractor(plan, spec, backbone)
    check_same_latents(extractor.identity, identity, origin, plan.backbone)
    return extractor
