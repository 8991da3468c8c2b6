"""One shard: an immutable HDF5 file of latents that is whole or absent. The only module that imports h5py.

    about                      attribute, JSON: format, identity, provenance, columns
    keys     [text, 16]        digest of each text
    lengths  [text]            tokens of each text before it was cut
    latents/<view>             [layer, text, width], contiguous: one layer is one run of bytes

The file is built in memory, written under a temporary name, synced, and renamed to a name that carries the digest
of its bytes. HDF5 is asked only for the layout; latents are then read through ``numpy.memmap``. A file from elsewhere
is hostile until its layout has been checked: no links, filters, external or virtual storage, no size it cannot have.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from data.errors import InputError, MachineError
from data.plan import Identity, View
from data.spec import plain
from data.whole import write_whole

FORMAT = 1
SUFFIX = ".h5"
KEY_BYTES = 16
ABOUT_BYTES = 60_000  # an HDF5 attribute of the default file version ends at 64 KiB

STORE_NAME = re.compile(r"[0-9a-f]{16}")
SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")

Latents = NDArray[np.floating[Any]]


class StoreError(InputError):
    """Latents that cannot be stored as asked, or a store that does not hold what is asked."""


class ShardError(MachineError):
    """A shard that is not what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}. Run 'pipeline.py cache repair {path.parent}': it sets damaged shards aside, and the "
            "next extraction runs their texts again."
        )
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Block:
    """Texts with their latents: what one shard holds."""

    keys: NDArray[np.bytes_]
    """``[text]``, 16 bytes each."""

    lengths: NDArray[np.int32]
    """``[text]``, tokens before truncation."""

    columns: Mapping[str, tuple[int, ...]]
    latents: Mapping[str, Latents]
    """View -> ``[layer, text, width]``."""


@dataclass(frozen=True)
class Region:
    """Where one dataset lies in its file; ``checksums`` holds one xxh3 per slice that is read alone."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    checksums: tuple[int, ...]


def write_shard(folder: Path, identity: Identity, provenance: Mapping[str, Any], block: Block) -> Path:
    """Commit ``block`` to ``folder``; when this returns, the shard survives a power cut.

    Raises:
        MachineError: the disk is full or cannot be written; nothing is left behind.
    """
    image = _image(identity, provenance, block)
    final = folder / f"{xxhash.xxh3_128_hexdigest(image)}{SUFFIX}"
    try:
        write_whole(final, image)
    except OSError as error:
        raise MachineError(
            f"{folder}: a shard of {len(image):,} bytes could not be written ({error.strerror or error}). What was "
            "committed is safe; free space or set extract.cache to another disk, and run the same command to go on."
        ) from error
    return final


def _image(identity: Identity, provenance: Mapping[str, Any], block: Block) -> bytes:
    about = json.dumps(
        {
            "format": FORMAT,
            "identity": plain(identity),
            "provenance": dict(provenance),
            "columns": {view: list(layers) for view, layers in block.columns.items()},
        },
        sort_keys=True,
    ).encode()
    size = sum(values.nbytes for values in block.latents.values())
    with h5py.File("shard", "w", driver="core", backing_store=False, block_size=size + (1 << 20)) as file:
        file.attrs["about"] = np.bytes_(about)
        file.attrs["about_xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(about))
        keys = np.frombuffer(np.ascontiguousarray(block.keys).tobytes(), np.uint8).reshape(-1, KEY_BYTES)
        _put(file, "keys", keys, [keys])
        _put(file, "lengths", block.lengths, [block.lengths])
        for view, values in block.latents.items():
            _put(file, f"latents/{view}", values, values)
        file.flush()
        return bytes(file.id.get_file_image())


def _put(file: h5py.File, name: str, values: NDArray[Any], slices: Any) -> None:
    dataset = file.create_dataset(name, data=values)
    dataset.attrs["xxh3"] = np.array([checksum(part) for part in slices], np.uint64)


def checksum(values: NDArray[Any]) -> int:
    """xxh3 of an array's bytes."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)


