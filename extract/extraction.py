"""Extraction: run the texts whose latents a store lacks for a plan, and append them.

What is missing is decided without torch: :mod:`permafrost.extract.job`, which runs it, is imported only then.

Packs are laid out over the whole request before the store is looked up, and a shard holds whole packs. A run that was
killed therefore repeats the same packs and gives the same bits, and no committed pack runs twice.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from permafrost.data.errors import InputError
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.store.errors import StoreError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.plan import CapturePlan, Columns, ExtractSpec, union_of_columns
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.data.text import Text
from permafrost.extract.resolved_plan import resolve_plan
from permafrost.extract.tokenization.token_ids import check_texts, refuse_long_texts

if TYPE_CHECKING:  # loads torch
    from permafrost.extract.capture.runner import BackboneRunner


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
    _tell(progress, store, len(texts), texts_run, seconds)
    return PlanLatents(store=store, columns=columns, texts_run=texts_run, truncated=truncated, seconds=seconds)


def extract_together(
    requests: Sequence[tuple[CapturePlan, Sequence[Text]]], spec: ExtractSpec, progress: Progress
) -> int:
    """Make a store hold what several requests need of it, in one pass: a text that several of them name runs once.

    Args:
        requests: plans that differ in views and layers alone, each with its texts; one that cannot be served, because
            of a text or a layer, is left out with a note.

    Returns:
        number of texts that ran.

    Raises:
        InputError: the backbone cannot be used.
        MachineError: as of :func:`extract`.
    """
    started = time.perf_counter()
    views = tuple(dict.fromkeys(view for plan, _ in requests for view in plan.views))
    asked = replace(requests[0][0], views=views, layers="all")
    resolved = resolve_plan(asked, spec, progress=progress)
    store = LatentStore.at(Path(spec.cache), resolved.plan.backbone, resolved.identity)
    runner = cache(resolved.runner)
    requests_of_text: dict[Text, list[int]] = {}
    columns = list[Columns]()
    for plan, texts in requests:
        try:
            check_texts(plan, texts)
            wanted, windows = plan.columns(resolved.source.layers), _windows(store, texts, runner)
        except InputError as error:
            progress.note(f"left out of the extraction of all runs: {error}")
            continue
        for window in windows:
            requests_of_text.setdefault(window, []).append(len(columns))
        columns.append(wanted)
    missing = _missing(store, requests_of_text, columns)
    run = 0
    if missing:
        from permafrost.extract.job import run_missing

        run = run_missing(runner(), store, list(requests_of_text), missing, progress, asked)
    _tell(progress, store, len(requests_of_text), run, time.perf_counter() - started)
    return run


def _windows(store: LatentStore, texts: Sequence[Text], runner: "Callable[[], BackboneRunner]") -> list[Text]:
    """Return texts, those of two segments window by window; the backbone is loaded if the store lacks a window."""
    with contextlib.suppress(StoreError):
        return store.expand_windows(texts)[0]
    from permafrost.extract.tokenization.tokenize import windowed

    plan = runner().plan
    return windowed(runner().backbone.tokenizer, texts, plan.token_limit, plan.overlap)[0]


def _missing(
    store: LatentStore, requests_of_text: Mapping[Text, Sequence[int]], columns: Sequence[Columns]
) -> list[tuple[Columns, Any]]:
    """Return groups of texts that lack the same columns: those columns, and the indices of the texts."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, wanted in enumerate(requests_of_text.values()):
        groups.setdefault(tuple(wanted), []).append(index)
    texts, missing = list(requests_of_text), list[tuple[Columns, Any]]()
    for wanted, members in groups.items():
        keys = text_keys([texts[index] for index in members], store.identity.in_windows)
        union = union_of_columns(columns[request] for request in wanted)
        missing += [(lacking, np.array(members)[found]) for lacking, found in store.missing_columns(keys, union)]
    return missing


def _tell(progress: Progress, store: LatentStore, texts: int, texts_run: int, seconds: float) -> None:
    progress.event("extracted", store=str(store.path), texts=texts, texts_run=texts_run, seconds=round(seconds, 3))
