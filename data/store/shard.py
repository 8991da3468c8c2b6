"""One shard: an immutable HDF5 file of latents that is complete or absent.

The file is built in memory, written under a temporary name, synced, and renamed to the digest of its bytes. HDF5 only
locates the datasets; latents are then read through ``numpy.memmap``. A file is not trusted until
:mod:`permafrost.data.store.shard_layout` has checked its layout.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import MachineError
from permafrost.data.ragged import NO_SPAN, Counts, TokenLatents
from permafrost.data.spec import plain
from permafrost.data.store.bfloat16 import decode, encode, largest_magnitude, memory_dtype
from permafrost.data.store.errors import FORMAT, OtherVersionError, ShardError
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import TOKENS
from permafrost.data.store.shard_layout import (
    KEY_BYTES,
    STORED_TYPES,
    dataset_name,
    read_about,
    read_peaks,
    read_regions,
)

SUFFIX = ".h5"

STORE_NAME = re.compile(r"[0-9a-f]{16}")

SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")

Latents = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Texts with their latents: the content of one shard."""

    keys: NDArray[np.bytes_]
    """``[text]``, 16 bytes each."""

    lengths: NDArray[np.int32]
    """``[text]``, tokens before truncation."""

    columns: Mapping[str, tuple[int, ...]]
    latents: Mapping[str, Latents]
    """Pooled view -> ``[layer, text, width]``, in the stored dtype; if that is bfloat16, float32 rounded to it."""

    tokens: TokenLatents | None = None
    """Tokens of the same texts in the layers of the view ``tokens``; None if the columns do not have it."""


