"""One shard, opened for reading: an immutable HDF5 file of latents, as :mod:`permafrost.data.store.block` writes it.

HDF5 only locates the datasets; latents are then read through a memory map. A file is not trusted until
:mod:`permafrost.data.store.shard_layout` has checked its layout.
"""

import hashlib
import mmap
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import Counts
from permafrost.data.remote.mirror import store_folder
from permafrost.data.store.encoding import decode, memory_dtype
from permafrost.data.store.errors import MissingShardError, OtherVersionError, ShardError
from permafrost.data.store.identity import Identity
from permafrost.data.store.shard_layout import (
    KEY_BYTES,
    SUFFIX,
    VALIDATORS,
    checksum,
    dataset_name,
    read_about,
    read_peaks,
    read_provenance,
    read_regions,
)

COPIED = ("keys", "lengths")
"""Datasets that are read from every shard, and copied rather than mapped: a map would keep the file open."""


class Shard:
    """A committed shard, opened for reading; each layer is read on demand."""

    def __init__(self, path: Path) -> None:
        """Check the layout of the file and record the position of each dataset.

        Raises:
            ShardError: the file is truncated, has a changed layout, is not a shard, or is of another version.
        """
        self.path = path
        if path.exists() and not path.is_file():  # opening a pipe would wait
            raise ShardError(path, "not a regular file")
        try:
            with h5py.File(path, "r", locking=False) as file:
                about = read_about(file)
                self.identity = Identity.from_json(about["identity"])
                self.columns = {str(view): tuple(map(int, layers)) for view, layers in about["columns"].items()}
                self.provenance = read_provenance(about, self.columns)
                stored_dtype, size = self.identity.stored_dtype, path.stat().st_size
                self._regions = dict(read_regions(file, self.columns, stored_dtype, size))
                self.peaks = read_peaks(about, self.columns)
        except OtherVersionError:
            raise
        except FileNotFoundError as error:
            raise MissingShardError(path) from error
        except Exception as error:  # a hostile file can raise any exception
            raise ShardError(path, f"not a whole shard ({error})") from error
        self._checked: set[tuple[str, int]] = set()

    def __reduce__(self) -> tuple[type["Shard"], tuple[Path]]:
        return Shard, (self.path,)  # another process maps the file itself

    @property
    def keys(self) -> NDArray[np.bytes_]:
        """``[text]``, 16 bytes each, in the order of the latents; read from the file each time."""
        return self._part("keys", 0).reshape(-1).view(f"S{KEY_BYTES}")

    @property
    def keys_offset(self) -> int:
        """Offset of the keys in the file, in bytes."""
        return self._regions["keys"].offset

    def check_keys(self, keys: NDArray[np.bytes_], rows: NDArray[np.int64]) -> None:
        """Raise a :class:`MachineError` if some rows have other keys."""
        stored = self.keys
        if rows.max(initial=0) >= len(stored) or (stored[rows] != keys).any():
            raise self._lacks("texts")

    @property
    def lengths(self) -> NDArray[np.int32]:
        """``[text]``, tokens before truncation; read from the file each time."""
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
        if view not in self.columns:
            raise self._lacks(f"view {view}")
        return self._regions[dataset_name(view)].width

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the latents once :func:`permafrost.data.store.encoding.decode` has been applied."""
        return memory_dtype(self.identity.stored_dtype)

    def layer(self, view: str, layer: int) -> NDArray[Any]:
        """Return one layer as it is stored, memory-mapped; its checksum is verified on first use.

        Returns:
            ``[text, width]``, or ``[text]`` of records in int8; of the view ``tokens``, ``token`` for ``text``. Apply
            :func:`permafrost.data.store.encoding.decode` to the rows that are needed.

        Raises:
            ShardError: the bytes have changed since they were written.
        """
        if layer not in self.columns.get(view, ()):
            raise self._lacks(f"view {view}, layer {layer}")
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

    def release(self) -> None:
        """Take the pages of the file that were read out of the memory of this process; they are read again if needed.

        Arrays of :meth:`layer` stay valid.
        """
        if "_file_map" in vars(self):
            self._file_map.madvise(mmap.MADV_DONTNEED)

    @cached_property
    def _file_map(self) -> mmap.mmap:
        """The file, mapped once: one map per layer would exceed the limit of open files."""
        with open(self.path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def _map(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._file_map, np.uint8)

    def _lacks(self, part: str) -> MachineError:
        return MachineError(
            f"{self.path}: an index file names {part}, which the shard does not hold. Remove the index files of the "
            "folder (*.index): they are made again."
        )

    def _part(self, name: str, index: int) -> NDArray[Any]:
        if name not in self._regions:
            raise self._lacks(name)
        region = self._regions[name]
        shape = region.shape[1:] if region.by_layer else region.shape
        size = int(np.prod(shape)) * region.dtype.itemsize
        start = region.offset + index * size
        try:
            if name in COPIED:
                flat: NDArray[Any] = np.fromfile(self.path, region.dtype, size // region.dtype.itemsize, offset=start)
            else:
                flat = self._map[start : start + size].view(region.dtype)
            values = flat.reshape(shape)
        except FileNotFoundError as error:
            raise MissingShardError(self.path) from error
        except (OSError, ValueError) as error:
            raise ShardError(self.path, f"{name} cannot be read ({error})") from error
        if (name, index) not in self._checked:
            if checksum(values) != region.checksums[index]:
                raise ShardError(self.path, f"{name}[{index}] does not match its checksum")
            if name in VALIDATORS and not VALIDATORS[name](values, self.tokens):
                raise ShardError(self.path, f"{name} cannot be right")
            self._checked.add((name, index))
        return values


def first_shard(path: Path) -> Shard | None:
    """Return the first shard by name in the folder of a store, which describes it; None if it holds none."""
    folder = store_folder(path)
    names = sorted(name for name in folder.names() if name.endswith(SUFFIX))
    return Shard(folder.fetch(names[0])) if names else None