class Shard:
    """A committed shard, opened for reading. Layers one does not ask for are not read."""

    def __init__(self, path: Path) -> None:
        """Check the layout of ``path`` and remember where everything lies.

        Raises:
            ShardError: the file is truncated, altered in its layout, or not a shard.
        """
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                about = _about(file)
                self.identity = Identity.from_json(about["identity"])
                self.provenance: dict[str, Any] = dict(about["provenance"])
                self.columns = {str(view): tuple(map(int, layers)) for view, layers in about["columns"].items()}
                self._regions = dict(_regions(file, self.columns, path.stat().st_size))
        except Exception as error:  # there is no list of what a hostile file can provoke
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

    @property
    def texts(self) -> int:
        """How many texts the shard holds."""
        return self._regions["keys"].shape[0]

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def width(self, view: str) -> int:
        """Width of the latents of ``view``."""
        return self._regions[f"latents/{view}"].shape[2]

    def dtype(self, view: str) -> np.dtype[Any]:
        """Stored dtype of the latents of ``view``."""
        return self._regions[f"latents/{view}"].dtype

    def layer(self, view: str, layer: int) -> Latents:
        """``[text, width]`` of one layer, memory-mapped; its checksum is verified the first time.

        Raises:
            ShardError: the bytes are not those that were written.
        """
        return self._part(f"latents/{view}", self.columns[view].index(layer))

    def problems(self) -> list[str]:
        """Everything that is wrong with the bytes of this shard: a full read."""
        found = []
        with open(self.path, "rb") as file:
            digest = xxhash.xxh3_128()
            while chunk := file.read(1 << 22):
                digest.update(chunk)
        if digest.hexdigest() != self.path.stem:
            found.append("the file's bytes are not those its name was made from")
        for name, region in self._regions.items():
            for index in range(len(region.checksums)):
                try:
                    values = self._part(name, index)
                    if name.startswith("latents/") and not np.isfinite(values).all():
                        found.append(f"{name}[{index}] holds values that are not finite")
                except ShardError as error:
                    found.append(error.reason)
        return found

    def _part(self, name: str, index: int) -> NDArray[Any]:
        region = self._regions[name]
        shape = region.shape[1:] if name.startswith("latents/") else region.shape
        step = int(np.prod(shape)) * region.dtype.itemsize
        try:
            values = np.memmap(self.path, region.dtype, "r", region.offset + index * step, shape)
        except (OSError, ValueError) as error:
            raise ShardError(self.path, f"{name} cannot be read ({error})") from error
        if (name, index) not in self._checked:
            if checksum(values) != region.checksums[index]:
                raise ShardError(self.path, f"{name}[{index}] does not match its checksum")
            self._checked.add((name, index))
        return values


def _about(file: h5py.File) -> dict[str, Any]:
    if h5py.h5a.get_info(file.id, b"about").data_size > ABOUT_BYTES:
        raise ValueError("its description is too large")
    text = file.attrs["about"]
    if not isinstance(text, bytes):  # bytes() of a number would allocate that many
        raise ValueError("its description is not text")
    if xxhash.xxh3_64_intdigest(text) != int(file.attrs["about_xxh3"]):
        raise ValueError("its description does not match its checksum")
    about = json.loads(text)
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']!r}, this version reads {FORMAT}")
    return dict(about)


def _regions(file: h5py.File, columns: Mapping[str, tuple[int, ...]], size: int) -> Iterator[tuple[str, Region]]:
    """Every dataset's place in the file; raises ``ValueError`` unless the layout is exactly what we write."""
    if set(columns) - set(get_args(View)) or _members(file) != {"keys", "lengths", "latents"}:
        raise ValueError("it holds other things than latents")
    if _members(file["latents"]) != set(columns):
        raise ValueError("its views are not those it declares")
    yield "keys", (keys := _region(file["keys"], size, ["u1"]))
    yield "lengths", (lengths := _region(file["lengths"], size, ["<i4"]))
    if keys.shape[1:] != (KEY_BYTES,) or lengths.shape != keys.shape[:1]:
        raise ValueError("keys and lengths do not fit each other")
    if len(keys.checksums) != 1 or len(lengths.checksums) != 1:
        raise ValueError("keys or lengths lack their checksum")
    for view, layers in columns.items():
        region = _region(file[f"latents/{view}"], size, ["<f2", "<f4"])
        if region.shape[:2] != (len(layers), keys.shape[0]) or len(region.shape) != 3 or len(set(layers)) < len(layers):
            raise ValueError(f"latents/{view} has shape {region.shape}, declared are {len(layers)} layers")
        if len(region.checksums) != len(layers):
            raise ValueError(f"latents/{view} lacks checksums")
        yield f"latents/{view}", region


def _members(group: Any) -> set[str]:
    if not isinstance(group, h5py.Group) or len(group) > 100:
        raise ValueError("a group was expected")
    for name in group:
        if type(group.get(name, getlink=True)) is not h5py.HardLink:
            raise ValueError(f"'{name}' is a link that leads elsewhere")
    return set(group)


def _region(dataset: Any, size: int, dtypes: list[str]) -> Region:
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a dataset was expected")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise ValueError(f"{dataset.name} is not stored in one plain run of bytes")
    if dataset.dtype not in [np.dtype(name) for name in dtypes]:
        raise ValueError(f"{dataset.name} has dtype {dataset.dtype}")
    offset, length = dataset.id.get_offset(), dataset.size * dataset.dtype.itemsize
    if offset is None or 0 in dataset.shape or offset + length > size:
        raise ValueError(f"{dataset.name} declares {length:,} bytes, which the file does not hold")
    if h5py.h5a.get_info(dataset.id, b"xxh3").data_size > 8 * max(1, dataset.shape[0]):
        raise ValueError(f"{dataset.name} has too many checksums")
    sums = np.asarray(dataset.attrs["xxh3"]).reshape(-1)
    if sums.dtype != np.uint64:
        raise ValueError(f"{dataset.name} has checksums of dtype {sums.dtype}")
    return Region(offset, dataset.dtype, dataset.shape, tuple(int(value) for value in sums))
