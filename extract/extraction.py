"""Extraction: run the texts whose latents a store lacks for a plan, and append them.

What is missing is decided without torch: :mod:`permafrost.extract.job`, which runs it, is imported only then.

Texts come in blocks of ``extract.block_texts``. Packs are laid out over a whole block before the store is looked up,
and a shard holds whole packs. A run that was killed therefore repeats the same packs and gives the same bits, and no
committed pack runs twice.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from operator import length_hint
from typing import TYPE_CHECKING, Any

import numpy as np

from permafrost.data.atomic import remove_leftovers
from permafrost.data.device.pipeline import Pipeline
from permafrost.data.errors import InputError
from permafrost.data.machine import pick_device
from permafrost.data.plan.plan import TOKENS, CapturePlan, Columns, ExtractSpec, union_of_columns
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.remote.mirror import local_cache
from permafrost.data.store.errors import StoreError
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore, PlanLatents
from permafrost.data.text import Text, TextError
from permafrost.extract.distributed.claims import Missing
from permafrost.extract.distributed.distribution import Distribution
from permafrost.extract.resolved_plan import ResolvedPlan, resolve_plan
from permafrost.extract.text_blocks import NOTHING_RUN, BlockProgress, TextBlock, text_blocks
from permafrost.extract.tokenization.token_ids import check_texts, refuse_long_texts

if TYPE_CHECKING:  # these load torch
    from permafrost.extract.capture.runner import BackboneRunner
    from permafrost.extract.job import ExtractionJob, LaidOut


def extract(
    plan: CapturePlan,
    texts: Iterable[Text],
    spec: ExtractSpec | None = None,
    progress: Progress | None = None,
    distribution: Distribution | None = None,
) -> PlanLatents:
    """Make the store of ``plan`` hold every column of the plan for ``texts``; run what is missing.

    Args:
        texts: a list, or a stream, which is read once, block by block; it has a length if it can be told in advance.
            If the plan has windows, a text of two segments stands for all of its windows.
        distribution: how packs are shared with other processes, of all requests of a command; None runs all here.

    Raises:
        InputError: the plan, the backbone or a text cannot be used.
        MachineError: the disk is full, a shard damaged, memory short, or the self-check failed.
    """
    spec, progress = spec or ExtractSpec(), progress or NoProgress()
    started = time.perf_counter()
    blocks = text_blocks(texts, spec.block_texts)
    first = next(blocks)
    check_texts(plan, first.texts)
    resolved = resolve_plan(plan, spec, progress=progress)
    total = length_hint(texts, -1)
    with BlockProgress(progress, None if total < 0 else total, first, f"{resolved.source.name} on texts") as done:
        request = _Request(plan, resolved, spec, progress, done, distribution)
        if isinstance(texts, Sequence) and not first.is_last:
            request.count_missing(texts)
        following = chain([(first, None)], request.lay_out(blocks))
        del first  # nothing of a block may outlive it
        with Pipeline(request.overlaps) as pipeline:
            for block, laid_out in pipeline.stage(following):
                request.complete(block, laid_out)
                done.finish(block)
                del block, laid_out
        request.finish()
    seconds = time.perf_counter() - started
    _tell(progress, request.store, done.read, request.texts_run, seconds)
    return PlanLatents(
        store=request.store,
        columns=request.columns,
        texts_run=request.texts_run,
        truncated=request.truncated,
        seconds=seconds,
    )


class _Request:
    """A plan that is resolved, whose columns a store is to hold for block after block of texts."""

    def __init__(
        self,
        asked: CapturePlan,
        resolved: ResolvedPlan,
        spec: ExtractSpec,
        progress: Progress,
        done: BlockProgress,
        distribution: Distribution | None,
    ) -> None:
        self.columns = resolved.plan.columns(resolved.source.layers)
        self.store = _store_of(resolved, spec)
        self.texts_run = self.truncated = 0
        self._asked, self._resolved, self._spec, self._done = asked, resolved, spec, done
        self._progress, self._distribution = progress, distribution
        self._job = _job_of(cache(resolved.runner), asked, progress, done, distribution)
        self._following = 0

    def count_missing(self, texts: Sequence[Text]) -> None:
        """Count the texts of a list that the store lacks, so that their bytes are announced before the first one runs.

        Two segments whose windows the store does not know count as one text.
        """
        for block in text_blocks(dict.fromkeys(texts), self._spec.block_texts):
            try:
                self._following += _count(self._missing(self.store.expand_windows(block.texts)[0]))
            except StoreError:
                self._following += len(block.texts)

    @property
    def overlaps(self) -> bool:
        """Whether blocks are read and laid out on a thread while others run, which leaves the CPU idle."""
        return pick_device(self._spec.device).startswith("cuda")

    def lay_out(self, blocks: Iterable[TextBlock]) -> "Iterator[tuple[TextBlock, LaidOut | None]]":
        """Yield blocks with their packs, once some texts have run, if this runs ahead; None leaves it to the run."""
        for block in blocks:
            laid_out = None
            if self.overlaps and self.texts_run:
                with contextlib.suppress(Exception):  # the run of the block raises it again
                    laid_out = self._job().lay_out(block.texts, TOKENS in self.columns)
            yield block, laid_out
            del block, laid_out

    def complete(self, block: TextBlock, laid_out: "LaidOut | None" = None) -> None:
        """Run what the store lacks of a block."""
        self.store = _store_of(self._resolved, self._spec)  # no shard and no index outlives a block
        try:
            self._complete(block.texts, laid_out)
        except TextError as error:
            if not self._done.texts:
                raise
            message = f"{str(error).removesuffix(NOTHING_RUN).rstrip()} {self._done.what_is_safe}"
            raise TextError(message, error.text) from error

    def finish(self) -> None:
        """Wait for what other processes were handed, and tell what is left to them; remove what killed ones left."""
        remove_leftovers(self.store.path)
        if self._distribution:
            finished = self._distribution.finish()
            self.texts_run += finished.texts_run
            self.truncated += finished.truncated
            self.store = _store_of(self._resolved, self._spec)
            self._distribution.settle(self.store, self._progress)

    def _complete(self, texts: Sequence[Text], laid_out: "LaidOut | None") -> None:
        check_texts(self._asked, texts)
        windows: list[Text] | None = None
        with contextlib.suppress(StoreError):  # it lacks a window of some text
            windows = self.store.expand_windows(texts)[0]
        missing = None if windows is None else self._missing(windows)
        self._following = max(0, self._following - (len(texts) if missing is None else _count(missing)))
        if windows is None or missing is None:
            windows = self._job().windows(texts)
            missing = self._missing(windows)
        following = self._following
        if self._distribution:
            missing = self._distribution.begin(self.store, windows, self.columns, missing)
            following = round(following * self._distribution.share)
        if missing:
            safe = self._done.what_is_safe
            self.texts_run += self._job().run(self.store, windows, missing, following, safe, laid_out=laid_out)
        self._check_stored(texts, windows)

    def _check_stored(self, texts: Sequence[Text], windows: Sequence[Text]) -> None:
        """Count the texts that were cut, or refuse them, and keep the texts, if asked to; of those that are stored."""
        if self._distribution:
            left = {int(index) for _, members in self._missing(windows) for index in members}
            texts = windows = [text for index, text in enumerate(windows) if index not in left]
        truncated = self.store.count_truncated(texts)
        if truncated and self._resolved.plan.truncation == "refuse":
            refuse_long_texts(texts, self.store.lengths(texts), self._resolved.plan)
        self.truncated += truncated
        if self._spec.keep_texts:
            from permafrost.data.latents.kept_texts import keep_texts  # loads pyarrow

            keep_texts(self.store, windows if self._distribution else self.store.expand_windows(texts)[0])

    def _missing(self, windows: Sequence[Text]) -> Missing:
        return self.store.missing_columns(text_keys(windows, self.store.identity.in_windows), self.columns)


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
    store = _store_of(resolved, spec)
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
    run, following = 0, 0
    blocks = list(text_blocks(requests_of_text, spec.block_texts))
    if len(blocks) > 1:
        following = sum(_count(_missing_of(store, block.texts, requests_of_text, columns)) for block in blocks)
    with BlockProgress(progress, len(requests_of_text), blocks[0], f"{resolved.source.name} on texts") as done:
        job = _job_of(runner, asked, progress, done)
        for block in blocks:
            store = _store_of(resolved, spec)
            if missing := _missing_of(store, block.texts, requests_of_text, columns):
                following = max(0, following - _count(missing))
                run += job().run(store, block.texts, missing, following, done.what_is_safe)
            done.finish(block)
    _tell(progress, store, len(requests_of_text), run, time.perf_counter() - started)
    return run


def _store_of(resolved: ResolvedPlan, spec: ExtractSpec) -> LatentStore:
    return LatentStore.at(local_cache(spec.cache), resolved.plan.backbone, resolved.identity)


def _job_of(
    runner: "Callable[[], BackboneRunner]",
    asked: CapturePlan,
    progress: Progress,
    done: BlockProgress,
    distribution: Distribution | None = None,
) -> "Callable[[], ExtractionJob]":
    """Return a function that returns the job of a request, always the same one; the first call loads the backbone."""

    @cache
    def job() -> "ExtractionJob":
        from permafrost.extract.job import ExtractionJob

        return ExtractionJob(runner(), asked, progress, done.advance, done.total, distribution)

    return job


def _windows(store: LatentStore, texts: Sequence[Text], runner: "Callable[[], BackboneRunner]") -> list[Text]:
    """Return texts, those of two segments window by window; the backbone is loaded if the store lacks a window."""
    with contextlib.suppress(StoreError):
        return store.expand_windows(texts)[0]
    from permafrost.extract.tokenization.tokenize import windowed

    plan = runner().plan
    return windowed(runner().backbone.tokenizer, texts, plan.token_limit, plan.overlap)[0]


def _missing_of(
    store: LatentStore,
    texts: Sequence[Text],
    requests_of_text: Mapping[Text, Sequence[int]],
    columns: Sequence[Columns],
) -> Missing:
    """Return groups of texts that lack the same columns, of those that the requests of each text want."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, text in enumerate(texts):
        groups.setdefault(tuple(requests_of_text[text]), []).append(index)
    missing = list[tuple[Columns, Any]]()
    for wanted, members in groups.items():
        keys = text_keys([texts[index] for index in members], store.identity.in_windows)
        union = union_of_columns(columns[request] for request in wanted)
        missing += [(lacking, np.array(members)[found]) for lacking, found in store.missing_columns(keys, union)]
    return missing


def _count(groups: Missing) -> int:
    return sum(len(members) for _, members in groups)


def _tell(progress: Progress, store: LatentStore, texts: int, texts_run: int, seconds: float) -> None:
    progress.event("extracted", store=str(store.path), texts=texts, texts_run=texts_run, seconds=round(seconds, 3))
