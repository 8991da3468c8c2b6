"""Extraction job: check a backbone, run the packs that are not stored yet, and append them to the store as shards."""

import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.errors import MachineError
from permafrost.data.machine import machine_name, package_version
from permafrost.data.progress import Eta, Progress
from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import STORED_BYTES
from permafrost.data.store.plan import TOKENS, CapturePlan, Columns, ExtractSpec, union_of_columns
from permafrost.data.store.shard import Block
from permafrost.data.store.shard_layout import KEY_BYTES
from permafrost.data.store.store import LatentStore, init_name
from permafrost.data.text import Text
from permafrost.extract.capture.read_back import ReadBack
from permafrost.extract.capture.runner import BackboneRunner
from permafrost.extract.capture.self_check import SelfCheck
from permafrost.extract.tokenization.token_batch import TokenBatch

Missing = Sequence[tuple[Columns, Any]]
"""Groups of texts that lack the same columns: those columns, and the indices of the texts."""


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
    deviation = check.check_before_run(todo, union_of_columns(columns for columns, _ in missing))
    progress.note(f"self-check: texts together are those of each alone, within {deviation:.1e} of the largest value")
    provenance = _provenance(runner, deviation, asked)
    expected = Eta(progress, int(tokens.lengths[todo].sum()), after=1.0)
    with progress.bar(f"{runner.source.name} on texts", len(todo)) as advance:
        for columns, members in missing:
            tokens_per_text = float(tokens.viewed_lengths[members].mean())
            read_back = ReadBack(check, columns)
            runner.on_forward = read_back.watch
            with ShardWriter(store, columns, provenance, runner.spec, tokens_per_text, read_back) as writer:
                for block in runner.blocks(packs, members, tokens, texts, columns):
                    writer.add(block)
                    expected.advance(int(np.minimum(block.lengths, runner.plan.token_limit).sum()))
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
        f"{runner.backbone.device.type}; {len(todo):,} texts, {int(tokens.lengths[todo].sum()):,} tokens, "
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


class ShardWriter:
    """Buffer that collects packs and commits them as shards; whole packs are committed even if the run ends early."""

    def __init__(
        self,
        store: LatentStore,
        columns: Columns,
        provenance: Mapping[str, Any],
        spec: ExtractSpec,
        tokens_per_text: float,
        check_first: Callable[[Path], None],
    ) -> None:
        """Start with an empty buffer.

        Args:
            tokens_per_text: expected mean, if the columns have the view ``tokens``; sizes the buffer.
            check_first: called with the file of the first shard before it counts; if it raises, the shard does not.
        """
        self.store, self.columns, self.provenance, self.spec = store, columns, provenance, spec
        self._tokens_per_text = tokens_per_text
        self._check: Callable[[Path], None] | None = check_first
        self._keys: list[NDArray[np.bytes_]] = []
        self._lengths: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._buffer: dict[str, NDArray[Any]] = {}
        self._texts = self._tokens = self._room = self._token_room = 0
        self._committed_at = time.monotonic()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not issubclass(kind, MachineError):
            self.commit()

    def add(self, block: Block) -> None:
        """Add the latents of a pack; if the buffer has no room for them, commit its content first."""
        texts, tokens = len(block.keys), len(block.tokens.ids) if block.tokens else 0
        if self._texts + texts > self._room or self._tokens + tokens > self._token_room:
            self.commit()
            self._make_room(block, texts, tokens)
        for view, values in block.latents.items():
            self._buffer[view][:, self._texts : self._texts + texts] = values
        if block.tokens:
            index = slice(self._tokens, self._tokens + tokens)
            self._buffer["states"][:, index] = block.tokens.states
            self._buffer["ids"][index], self._buffer["spans"][index] = block.tokens.ids, block.tokens.spans
            self._counts.append(block.tokens.lengths)
        self._keys.append(block.keys)
        self._lengths.append(block.lengths)
        self._tokens += tokens
        self._texts += texts
        if time.monotonic() - self._committed_at >= self.spec.shard_seconds:
            self.commit()

    def commit(self) -> None:
        """Write the content of the buffer as a shard, if there is any."""
        if self._texts:
            # Cut to whole packs: an interruption may have come between a pack's keys and its count.
            keys, lengths = np.concatenate(self._keys)[: self._texts], np.concatenate(self._lengths)[: self._texts]
            latents = {view: self._buffer[view][:, : self._texts] for view in self.columns if view != TOKENS}
            tokens = None
            if TOKENS in self.columns:
                offsets = offsets_from_lengths(np.concatenate(self._counts)[: self._texts])
                states, ids, spans = (self._buffer[name] for name in ("states", "ids", "spans"))
                end = int(offsets[-1])
                tokens = TokenLatents(states[:, :end], offsets, ids[:end], spans[:end])
            self._keys, self._lengths, self._counts, self._texts, self._tokens = [], [], [], 0, 0
            check, self._check = self._check, None
            block = Block(keys=keys, lengths=lengths, columns=self.columns, latents=latents, tokens=tokens)
            self.store.append(block, self.provenance, check)
        self._committed_at = time.monotonic()

    def _make_room(self, block: Block, texts: int, tokens: int) -> None:
        """Allocate a buffer of ``shard_bytes``, or larger if a single pack needs it; it is kept from shard to shard."""
        token_arrays: dict[str, NDArray[Any]] = {}
        if block.tokens:
            token_arrays = {name: getattr(block.tokens, name) for name in ("states", "ids", "spans")}
        pooled_bytes = sum(values.nbytes for values in block.latents.values()) / texts
        bytes_of_tokens = sum(values.nbytes for values in token_arrays.values())
        bytes_per_text = pooled_bytes + self._tokens_per_text * bytes_of_tokens / max(tokens, 1)
        texts_per_shard = self.spec.shard_bytes / bytes_per_text
        room = max(texts, int(texts_per_shard)) if pooled_bytes else sys.maxsize
        token_room = max(tokens, int(texts_per_shard * self._tokens_per_text)) if token_arrays else 0
        if room > self._room or token_room > self._token_room:
            self._room, self._token_room = max(room, self._room), max(token_room, self._token_room)
            self._buffer = {}  # freed before the next buffer is allocated
            for view, values in block.latents.items():
                self._buffer[view] = np.empty((len(values), self._room, values.shape[2]), values.dtype)
            for name, values in token_arrays.items():
                axis = values.ndim - 2 if name == "states" else 0
                shape = (*values.shape[:axis], self._token_room, *values.shape[axis + 1 :])
                self._buffer[name] = np.empty(shape, values.dtype)
