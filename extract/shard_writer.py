"""Writing of shards while the packs of an extraction run."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.atomic import remove_leftovers
from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import TOKENS, Columns, ExtractSpec
from permafrost.data.ragged import TokenLatents, offsets_from_lengths
from permafrost.data.store.block import Block
from permafrost.data.store.store import LatentStore


class ShardWriter:
    """Buffer that collects packs and commits them as shards; whole packs are committed even if the run ends early."""

    def __init__(
        self,
        store: LatentStore,
        columns: Columns,
        provenance: Mapping[str, Any],
        spec: ExtractSpec,
        tokens_per_text: float,
        check_first: Callable[[Path], None] | None,
    ) -> None:
        """Start with an empty buffer.

        Args:
            tokens_per_text: expected mean, if the columns have the view ``tokens``; sizes the buffer.
            check_first: called with the file of the first shard before it counts; if it raises, the shard does not;
                None checks nothing.
        """
        self.store, self.columns, self.provenance, self.spec = store, columns, provenance, spec
        self._tokens_per_text = tokens_per_text
        self._check = check_first
        self._keys: list[NDArray[np.bytes_]] = []
        self._lengths: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._buffer: dict[str, NDArray[Any]] = {}
        self._texts = self._tokens = self._room = self._token_room = 0
        self._committed_at = time.monotonic()

    def __enter__(self) -> "ShardWriter":
        remove_leftovers(self.store.path)
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
                self._buffer[view] = np.empty((len(values), self._room, *values.shape[2:]), values.dtype)
            for name, values in token_arrays.items():
                axis = 1 if name == "states" else 0
                shape = (*values.shape[:axis], self._token_room, *values.shape[axis + 1 :])
                self._buffer[name] = np.empty(shape, values.dtype)
