"""Extraction job: check a backbone, run the packs that are not stored yet, and append them to the store."""

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.machine import machine_name, package_version
from permafrost.data.progress import Eta, Progress
from permafrost.data.store.find import init_name
from permafrost.data.store.plan import TOKENS, Columns, union_of_columns
from permafrost.data.store.store import LatentStore
from permafrost.data.text import Text
from permafrost.extract.capture.read_back import ReadBack
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.capture.self_check import SelfCheck
from permafrost.extract.shard_writer import ShardWriter, check_disk_space, stored_bytes
from permafrost.extract.tokenization.token_batch import TokenBatch

MEASURED_SECONDS = 1.0
"""Seconds after which the expected time is noted."""

Missing = Sequence[tuple[Columns, Any]]
"""Groups of texts that lack the same columns: those columns, and the indices of the texts."""


def run_missing(
    runner: BackboneRunner, store: LatentStore, texts: Sequence[Text], missing: Missing, progress: Progress
) -> int:
    """Run the latents that a store lacks, and append them; return the number of texts that ran.

    Raises:
        InputError: a text cannot be used.
        MachineError: the disk is full, memory is short, or the self-check failed.
    """
    tokens, packs = runner.tokenize_and_pack(texts, any(TOKENS in columns for columns, _ in missing))
    todo = np.zeros(len(texts), bool)
    for _, members in missing:
        todo[members] = True
    _announce(runner, store, tokens, todo, missing, progress)
    check = SelfCheck(runner, texts, tokens)
    deviation = check.check_before_run(np.flatnonzero(todo), union_of_columns(columns for columns, _ in missing))
    progress.note(f"self-check: texts together are those of each alone, within {deviation:.1e} of the largest value")
    provenance = _provenance(runner, deviation)
    expected = Eta(progress, int(tokens.lengths[todo].sum()), MEASURED_SECONDS)
    with progress.bar(f"{runner.source.name} on texts", int(todo.sum())) as advance:
        for columns, members in missing:
            tokens_per_text = float(tokens.viewed_lengths[members].mean())
            read_back = ReadBack(check, texts, columns)
            runner.on_forward = read_back.watch
            with ShardWriter(store, columns, provenance, runner.spec, tokens_per_text, read_back) as writer:
                for block in runner.blocks(packs, members, tokens, texts, columns):
                    writer.add(block)
                    expected.advance(int(np.minimum(block.lengths, runner.plan.max_tokens).sum()))
                    advance(len(block.keys))
    return int(todo.sum())


def _announce(
    runner: BackboneRunner,
    store: LatentStore,
    tokens: TokenBatch,
    todo: NDArray[np.bool_],
    missing: Missing,
    progress: Progress,
) -> None:
    """Note the size of the run; refuse it if the disk has no room."""
    width, dtype = runner.source.width, runner.plan.stored_dtype
    size = sum(
        stored_bytes(columns, len(members), int(tokens.viewed_lengths[members].sum()), width, dtype)
        for columns, members in missing
    )
    check_disk_space(store.path, size, runner.spec)
    progress.note(
        f"{runner.source.name}: {runner.source.layers} layers of width {width}, "
        f"{store.identity.compute_dtype} on {runner.backbone.device.type}; {int(todo.sum()):,} texts, "
        f"{int(tokens.lengths[todo].sum()):,} tokens, {size / 1e6:,.1f} MB to {store.path}"
    )


def _provenance(runner: BackboneRunner, self_check: float) -> dict[str, Any]:
    source, device = runner.source, runner.backbone.device
    gpu = device.type == "cuda"
    return {
        "backbone": source.name,
        "revision": source.revision,
        "tokenizer": runner.plan.tokenizer,
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
