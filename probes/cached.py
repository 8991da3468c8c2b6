"""Stage one from the cache alone: the latents of a plan are found, and no backbone is looked for."""

import time
from pathlib import Path

from data.corpus import Corpus
from data.latents import find_store
from data.plan import CapturePlan, ExtractSpec
from data.progress import Progress
from data.shard import StoreError
from probes.inputs import Stored


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
