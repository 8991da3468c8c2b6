"""The record of a run: what ran, on what, with which versions."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from data.corpus import Corpus
from data.latents import LatentStore
from data.plan import Columns
from data.spec import fingerprint, plain
from probes.recipe import Recipe

PACKAGES = ("permafrost", "torch", "transformers", "h5py", "numpy", "scipy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Stored:
    """The latents of one plan, ready to be read, and what it took to have them."""

    store: LatentStore
    columns: Columns
    texts_run: int
    truncated: int
    seconds: float


def make_record(corpus: Corpus, variants: Mapping[str, Recipe], stored: Mapping[str, Stored]) -> dict[str, Any]:
    """What is known before training; ``stored`` is by the fingerprint of each variant's plan."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "corpus": {"name": corpus.name, "rows": {split: len(rows) for split, rows in corpus.splits.items()}},
        "texts": corpus.sentences,
        "texts_distinct": len(corpus.texts),
        "texts_run": sum(one.texts_run for one in stored.values()),
        "stores": {name: _store_record(stored[fingerprint(variant.plan)]) for name, variant in variants.items()},
    }


def _store_record(one: Stored) -> dict[str, Any]:
    about = one.store.shards[0].provenance
    return {
        "path": str(one.store.path),
        "identity": plain(one.store.identity),
        "columns": {view: list(layers) for view, layers in one.columns.items()},
        "truncated": one.truncated,
        "seconds": one.seconds,
        "backbone_parameters": about.get("parameters"),
        "device": about.get("device"),
        "self_check": about.get("self_check"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
        return said.stdout.strip()
    return None
