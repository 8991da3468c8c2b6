"""Extraction: run the texts whose latents a store lacks for a plan, and append them.

What is missing is decided without torch: :mod:`permafrost.extract.job`, which runs it, is imported only then.

Packs are laid out over the whole request before the store is looked up, and a shard holds whole packs. A run that was
killed therefore repeats the same packs and gives the same bits, and no committed pack runs twice.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from permafrost.data.progress import NoProgress, Progress
from permafrost.data.store.errors import StoreError
from permafrost.data.store.key_index import text_keys
from permafrost.data.store.plan import CapturePlan, ExtractSpec
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.data.text import Text
from permafrost.extract.resolved_plan import resolve_plan
from permafrost.extract.tokenization.token_ids import check_texts, refuse_long_texts


def extract(
    plan: CapturePlan, texts: Sequence[Text], spec: ExtractSpec | None = None, progress: Progress | None = None
) -> PlanLatents:
    """Make the store of ``plan`` hold every column of the plan for ``texts``; run what is missing.

    Args:
        texts: distinct texts; if the plan has windows, a text of two segments stands for all of its windows.

    Raises:
        InputError: the plan, the backbone or a text cannot be used.
        MachineError: the disk is full, a shard damaged, memory short, or the self-check failed.
    """
    spec, progress = spec or ExtractSpec(), progress or NoProgress()
    started = time.perf_counter()
    check_texts(plan, texts)
    resolved = resolve_plan(plan, spec, progress=progress)
    asked, plan = plan, resolved.plan
    store = LatentStore.at(Path(spec.cache), plan.backbone, resolved.identity)
    columns = plan.columns(resolved.source.layers)
    windows: list[Text] | None = None
    with contextlib.suppress(StoreError):  # it lacks a window of some text
        windows = store.expand_windows(texts)[0]
    texts_run = 0
    if windows is None or store.missing_columns(text_keys(windows, store.identity.in_windows), columns):
        from permafrost.extract.job import complete_store

        texts_run = complete_store(resolved.runner(), store, texts, windows, columns, progress, asked)
    truncated = store.count_truncated(texts)
    if truncated and plan.truncation == "refuse":
        refuse_long_texts(texts, store.lengths(texts), plan)
    if spec.keep_texts:
        from permafrost.data.latents.kept_texts import keep_texts  # loads pyarrow

        keep_texts(store, store.expand_windows(texts)[0])
    seconds = time.perf_counter() - started
    return PlanLatents(store=store, columns=columns, texts_run=texts_run, truncated=truncated, seconds=seconds)
