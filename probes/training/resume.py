"""Unfinished trainings of a run: checkpoints in a folder next to the runs, from which the same command resumes."""

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from permafrost.data.atomic import file_lock, remove_leftovers
from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.spec import fingerprint, flatten_settings, plain
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.training.checkpoint import Checkpoint

FOLDER = "unfinished"

TOLD = ".told"
"""Empty file in a folder of checkpoints that a run with other settings has named once."""


@dataclass(frozen=True)
class UnfinishedTrainings:
    """Folder of the checkpoints of one recipe, each of one training."""

    path: Path

    @classmethod
    def of(cls, runs: Path, name: str, recipe: Recipe, progress: Progress) -> "UnfinishedTrainings":
        """Return the folder of a recipe; note a folder that the recipe left with other settings, once each."""
        unfinished = cls(runs / FOLDER / f"{name}-{fingerprint(recipe.relevant_settings())}")
        others = [
            folder
            for folder in sorted(unfinished.path.parent.glob("*-*"))
            if folder.name.rpartition("-")[0] == name and folder != unfinished.path
            if folder.is_dir() and any(folder.iterdir())
        ]
        for folder in others:
            if not (folder / TOLD).exists() and not _is_held(folder):
                progress.note(
                    f"{folder} holds an unfinished training of this recipe with other settings or of another version, "
                    f"which is not used here; to remove it: rm -r {shlex.quote(str(folder))}"
                )
                with suppress(OSError):  # it may be another user's
                    (folder / TOLD).touch()
        return unfinished

    def checkpoint_for(
        self,
        variant: str,
        recipe: Recipe,
        seeds: Sequence[int],
        corpora: Mapping[str, Corpus],
        latents: Mapping[str, Any],
        further: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Return the checkpoint of one training, with everything that the training depends on as its origin.

        Args:
            variant: name of the variant.
            recipe: recipe of the variant.
            seeds: seeds of the members.
            corpora: task -> corpus.
            latents: name -> identity of the latents that it reads, or name -> digest of the backbone that it trains.
            further: other values that distinguish it from trainings of the same variant.
        """
        origin = {
            "recipe": plain(recipe.relevant_settings()),
            "seeds": list(seeds),
            "corpora": {task: corpus.digest for task, corpus in corpora.items()},
            "latents": dict(latents),
            "torch": torch.__version__,
        } | dict(further or {})
        if plugins := origins_of(flatten_settings(origin["recipe"])):
            origin["plugins"] = plugins
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in variant)[:80]
        name = f"{name}-{fingerprint([variant, list(seeds), dict(further or {})])[:6]}.safetensors"
        return Checkpoint(self.path / name, origin, recipe.train.checkpoint_seconds)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the folder while a command trains.

        Yields:
            False if another process holds it.
        """
        lock, unfinished = _lock_of(self.path), self.path.parent
        made = [unfinished] if unfinished.parent.exists() else [unfinished, unfinished.parent]
        with file_lock(lock, wait=False) as free:
            remove_leftovers(unfinished)
            try:
                yield free
            finally:
                if free:
                    lock.unlink(missing_ok=True)
                    _remove_empty(made)

    def remove(self) -> None:
        """Remove the folder, after the run is written."""
        shutil.rmtree(self.path, ignore_errors=True)
        _remove_empty([self.path.parent])


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_held(folder: Path) -> bool:
    """Return whether a process trains with the checkpoints of a folder."""
    if not _lock_of(folder).exists():
        return False
    with file_lock(_lock_of(folder), wait=False) as free:
        return not free


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # another run has put something there, or was faster
        for folder in folders:
            folder.rmdir()