def write_shard(
    folder: Path,
    identity: Identity,
    provenance: Mapping[str, Any],
    block: Block,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Commit ``block`` to ``folder`` and return the path of the shard, which from then on survives a power cut.

    Args:
        check: called with the path of the written file before it is renamed; if it raises, the file is removed.

    Raises:
        MachineError: the disk is full or cannot be written; nothing is left behind.
    """
    image = _file_image(identity, provenance, block)
    path = folder / f"{xxhash.xxh3_128_hexdigest(image)}{SUFFIX}"
    try:
        write_atomically(path, image, check)
    except OSError as error:
        raise MachineError(
            f"{folder}: a shard of {len(image):,} bytes could not be written ({error.strerror or error}). What was "
            "committed is safe; free space or set extract.cache to another disk, and run the same command to go on."
        ) from error
    return path


def _file_image(identity: Identity, provenance: Mapping[str, Any], block: Block) -> bytes:
    states = dict(block.latents)
    if block.tokens:
        states[TOKENS] = block.tokens.states
    about = json.dumps(
        {
            "format": FORMAT,
            "identity": plain(identity),
            "provenance": dict(provenance),
            "columns": {view: list(layers) for view, layers in block.columns.items()},
            "peaks": {view: list(map(_peak, values)) for view, values in states.items()},
        },
        sort_keys=True,
    ).encode()
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["about"] = np.bytes_(about)
        file.attrs["about_xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(about))
        keys = np.frombuffer(np.ascontiguousarray(block.keys).tobytes(), np.uint8).reshape(-1, KEY_BYTES)
        _write_dataset(file, "keys", keys)
        _write_dataset(file, "lengths", block.lengths)
        for view, values in states.items():
            _write_latents(file, dataset_name(view), values, identity.stored_dtype)
        if block.tokens:
            for name in ("offsets", "ids", "spans"):
                _write_dataset(file, f"tokens/{name}", getattr(block.tokens, name))
    return image.getvalue()


def _write_dataset(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    file.create_dataset(name, data=values).attrs["xxh3"] = np.array([checksum(values)], np.uint64)


def _write_latents(file: h5py.File, name: str, values: Latents, stored_dtype: str) -> None:
    stored_type = STORED_TYPES[stored_dtype]
    dataset = file.create_dataset(name, values.shape, h5py.Datatype(stored_type))
    space, checksums = dataset.id.get_space(), []
    for index, layer in enumerate(values):
        stored = np.ascontiguousarray(encode(layer, stored_dtype))
        space.select_hyperslab((index, 0, 0), (1, *stored.shape))
        memory = h5py.h5s.create_simple((1, *stored.shape))
        dataset.id.write(memory, space, stored, stored_type)  # its type in memory is that on disk: nothing is converted
        checksums.append(checksum(stored))
    dataset.attrs["xxh3"] = np.array(checksums, np.uint64)


def _peak(layer: Latents) -> float:
    return float(f"{largest_magnitude(layer):.6g}")


def checksum(values: NDArray[Any]) -> int:
    """Return the 64-bit xxh3 of the bytes of an array."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)


class Shard:
    """A committed shard, opened for reading; each layer is read on demand."""

    def __init__(self, path: Path) -> None:
        """Check the layout of the file and record the position of each dataset.

        Raises:
            ShardError: the file is truncated, has a changed layout, is not a shard, or is of another version.
        """
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                about = read_about(file)
                self.identity = Identity.from_json(about["identity"])
                self.provenance: dict[str, Any] = dict(about["provenance"])
                self.columns = {str(view): tuple(map(int, layers)) for view, layers in about["columns"].items()}
                stored_dtype, size = self.identity.stored_dtype, path.stat().st_size
                self._regions = dict(read_regions(file, self.columns, stored_dtype, size))
                self.peaks = read_peaks(about, self.columns)
        except OtherVersionError:
            raise
        except Exception as error:  # a hostile file can raise any exception
            raise ShardError(path, f"not a whole shard ({error})") from error
        self._checked: set[tuple[str, int]] = set()

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """``[text]``, 16 bytes each, in the order of the latents."""
        return self._part("keys", 0).reshape(-1).view(f"S{KEY_BYTES}")

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """``[text]``, tokens before truncation."""
        return self._part("lengths", 0)

    @cached_property
    def offsets(self) -> Counts:
        """``[text + 1]``: text ``i`` has the tokens ``offsets[i]:offsets[i + 1]``."""
        return self._part("tokens/offsets", 0)

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """``[token]``: token ids of the view ``tokens``."""
        return self._part("tokens/ids", 0)

    @cached_property
    def spans(self) -> NDArray[np.int32]:
        """``[token, 2]``: characters of the text that each token of the view ``tokens`` covers, or (-1, -1)."""
        return self._part("tokens/spans", 0)

    @property
    def tokens(self) -> int:
        """Number of tokens in the view ``tokens``."""
        return self._regions["tokens/ids"].shape[0] if TOKENS in self.columns else 0

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self._regions["keys"].shape[0]

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def width(self, view: str) -> int:
        """Return the width of the latents of ``view``."""
        return self._regions[dataset_name(view)].shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the latents once :func:`permafrost.data.store.bfloat16.decode` has been applied."""
        return memory_dtype(self.identity.stored_dtype)

    def layer(self, view: str, layer: int) -> NDArray[Any]:
        """Return one layer as it is stored, memory-mapped; its checksum is verified on first use.

        Returns:
            ``[text, width]``; ``[token, width]`` for the view ``tokens``. Latents in bfloat16 are ``uint16``: apply
            :func:`permafrost.data.store.bfloat16.decode` to the rows that are needed.

        Raises:
            ShardError: the bytes have changed since they were written.
        """
        return self._part(dataset_name(view), self.columns[view].index(layer))

    def problems(self) -> list[str]:
        """Return a phrase for each problem of this shard; reads the whole file."""
        problems = []
        with open(self.path, "rb") as file:
            digest = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
        if digest != self.path.stem:
            problems.append("the file's bytes are not those its name was made from")
        for name, region in self._regions.items():
            for index in range(len(region.checksums)):
                try:
                    values = self._part(name, index)
                    if region.by_layer and not np.isfinite(decode(values)).all():
                        problems.append(f"{name}[{index}] holds values that are not finite")
                except ShardError as error:
                    problems.append(error.reason)
        return problems

    @cached_property
    def _map(self) -> NDArray[np.uint8]:
        """The file, mapped once: one map per layer would exceed the limit of open files."""
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def _part(self, name: str, index: int) -> NDArray[Any]:
        region = self._regions[name]
        shape = region.shape[1:] if region.by_layer else region.shape
        size = int(np.prod(shape)) * region.dtype.itemsize
        start = region.offset + index * size
        try:
            if name in _COPIED:
                flat: NDArray[Any] = np.fromfile(self.path, region.dtype, size // region.dtype.itemsize, offset=start)
            else:
                flat = self._map[start : start + size].view(region.dtype)
            values = flat.reshape(shape)
        except (OSError, ValueError) as error:
            raise ShardError(self.path, f"{name} cannot be read ({error})") from error
        if (name, index) not in self._checked:
            if checksum(values) != region.checksums[index]:
                raise ShardError(self.path, f"{name}[{index}] does not match its checksum")
            if name in _VALIDATORS and not _VALIDATORS[name](values, self.tokens):
                raise ShardError(self.path, f"{name} cannot be right")
            self._checked.add((name, index))
        return values


_COPIED = ("keys", "lengths")
"""Datasets that are read from every shard, and copied rather than mapped: a map would keep the file open."""


def _are_offsets(offsets: NDArray[Any], tokens: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == tokens and (offsets[1:] > offsets[:-1]).all())


def _are_spans(spans: NDArray[Any], _: int) -> bool:
    start, end = spans[:, 0], spans[:, 1]
    return bool(np.where(start == NO_SPAN, end == NO_SPAN, (start >= 0) & (end > start)).all())


_VALIDATORS: dict[str, Callable[[NDArray[Any], int], bool]] = {
    "tokens/offsets": _are_offsets,
    "tokens/spans": _are_spans,
    "tokens/ids": lambda ids, _: bool((ids >= 0).all()),
}
"""Dataset -> check of its values, which index other arrays: a forged file may have valid checksums."""
