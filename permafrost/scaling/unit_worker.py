"""Worker that runs units of packs, which were laid out elsewhere, and commits them to the store itself."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.errors import MachineError, first_line
from permafrost.data.plan.plan import CapturePlan, Columns, ExtractSpec
from permafrost.data.progress import NoProgress
from permafrost.data.remote.mirror import is_url, local_cache
from permafrost.data.store.block import Block
from permafrost.data.store.identity import Identity
from permafrost.data.store.keys import text_keys
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.resolved_plan import resolve_plan

if TYPE_CHECKING:  # this loads torch
    from permafrost.extract.job import ExtractionJob


@dataclass(frozen=True)
class Unit:
    """Whole packs of a block, which run together."""

    number: int
    texts: list[Text]
    packs: list[tuple[NDArray[np.int64], ...]]
    """Rows of each forward pass; each row holds the indices of its texts among :attr:`texts`."""

    columns: Columns
    tokens: int


@dataclass(frozen=True)
class UnitAnswer:
    """What a worker says of a unit."""

    shards: Sequence[str] = ()
    """Names of the shards that it committed; each carries the digest of its bytes."""

    texts: int = 0
    """Number of texts that ran; fewer than the unit has if some were stored by an earlier try."""

    bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    """Reason for which the unit failed, in one line; empty if it did not."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to know of a request."""

    asked: CapturePlan
    spec: ExtractSpec
    store: Path
    identity: Identity
    folder: str
    """Working folder of the command: relative paths are those of the command where it exists."""


class RecordingStore(LatentStore):
    """A store that remembers which shards were appended through it."""

    def __init__(self, path: Path, identity: Identity, only: str = "") -> None:
        super().__init__(path, identity, only)
        self.appended = list[Path]()

    def append(self, block: Block, provenance: Mapping[str, Any], check: Callable[[Path], None] | None = None) -> Path:
        """Commit texts with their latents as one shard."""
        self.appended.append(super().append(block, provenance, check))
        return self.appended[-1]


class UnitWorker:
    """Worker that loads a backbone once, for the first unit, and proves itself by it."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Load nothing yet: an error of a unit is an answer, and one of a constructor ends the process."""
        self._settings = settings

    def run(self, unit: Unit) -> UnitAnswer:
        """Run what the store lacks of a unit, and commit it."""
        try:
            return self._run(unit)
        except Exception as error:
            return UnitAnswer(error=f"{type(error).__name__}: {first_line(error)}")

    @cached_property
    def _job(self) -> "ExtractionJob":
        settings = self._settings
        with suppress(OSError):
            os.chdir(settings.folder)
        from permafrost.extract.job import ExtractionJob

        resolved = resolve_plan(settings.asked, settings.spec)
        if resolved.identity != settings.identity:
            differences = ", ".join(resolved.identity.differences(settings.identity))
            raise MachineError(f"this worker's latents would differ in {differences} from those that were asked for")
        return ExtractionJob(resolved.runner(), settings.asked, NoProgress(), lambda texts: None)

    def _store_path(self) -> Path:
        """Return the folder of the store; of one on object storage, its copy on the machine of this worker."""
        path, cache = self._settings.store, self._settings.spec.cache
        return local_cache(cache) / path.parent.name / path.name if is_url(cache) else path

    def _run(self, unit: Unit) -> UnitAnswer:
        job, settings = self._job, self._settings
        started = time.monotonic()
        store = RecordingStore(self._store_path(), settings.identity)
        missing = store.missing_columns(text_keys(unit.texts, settings.identity.in_windows), unit.columns)
        texts = job.run(store, unit.texts, missing, packs=unit.packs) if missing else 0
        if settings.spec.keep_texts:
            from permafrost.data.latents.kept_texts import keep_texts  # loads pyarrow

            keep_texts(store, unit.texts)
        return UnitAnswer(
            shards=[path.name for path in store.appended],
            texts=texts,
            bytes=sum(path.stat().st_size for path in store.appended),
            seconds=time.monotonic() - started,
        )
