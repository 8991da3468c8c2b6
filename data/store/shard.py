"""One shard: an immutable HDF5 file of latents that is whole or absent. The only module that imports h5py.

    about                      attribute, JSON: format, identity, provenance, columns
    keys     [text, 16]        digest of each text
    lengths  [text]            tokens of each text before it was cut; of a window, up to the end of its text
    latents/<view>             [layer, text, width], contiguous: one layer is one run of bytes
    tokens/states              [layer, token, width], contiguous; all of tokens/ is there only where it was asked for
    tokens/offsets [text + 1]  text i has the tokens from offsets[i] to offsets[i + 1]
    tokens/ids     [token]     what the tokenizer calls each
    tokens/spans   [token, 2]  the characters of the text that each covers, end excluded; (-1, -1): none; of two
                               segments, those of the whole second one

The file is built in memory, written under a temporary name, synced, and renamed to a name that carries the digest
of its bytes. HDF5 is asked only for the layout; latents are then read through ``numpy.memmap``. A file from elsewhere
is hostile until its layout has been checked: no links, filters, external or virtual storage, no size it cannot have.
"""

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
from permafrost.data.ragged import NOWHERE, Counts, TokenLatents
from permafrost.data.spec import plain
from permafrost.data.store.errors import FORMAT, OtherVersionError, ShardError
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import TOKENS
from permafrost.data.store.shard_layout import KEY_BYTES, checked_dataset, read_about, read_regions

SUFFIX = ".h5"

STORE_NAME = re.compile(r"[0-9a-f]{16}")

SHARD_NAME = re.compile(r"[0-9a-f]{32}\.h5")

Latents = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Texts with their latents: what one shard holds."""

    keys: NDArray[np.bytes_]
    """``[text]``, 16 bytes each."""

    lengths: NDArray[np.int32]
    """``[text]``, tokens before truncation."""

    columns: Mapping[str, tuple[int, ...]]
    latents: Mapping[str, Latents]
    """Pooled view -> ``[layer, text, width]``."""

    tokens: TokenLatents | None = None
    """Where the columns have the view ``tokens``: its layers, the same texts."""


def write_shard(
    folder: Path,
    identity: Identity,
    provenance: Mapping[str, Any],
    block: Block,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Commit ``block`` to ``folder``; when this returns, the shard survives a power cut.

    Args:
        check: called with the shard as it lies on the disk, before it counts; it is removed if that raises.

    Raises:
        MachineError: the disk is full or cannot be written; nothing is left behind.
    """
    image = _image(identity, provenance, block)
    final = folder / f"{xxhash.xxh3_128_hexdigest(image)}{SUFFIX}"
    try:
        write_atomically(final, image, check)
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
    layered = {checked_dataset(view): values for view, values in block.latents.items()}
    if block.tokens:
        layered[checked_dataset(TOKENS)] = block.tokens.states
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs["about"] = np.bytes_(about)
        file.attrs["about_xxh3"] = np.uint64(xxhash.xxh3_64_intdigest(about))
        keys = np.frombuffer(np.ascontiguousarray(block.keys).tobytes(), np.uint8).reshape(-1, KEY_BYTES)
        _put(file, "keys", keys)
        _put(file, "lengths", block.lengths)
        for name, values in layered.items():
            _put(file, name, values, by_layer=True)
        if block.tokens:
            for name in ("offsets", "ids", "spans"):
                _put(file, f"tokens/{name}", getattr(block.tokens, name))
    return image.getvalue()


def _put(file: h5py.File, name: str, values: NDArray[Any], by_layer: bool = False) -> None:
    dataset = file.create_dataset(name, values.shape, values.dtype)
    places: list[Any] = list(range(len(values))) if by_layer else [...]
    for place in places:  # a layer is contiguous where all of them are not, and then needs no copy
        dataset[place] = values[place]
    dataset.attrs["xxh3"] = np.array([checksum(values[place]) for place in places], np.uint64)


