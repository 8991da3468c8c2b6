"""The record of a run: what ran, on what, with which versions."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data.corpus import Corpus
from data.shard import Shard
from data.spec import plain
from probes.ensemble import Ensemble
from probes.inputs import Column, Stored
from probes.tasks import head_of, loss_and_metric, sides_of_rows, task_of

PACKAGES = ("permafrost", "torch", "transformers", "h5py", "numpy", "scipy", "pandas", "scikit-learn")


def make_record(
    corpus: Corpus, found: Sequence[Ensemble], stores: Mapping[str, Mapping[str, Stored]]
) -> dict[str, Any]:
    """What ran, on what, with which versions.

    Args:
        stores: variant -> name of a plan -> where its latents are.
    """
    every = {id(one): one for plans in stores.values() for one in plans.values()}
    return environment() | {
        "corpus": {"name": corpus.name, "rows": {split: len(rows) for split, rows in corpus.splits.items()}},
        "texts": corpus.sentences,
        "texts_distinct": len(corpus.texts),
        "bytes": sum(shard.path.stat().st_size for shard in _shards(every.values())),
        "stores": {
            variant: {name: store_record(one) for name, one in plans.items()} for variant, plans in stores.items()
        },
        "parameters": {one.variant: one.parameters for one in found},
        "probes": {one.variant: _probe_record(one, stores[one.variant], corpus) for one in found},
    }


def environment() -> dict[str, Any]:
    """With which versions, of which commit and on which machine this process runs."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def store_record(one: Stored) -> dict[str, Any]:
    """Where latents were read, and what filled them."""
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


def backbone_numbers(stored: Iterable[Stored]) -> int:
    """How many numbers the backbones have that filled some stores; several plans may read one backbone."""
    known = {one.store.identity.weights: one.store.shards[0].provenance.get("parameters") or 0 for one in stored}
    return sum(known.values())


def _shards(stored: Iterable[Stored]) -> list[Shard]:
    return list({shard.path: shard for one in stored for shard in one.store.shards}.values())


def _probe_record(one: Ensemble, stores: Mapping[str, Stored], corpus: Corpus) -> dict[str, Any]:
    """What a diagram of the probe shows."""
    spec = one.recipe.probe
    inputs: dict[tuple[str, str], list[int]] = {}
    for column in one.columns:
        inputs.setdefault((column.plan, column.view), []).append(column.layer)
    widths = dict(zip(one.columns, one.probe.seats.widths, strict=False))
    return {
        "inputs": [
            {"plan": plan, "view": view, "layers": layers, "width": widths[Column(plan, view, layers[0])]}
            for (plan, view), layers in inputs.items()
        ],
        "encoder": spec.encoder,
        "codes": one.probe.seats.codes[: len(one.columns)],
        "depth": spec.depth,
        "mixer": spec.mixer,
        "context": spec.context,
        "head": head_of(spec, corpus.kind, sides_of_rows(corpus)),
        "hidden": spec.hidden,
        "sides": sides_of_rows(corpus),
        "loss": loss_and_metric(one.recipe, task_of(corpus))[0],
        "pretraining": "" if one.recipe.pretraining.task == "none" else one.recipe.pretraining.task,
        "parameters": one.parameters,
        "backbone_parameters": backbone_numbers(stores.values()) or one.of_backbone,
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
