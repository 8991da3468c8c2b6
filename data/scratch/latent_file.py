"""Latents of some texts in a temporary file: all layers of a text or token together, text after text, as stored.

Rows that follow each other in a corpus then lie next to each other on disk, whatever the order of the texts in the
store.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from permafrost.data.errors import MachineError
from permafrost.data.ragged import concatenate_ranges, offsets_from_lengths
from permafrost.data.scratch.record_file import Bytes, RecordFile
from permafrost.data.store.encoding import vector_bytes
from permafrost.data.store.index.locations import TextLocations
from permafrost.data.store.keys import text_keys
from permafrost.data.store.shard import Shard
from permafrost.data.store.store import LatentStore
from permafrost.data.store.token_reader import TokenReader
from permafrost.data.text import Text

ALIGNMENT = 16
"""Bytes to a multiple of which the latents of a layer are padded."""

COPIED_BYTES = 16 << 20
"""Bytes of records that are put together in memory at once."""

ADVICE = (
    "the latents in the cache are safe. Make room, set extract.cache to another disk, or raise train.memory, and run "
    "the same command again."
)


@dataclass(frozen=True)
class LatentField:
    """Latents of one layer within the record of a text."""

    start: int
    """Offset in the record, in bytes."""

    width: int
    dtype: str
    """Stored dtype, as the identity of the store says it."""

    @property
    def stop(self) -> int:
        """End of the latents in the record, in bytes, without padding."""
        return self.start + vector_bytes(self.dtype, self.width)


@dataclass(frozen=True)
class StoredLayers:
    """Some layers of a view in a store."""

    store: LatentStore
    view: str
    layers: tuple[int, ...]

    def fields(self) -> Iterator[tuple[int, str]]:
        """Yield the width and the stored dtype of each layer; nothing if no shard holds the view."""
        if self.view not in self.store.columns():
            return
        width = self.store.shard_with(self.view).width(self.view)
        yield from ((width, self.store.identity.stored_dtype) for _ in self.layers)


@dataclass(frozen=True, eq=False)
class LatentFile:
    """Latents of texts on disk, one record a text; of the view ``tokens``, one a token."""

    file: RecordFile
    fields: tuple[LatentField, ...]
    """``[layer]``: place of each layer in a record."""

    @classmethod
    def write(cls, folder: Path, parts: Sequence[StoredLayers], texts: Sequence[Text]) -> Self:
        """Copy latents from their stores; every shard is read once, and a small part of it is in memory at a time.

        Args:
            parts: the layers of a record, one part after another.

        Raises:
            MachineError: the disk is full.
            StoreError: a text or a layer is not in its store.
            ShardError: a shard is damaged.
        """
        fields, record_bytes = _fields([shape for part in parts for shape in part.fields()])
        file = RecordFile.create(folder, record_bytes, len(texts), ADVICE)
        with _full_disk_told(folder, file):
            at = 0
            for part in parts:
                _copy(file, fields[at : at + len(part.layers)], part, texts)
                at += len(part.layers)
        return cls(file, fields)

    @classmethod
    def write_tokens(cls, folder: Path, reader: TokenReader) -> Self:
        """Copy the tokens of all texts of a reader, and raise, as :meth:`write`."""
        fields, record_bytes = _fields([(reader.width, reader.stored_dtype) for _ in reader.layers])
        offsets = offsets_from_lengths(reader.lengths)
        file = RecordFile.create(folder, record_bytes, int(offsets[-1]), ADVICE)
        with _full_disk_told(folder, file):
            for texts in reader.in_stored_order(max(1, COPIED_BYTES // record_bytes)):
                states = reader.read_stored(texts).states
                values = np.zeros((states.shape[1], record_bytes), np.uint8)
                for field, layer in zip(fields, states, strict=True):
                    values[:, field.start : field.stop] = layer.view(np.uint8).reshape(len(values), -1)
                file.write(concatenate_ranges(offsets[texts], reader.lengths[texts]), values)
        return cls(file, fields)

    def read(self, texts: NDArray[np.int64], layers: Sequence[int]) -> tuple[Bytes, int]:
        """Return the records of texts, ``[text, byte]``, and the offset in a record of their first byte.

        Args:
            texts: ascending and different.
            layers: indices of the layers that are needed; if they are a small part of a record, only that is read.
        """
        start = min(self.fields[layer].start for layer in layers)
        stop = max(self.fields[layer].stop for layer in layers)
        if 2 * (stop - start) > self.file.record_bytes:
            start, stop = 0, self.file.record_bytes
        return self.file.read(texts, start, stop), start


def _fields(shapes: Sequence[tuple[int, str]]) -> tuple[tuple[LatentField, ...], int]:
    """Return the places of layers of some widths and dtypes in a record, and the bytes of a record."""
    sizes = [vector_bytes(dtype, width) for width, dtype in shapes]
    starts = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
    return tuple(LatentField(start, *shape) for start, shape in zip(starts, shapes, strict=False)), starts[-1]


@contextmanager
def _full_disk_told(folder: Path, file: RecordFile) -> Iterator[None]:
    """Turn an error of writing into a :class:`MachineError`."""
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"{folder}: a temporary file of {file.bytes:,} bytes could not be written ({error.strerror}); {ADVICE}"
        ) from error


def _copy(file: RecordFile, fields: Sequence[LatentField], part: StoredLayers, texts: Sequence[Text]) -> None:
    """Write the layers of a part into the records of all texts."""
    keys = text_keys(texts, part.store.identity.in_windows)
    _, locations = part.store.locate_layers(keys, texts, part.view, part.layers)
    changes = [index for index, (one, other) in enumerate(pairwise(locations), 1) if one is not other]
    for first, last in pairwise([0, *changes, len(locations)]):
        if first < last:
            _copy_layers(file, fields[first:last], part.view, part.layers[first:last], locations[first])


def _copy_layers(
    file: RecordFile,
    fields: Sequence[LatentField],
    view: str,
    layers: Sequence[int],
    locations: TextLocations[Shard],
) -> None:
    """Write layers that the same shards hold, shard by shard."""
    start = fields[0].start
    stop = file.record_bytes if fields[-1].stop + ALIGNMENT > file.record_bytes else fields[-1].stop
    size = max(1, COPIED_BYTES // (stop - start))
    for shard, texts, rows in locations.by_shard():  # within a shard, texts ascend
        for begin in range(0, len(texts), size):
            selected = texts[begin : begin + size]
            values = np.zeros((len(selected), stop - start), np.uint8)
            for field, layer in zip(fields, layers, strict=True):
                latents: NDArray[Any] = shard.layer(view, layer)[rows[begin : begin + size]]
                values[:, field.start - start : field.stop - start] = latents.view(np.uint8).reshape(len(selected), -1)
            shard.release()
            file.write(selected, values, start)
