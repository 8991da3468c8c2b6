"""Extraction job: check a backbone, run the packs that are not stored yet, and append them to the store as shards.

This is the half of an extraction that runs a model, with torch; what is missing is decided before, without it.
"""

import platform
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.errors import MachineError
from permafrost.data.machine import machine_name, package_version
from permafrost.data.progress import Eta, Progress
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import STORED_BYTES
from permafrost.data.store.keys import text_keys
from permafrost.data.store.plan import TOKENS, CapturePlan, Columns, union_of_columns
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.store.store import LatentStore, init_name
from permafrost.data.text import Text
from permafrost.extract.capture.read_back import ReadBack
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.capture.self_check import SelfCheck
from permafrost.extract.shard_writer import ShardWriter
from permafrost.extract.tokenization.token_batch import TokenBatch
from permafrost.extract.tokenization.tokenize import windowed

Missing = Sequence[tuple[Columns, Any]]
"""Groups of texts that lack the same columns: those columns, and the indices of the texts."""


def complete_store(
    runner: BackboneRunner,
    store: LatentStore,
    texts: Sequence[Text],
    windows: Sequence[Text] | None,
    columns: Columns,
    progress: Progress,
    asked: CapturePlan,
) -> int:
    """Run what a store lacks of some columns, as :func:`run_missing`; return the number of texts that ran.

    Args:
        windows: the texts, those of two segments window by window; None if the store does not know them all yet.
        asked: as of :func:`run_missing`.
    """
    windows = windows or windowed(runner.backbone.tokenizer, texts, runner.plan.token_limit, runner.plan.overlap)[0]
    missing = store.missing_columns(text_keys(windows, store.identity.in_windows), columns)
    return run_missing(runner, store, windows, missing, progress, asked) if missing else 0


def run_missing(
    runner: BackboneRunner,
    store: LatentStore,
    texts: Sequence[Text],
    missing: Missing,
    progress: Progress,
    asked: CapturePlan,
) -> int:
    """Run the latents that a store lacks, and append them; return the number of texts that ran.

    Args:
        asked: the plan as it was written, before it was resolved; its prompt is recorded.

    Raises:
        InputError: a text cannot be used, or the latents exceed ``extract.max_bytes``.
        MachineError: the disk is full, memory is short, or the self-check failed.
    """
    tokens, packs = runner.tokenize_and_pack(texts, any(TOKENS in columns for columns, _ in missing))
    todo = np.sort(np.concatenate([members for _, members in missing]))
    _announce(runner, store, tokens, todo, missing, progress)
    check = SelfCheck(runner, texts, tokens)
    rounding = check.check_before_run(todo, union_of_columns(columns for columns, _ in missing))
    progress.note(f"self-check: passed; {rounding}")
    provenance = _provenance(runner, rounding.largest, asked)
    run_lengths = tokens.run_lengths
    expected = Eta(progress, int(run_lengths[todo].sum()), after=1.0)
    with progress.bar(f"{runner.source.name} on texts", len(todo)) as advance:
        for columns, members in missing:
            tokens_per_text = float(tokens.viewed_lengths[members].mean())
            read_back = ReadBack(check, columns)
            runner.on_forward = read_back.watch
            with ShardWriter(store, columns, provenance, runner.spec, tokens_per_text, read_back) as writer:
                for indices, block in runner.blocks(packs, members, tokens, texts, columns):
                    writer.add(block)
                    expected.advance(int(run_lengths[indices].sum()))
                    advance(len(block.keys))
    return len(todo)


def _announce(
    runner: BackboneRunner,
    store: LatentStore,
    tokens: TokenBatch,
    todo: NDArray[np.int64],
    missing: Missing,
    progress: Progress,
) -> None:
    """Note the size of a run; refuse it if it takes more bytes than allowed, or than the disk has free."""
    source, spec = runner.source, runner.spec
    size = sum(stored_bytes(runner, tokens, columns, members) for columns, members in missing)
    if spec.max_bytes and size > spec.max_bytes:
        raise SpecError(
            f"the latents take {size:,} bytes and extract.max_bytes = {spec.max_bytes:,}; ask for fewer layers or "
            "views, for fewer texts (corpus.limit), or raise extract.max_bytes. Nothing was run."
        )
    existing = next(path for path in (store.path, *store.path.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise MachineError(
            f"{existing}: the latents take {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; set extract.cache to "
            "another disk, or ask for fewer layers or views. Nothing was run."
        )
    progress.note(
        f"{source.name}: {source.layers} layers of width {source.width}, {store.identity.compute_dtype} on "
        f"{runner.backbone.device.type}; {len(todo):,} texts, {int(tokens.run_lengths[todo].sum()):,} tokens, "
        f"{size / 1e6:,.1f} MB to {store.path}, in {store.identity.stored_dtype}"
    )


def stored_bytes(runner: BackboneRunner, tokens: TokenBatch, columns: Columns, members: NDArray[np.int64]) -> int:
    """Return the bytes that the latents of the texts ``members`` take on disk, except for a few kB per shard."""
    texts, seen = len(members), int(tokens.viewed_lengths[members].sum())
    state = runner.source.width * STORED_BYTES[runner.identity.stored_dtype]
    size = texts * (KEY_BYTES + np.dtype(np.int32).itemsize)
    for view, layers in columns.items():
        size += len(layers) * state * (seen if view == TOKENS else texts)
    if TOKENS in columns:
        size += seen * 3 * np.dtype(np.int32).itemsize + (texts + 1) * np.dtype(np.int64).itemsize
    return size


def _provenance(runner: BackboneRunner, self_check: float, asked: CapturePlan) -> dict[str, Any]:
    source, device = runner.source, runner.backbone.device
    gpu = device.type == "cuda"
    return {
        "backbone": source.name,
        "revision": source.revision,
        "adapter": runner.plan.adapter,
        "tokenizer": runner.plan.tokenizer,
        "template": asked.template,
        "system": asked.system,
        "longest": source.longest,
        "layers": source.layers,
        "init": init_name(runner.plan),
        "parameters": runner.backbone.parameter_count,
        "self_check": self_check,
        "device": torch.cuda.get_device_name(device) if gpu else f"{device.type} ({machine_name()})",
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__}
        | {package: package_version(package) for package in ("transformers", "h5py", "numpy")},
    }
