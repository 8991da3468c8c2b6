"""Unfinished trainings of a run: kept while they last, beside the runs; the same command goes on with them."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.progress import Progress
from permafrost.data.spec import fingerprint, plain
from permafrost.data.text import Segments
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.training.checkpoint import Checkpoint

FOLDER = "unfinished"


@dataclass(frozen=True)
class Unfinished:
    """The folder of one recipe's unfinished trainings."""

    path: Path

    @classmethod
    def of(cls, runs: Path, name: str, recipe: Recipe, progress: Progress) -> "Unfinished":
        """The folder of a recipe as it is; what other settings left behind is said."""
        found = cls(runs / FOLDER / f"{name}-{fingerprint(_what_matters(recipe))}")
        others = [
            one
            for one in sorted(found.path.parent.glob("*-*"))
            if one.name.rpartition("-")[0] == name and one != found.path and one.is_dir() and any(one.iterdir())
        ]
        if others:
            progress.note(
                f"{others[0]} holds an unfinished training of this recipe with other settings: they go on with it, and "
                "it may be removed."
            )
        return found

    def of_training(
        self,
        variant: str,
        recipe: Recipe,
        seeds: Sequence[int],
        corpora: Mapping[str, Corpus],
        latents: Mapping[str, Any],
        further: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Where one training is kept; what it depends on is written down beside it.

        Args:
            latents: the identities of those that it reads, by name; or the digests of the backbone that it begins with.
            further: what else tells it from other trainings of the variant.
        """
        origin = {
            "recipe": plain(_what_matters(recipe)),
            "seeds": list(seeds),
            "corpora": {task or "corpus": corpus_digest(corpus) for task, corpus in corpora.items()},
            "latents": dict(latents),
            "torch": torch.__version__,
        } | dict(further or {})
        name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in variant)[:80]
        name = f"{name}-{fingerprint([variant, list(seeds), dict(further or {})])[:6]}.safetensors"
        return Checkpoint(self.path / name, origin, recipe.train.checkpoint_seconds)

    def remove(self) -> None:
        """The run is written: what it kept on its way may go."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):  # another run has put something there, or was faster
            self.path.parent.rmdir()


def corpus_digest(corpus: Corpus) -> str:
    """Sixteen hex digits that change when a text, a row or a target does."""
    running = hashlib.sha256("\n".join(corpus.labels).encode())
    for text in corpus.texts:
        parts = (text.first, text.second) if isinstance(text, Segments) else (text,)
        for part in parts:
            running.update(len(part).to_bytes(8, "little") + part.encode("utf-8", "surrogatepass"))
    for split, rows in corpus.splits.items():
        running.update(split.encode() + rows.texts.tobytes() + rows.targets.tobytes())
        if rows.spans:
            running.update(rows.spans.characters.tobytes() + rows.spans.codes.tobytes() + rows.spans.offsets.tobytes())
    return running.hexdigest()[:16]


def _what_matters(recipe: Recipe) -> Recipe:
    """The recipe without what changes no weight."""
    train = replace(recipe.train, checkpoint_seconds=0.0)
    return replace(recipe, summary="", duration="", extract=type(recipe.extract)(), train=train)
