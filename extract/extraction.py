"""Stage one: what is missing of a plan for some texts is run, pooled and appended to its store.

Packs are laid out over the whole request before anything is looked up, and a shard commits whole packs. So a run that
was killed repeats the same packs and gives the same bits, and no committed pack runs twice.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from permafrost.data.corpora.records import CorpusError
from permafrost.data.progress import Progress, Silent
from permafrost.data.ragged import Counts, join
from permafrost.data.store.errors import StoreError
from permafrost.data.store.identity import Identity
from permafrost.data.store.key_index import text_keys
from permafrost.data.store.plan import TOKENS, CapturePlan, Columns, ExtractSpec
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.backbones.identity import identify, pick_device
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.backbones.locate import find
from permafrost.extract.capture.read_back import ReadBack
from permafrost.extract.capture.self_check import SelfCheck
from permafrost.extract.job import ExtractionJob
from permafrost.extract.tokenization.checks import check_texts, refuse_long_texts


@dataclass(frozen=True)
class ExtractionResult:
    """What stage one did."""

    store: LatentStore
    columns: Columns
    texts: int
    texts_run: int
    """Texts that went through the backbone, every window counted; 0 when all was cached."""

    truncated: int
    """Texts that lost tokens to ``max_tokens``; a text that is run in windows loses none."""

    seconds: float


def extract(
    plan: CapturePlan, texts: Sequence[Text], spec: ExtractSpec | None = None, progress: Progress | None = None
) -> ExtractionResult:
    """Make sure that the store of ``plan`` holds every column of it for ``texts``; run what is missing.

    Args:
        texts: distinct texts; where the plan has windows, those of two segments stand for all of theirs.

    Returns:
        the store, the columns in it that the plan asked for, and what was run.

    Raises:
        InputError: the plan, the backbone or a text cannot be used.
        MachineError: the disk is full, a shard damaged, memory short, or the self-check failed.
    """
    spec, progress = spec or ExtractSpec(), progress or Silent()
    started = time.perf_counter()
    check_texts(plan, texts)
    source = find(plan)
    device = pick_device(spec.device)
    identity = identify(source, plan, device, Path(spec.cache))
    store = LatentStore.at(Path(spec.cache), plan.backbone, identity)
    columns = plan.columns(source.layers)
    windows = _held_windows(store, texts)
    run = 0
    if windows is None or store.missing(text_keys(windows), columns):
        job = ExtractionJob(plan, source, store, spec, progress, device)
        windows = windows or job.windowed(texts)[0]
        missing = store.missing(text_keys(windows), columns)
        run = job.run(windows, missing) if missing else 0
    truncated = store.truncated(texts)
    if truncated and plan.truncation == "refuse":
        refuse_long_texts(texts, store.lengths(texts), plan)
    seconds = time.perf_counter() - started
    return ExtractionResult(store, columns, len(texts), run, truncated, seconds)


def _held_windows(store: LatentStore, texts: Sequence[Text]) -> list[Text] | None:
    """The windows of ``texts`` by what the store holds; None where some are not in it."""
    try:
        return store.windowed(texts)[0]
    except StoreError:
        return None


class Extractor:
    """A loaded backbone that turns texts into latents in memory, by the same road as the store's."""

    def __init__(self, plan: CapturePlan, spec: ExtractSpec | None = None, backbone: Backbone | None = None) -> None:
        """Load the backbone of ``plan``; or take it as it is loaded already, for this plan or another."""
        spec = spec or ExtractSpec()
        source, device = find(plan), pick_device(spec.device)
        self.identity = identify(source, plan, device, Path(spec.cache))
        store = LatentStore.at(Path(spec.cache), plan.backbone, self.identity)
        self._job = ExtractionJob(plan, source, store, spec, Silent(), device, backbone)
        self._checked = False
        self.backbone = self._job.backbone

    def windowed(self, texts: Sequence[Text]) -> tuple[list[Text], Counts]:
        """Every text with its further windows, one after another, and ``[text + 1]``: where those of each begin."""
        return self._job.windowed(texts)

    def __call__(self, texts: Sequence[Text], columns: Columns) -> dict[str, Any]:
        """Latents of distinct ``texts``, for columns of the plan. Where it has windows, a text is the one it names.

        Returns:
            view -> ``[layer, text, width]`` in the stored precision; of ``tokens``, a :class:`TokenLatents`.

        Raises:
            MachineError: the self-check failed, which comes before the first answer.
        """
        check_texts(self._job.plan, texts)
        tokens, packs = self._job.packs(texts, TOKENS in columns)
        compare = None
        if not self._checked:
            check = SelfCheck(self._job, texts, tokens)
            check.check_before_run(np.arange(len(texts)), columns)
            compare = ReadBack(check, texts, columns)
        self._job.watch = compare.watch if compare else None
        blocks = list(self._job.blocks(packs, np.arange(len(texts)), tokens, texts, columns))
        keys = np.concatenate([block.keys for block in blocks])
        order = np.argsort(keys)[np.argsort(np.argsort(text_keys(texts)))]
        pooled = [view for view in columns if view != TOKENS]
        found: dict[str, Any] = {
            view: np.concatenate([block.latents[view] for block in blocks], axis=1)[:, order] for view in pooled
        }
        if TOKENS in columns:
            found[TOKENS] = join([block.tokens for block in blocks if block.tokens]).select(order)
        if compare:
            compare.compare_found(found)
            self._checked = True
        return found


def same_extractor(
    plan: CapturePlan, spec: ExtractSpec, identity: Identity, place: str, backbone: Backbone | None = None
) -> Extractor:
    """An extractor whose latents are those that something was trained on.

    Args:
        identity: of those latents; its dtype stands for what the plan says of it.
        place: what was trained, for messages.
        backbone: as of :class:`Extractor`.

    Raises:
        CorpusError: the backbone found here is another.
    """
    plan = replace(plan, compute_dtype=identity.compute_dtype)  # type: ignore[arg-type]
    extractor = Extractor(plan, spec, backbone)
    if other := extractor.identity.differences(identity):
        raise CorpusError(
            f"{place}: the backbone '{plan.backbone}' found here has other {' and '.join(other)} than the one this run "
            "was trained on; give it back what it had, or run the recipe again."
        )
    return extractor
