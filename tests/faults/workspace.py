"""What trials share: a tiny backbone, texts, and what runs without a fault give; made once, in a folder."""

import importlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from permafrost.data.plan.plan import TOKENS
from tests.faults.process import Ended, Started, counted, in_process, run_command
from tests.support.models.backbones import WORDS, tiny_folder

TEXTS = 120
VIEWS = "mean,tokens"
REMEMBERED = ("digests.json", "architectures.json")
"""Files of a cache that remember what was proven of a backbone, which takes longer than a run."""

MODULES = "modules.txt"
"""File with the names of the modules that commands import."""


@dataclass(frozen=True)
class Workspace:
    """The folder, and what is in it."""

    folder: Path

    @classmethod
    @contextmanager
    def made(cls, folder: Path) -> "Iterator[Workspace]":
        """Make the folder, or take what an earlier campaign made of it."""
        workspace = cls(folder)
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            if (ended := in_process(workspace._make, limit=600)).code:
                raise RuntimeError(ended.said)
            for name in ("extract", "run", "pretrain"):
                if (ended := in_process(partial(workspace._count, name))).code:
                    raise RuntimeError(ended.said)
            (folder / "made").touch()
        preload(folder / MODULES)
        yield workspace

    @property
    def backbone(self) -> Path:
        """Folder of a tiny BERT with random weights."""
        return self.folder / "bert"

    @property
    def run(self) -> Path:
        """Folder of a finished run."""
        return self.folder / "run" / "bench" / "runs" / "sts-1"

    @property
    def corpus(self) -> Path:
        """File of distinct texts, one a line."""
        return self.folder / "texts.txt"

    @property
    def texts(self) -> list[str]:
        """The texts of the corpus."""
        return self.corpus.read_text().splitlines()

    def _make(self) -> None:
        from tests.faults.runs import COMMANDS

        tiny_folder("bert", self.backbone)
        rng = np.random.default_rng(0)
        texts = {" ".join(rng.choice(WORDS, rng.integers(3, 14))): None for _ in range(2 * TEXTS)}
        self.corpus.write_text("".join(f"{text}\n" for text in [*texts][:TEXTS]))
        if code := self.extract(self.folder / "reference"):
            raise RuntimeError(f"extract ended with {code}")
        for command in COMMANDS:
            made = command(self, self.folder / command.name)
            made.plant()
            if code := made.work():
                raise RuntimeError(f"{command.name} ended with {code}")
        (self.folder / MODULES).write_text("".join(f"{name}\n" for name in sorted(sys.modules)))

    def _count(self, name: str) -> None:
        """Write the calls of a command at which a fault can be planted."""
        from tests.faults.runs import COMMANDS

        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            kinds = {command.name: command for command in COMMANDS}
            if name in kinds:
                command = kinds[name](self, Path(folder))
                calls = counted(command.bench.folder, command.work)
            else:
                cache = self.cache(Path(folder))
                calls = counted(cache, lambda: self.extract(cache))
        self.points(name).write_text(json.dumps(calls))

    def points(self, name: str) -> Path:
        """File with the calls of a command that change files."""
        return self.folder / f"points-{name}.json"

    def extract(self, cache: Path, corpus: Path | None = None, *more: str) -> int:
        """Extract the texts in this process; return the exit code."""
        cache.mkdir(parents=True, exist_ok=True)
        settings = {
            "corpus.path": corpus or self.corpus, "corpus.columns": "sentence", "corpus.target": "none",
            "plan.backbone": self.backbone, "plan.max_tokens": 32, "plan.views": VIEWS, "plan.stored_dtype": "float32",
            "plan.compute_dtype": "float32", "extract.cache": cache, "extract.shard_bytes": 20_000,
            "extract.batch_tokens": 64, "device": "cpu",
        }  # fmt: skip
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        return run_command("extract", "pairs", *words, *more)

    def cache(self, folder: Path) -> Path:
        """Return an empty cache that knows what was proven of the backbone."""
        cache = folder / "cache"
        cache.mkdir(parents=True)
        for name in REMEMBERED:
            if (self.folder / "reference" / name).exists():
                shutil.copy2(self.folder / "reference" / name, cache / name)
        return cache

    def full_cache(self, folder: Path) -> Path:
        """Return a copy of the cache with all texts."""
        return Path(shutil.copytree(self.folder / "reference", folder / "cache"))

    @cached_property
    def reference(self) -> dict[str, str]:
        """Key of each text -> digest of its latents, of a run without a fault."""
        found: dict[str, str] = self.stored(self.folder / "reference").result
        return found

    def stored(self, cache: Path) -> Ended:
        """Read the latents of all texts in a cache, in a process of its own: key -> digest of what is served."""
        return in_process(lambda: served(cache))

    def start_extract(self, cache: Path, before: Any = None) -> Started:
        """Start the extraction of the texts as a process."""
        return Started(lambda: self.extract(cache), before)


def preload(names: Path) -> None:
    """Import the modules that commands import, so that no trial has to; nothing is computed, and no thread begun.

    Args:
        names: file with the name of one a line.
    """
    before = _threads()
    for name in names.read_text().splitlines():
        if not name.startswith("__"):
            with suppress(Exception):  # some are made by others, and cannot be imported by name
                importlib.import_module(name)
    if _threads() > before:
        raise RuntimeError("a module began a thread, which a fork may wait for")


def _threads() -> int:
    return len([*Path("/proc/self/task").iterdir()])


def served(cache: Path) -> dict[str, str]:
    """Key of each text in a cache -> digest of all that its shards serve of it; what is refused is left out."""
    from permafrost.data.errors import PermafrostError
    from permafrost.data.store.shard import Shard

    parts: dict[str, list[tuple[str, bytes]]] = {}
    for path in sorted(cache.rglob("*.h5")):
        try:
            of_shard = list(_parts(Shard(path)))
        except PermafrostError:
            continue
        for key, name, content in of_shard:
            parts.setdefault(key, []).append((name, content))
    return {key: blake2b(repr(sorted(set(found))).encode(), digest_size=16).hexdigest() for key, found in parts.items()}


def _parts(shard: Any) -> Iterator[tuple[str, str, bytes]]:
    """Yield key, view with layer, and the bytes of the latents of each text of a shard."""
    keys = shard.keys.tolist()
    for view, layers in shard.columns.items():
        for layer in layers:
            values = shard.layer(view, layer)
            for row, key in enumerate(keys):
                own = slice(*shard.offsets[row : row + 2]) if view == TOKENS else row
                extra = shard.ids[own].tobytes() + shard.spans[own].tobytes() if view == TOKENS else b""
                yield key.hex(), f"{view} {layer}", values[own].tobytes() + extra


def compared(found: dict[str, str], expected: dict[str, str]) -> int:
    """Return how many texts are served other latents than those of a run without a fault."""
    return sum(expected.get(key) != digest for key, digest in found.items())


def told(ended: Ended) -> str:
    """Return the last lines of what a process said."""
    return json.dumps(ended.said[-400:])