def checksum(values: NDArray[Any]) -> int:
    """xxh3 of an array's bytes."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)


class Shard:
    """A committed shard, opened for reading. Layers one does not ask for are not read."""

    def __init__(self, path: Path) -> None:
        """Check the layout of ``path`` and remember where everything lies.

        Raises:
            ShardError: the file is truncated, altered in its layout, or not a shard; or of another version.
        """
        self.path = path
        try:
            with h5py.File(path, "r", locking=False) as file:
                about = read_about(file)
                self.identity = Identity.from_json(about["identity"])
                self.provenance: dict[str, Any] = dict(about["provenance"])
                self.columns = {str(view): tuple(map(int, layers)) for view, layers in about["columns"].items()}
                self._regions = dict(read_regions(file, self.columns, path.stat().st_size))
        except OtherVersionError:
            raise
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

    @cached_property
    def offsets(self) -> Counts:
        """``[text + 1]``: text ``i`` has the tokens from ``offsets[i]`` to ``offsets[i + 1]``."""
        return self._part("tokens/offsets", 0)

    @cached_property
    def ids(self) -> NDArray[np.int32]:
        """``[token]``, of the view ``tokens``."""
        return self._part("tokens/ids", 0)

    @cached_property
    def spans(self) -> NDArray[np.int32]:
        """``[token, 2]``, of the view ``tokens``: characters of the text, or (-1, -1)."""
        return self._part("tokens/spans", 0)

    @property
    def tokens(self) -> int:
        """How many tokens the shard holds, of the view ``tokens``."""
        return self._regions["tokens/ids"].shape[0] if TOKENS in self.columns else 0

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
        return self._regions[checked_dataset(view)].shape[2]

    def dtype(self, view: str) -> np.dtype[Any]:
        """Stored dtype of the latents of ``view``."""
        return self._regions[checked_dataset(view)].dtype

    def layer(self, view: str, layer: int) -> Latents:
        """``[text, width]`` of one layer, memory-mapped; its checksum is verified the first time.

        Of the view ``tokens``: ``[token, width]``.

        Raises:
            ShardError: the bytes are not those that were written.
        """
        return self._part(checked_dataset(view), self.columns[view].index(layer))

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
                    if region.by_layer and not np.isfinite(values).all():
                        found.append(f"{name}[{index}] holds values that are not finite")
                except ShardError as error:
                    found.append(error.reason)
        return found

    @cached_property
    def _map(self) -> NDArray[np.uint8]:
        """The file, mapped once: a map for every layer would soon be more files than a process may have open."""
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def _part(self, name: str, index: int) -> NDArray[Any]:
        region = self._regions[name]
        shape = region.shape[1:] if region.by_layer else region.shape
        size = int(np.prod(shape)) * region.dtype.itemsize
        start = region.offset + index * size
        try:
            if name in _INDEX:
                flat: NDArray[Any] = np.fromfile(self.path, region.dtype, size // region.dtype.itemsize, offset=start)
            else:
                flat = self._map[start : start + size].view(region.dtype)
            values = flat.reshape(shape)
        except (OSError, ValueError) as error:
            raise ShardError(self.path, f"{name} cannot be read ({error})") from error
        if (name, index) not in self._checked:
            if checksum(values) != region.checksums[index]:
                raise ShardError(self.path, f"{name}[{index}] does not match its checksum")
            if name in _SOUND and not _SOUND[name](values, self.tokens):
                raise ShardError(self.path, f"{name} cannot be right")
            self._checked.add((name, index))
        return values


_INDEX = ("keys", "lengths")
"""What is read of every shard of a store, and so is not mapped: the files would stay open, their pages in memory."""


def _rising(offsets: NDArray[Any], tokens: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == tokens and (offsets[1:] > offsets[:-1]).all())


def _characters(spans: NDArray[Any], _: int) -> bool:
    start, end = spans[:, 0], spans[:, 1]
    return bool(np.where(start == NOWHERE, end == NOWHERE, (start >= 0) & (end > start)).all())


_SOUND: dict[str, Callable[[NDArray[Any], int], bool]] = {
    "tokens/offsets": _rising,
    "tokens/spans": _characters,
    "tokens/ids": lambda ids, _: bool((ids >= 0).all()),
}
"""Whether what others index with is what it says it is: a foreign file may have checksums that fit."""
