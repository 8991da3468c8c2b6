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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from data.errors import InputError, MachineError
from data.plan import TOKENS, Identity, View
from data.ragged import NOWHERE, Counts, TokenLatents
from data.spec import plain
from data.whole import write_whole

FORMAT = 3
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


class OtherVersionError(ShardError):
    """A shard that another version of this program wrote."""

    exit_code = InputError.exit_code

    def __init__(self, path: Path, wrote: int) -> None:
        self.path, self.reason = path, f"written by another version (format {wrote}, this version reads {FORMAT})"
        InputError.__init__(
            self,
            f"{path.parent}: {self.reason}. 'run' and 'extract' make its latents anew; 'pipeline.py cache prune "
            f"--whole {path.parent}' removes it.",
        )


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Region:
    """Where one dataset lies in its file; ``checksums`` holds one xxh3 per slice that is read alone."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    checksums: tuple[int, ...]
    by_layer: bool


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
        write_whole(final, image, check)
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
    layered = {_dataset(view): values for view, values in block.latents.items()}
    if block.tokens:
        layered[_dataset(TOKENS)] = block.tokens.states
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


def _dataset(view: str) -> str:
    return "tokens/states" if view == TOKENS else f"latents/{view}"


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
                about = _about(file)
                self.identity = Identity.from_json(about["identity"])
                self.provenance: dict[str, Any] = dict(about["provenance"])
                self.columns = {str(view): tuple(map(int, layers)) for view, layers in about["columns"].items()}
                self._regions = dict(_regions(file, self.columns, path.stat().st_size))
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
        return self._regions[_dataset(view)].shape[2]

    def dtype(self, view: str) -> np.dtype[Any]:
        """Stored dtype of the latents of ``view``."""
        return self._regions[_dataset(view)].dtype

    def layer(self, view: str, layer: int) -> Latents:
        """``[text, width]`` of one layer, memory-mapped; its checksum is verified the first time.

        Of the view ``tokens``: ``[token, width]``.

        Raises:
            ShardError: the bytes are not those that were written.
        """
        return self._part(_dataset(view), self.columns[view].index(layer))

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


def _about(file: h5py.File) -> dict[str, Any]:
    if h5py.h5a.get_info(file.id, b"about").data_size > ABOUT_BYTES:
        raise ValueError("its description is too large")
    text = file.attrs["about"]
    if not isinstance(text, bytes):  # bytes() of a number would allocate that many
        raise ValueError("its description is not text")
    if xxhash.xxh3_64_intdigest(text) != int(file.attrs["about_xxh3"]):
        raise ValueError("its description does not match its checksum")
    about = json.loads(text)
    if type(about["format"]) is not int:
        raise ValueError("its format is no number")
    if about["format"] != FORMAT:
        raise OtherVersionError(Path(file.filename), about["format"])
    return dict(about)


def _regions(file: h5py.File, columns: Mapping[str, tuple[int, ...]], size: int) -> Iterator[tuple[str, Region]]:
    """Every dataset's place in the file; raises ``ValueError`` unless the layout is exactly what we write."""
    pooled = set(columns) - {TOKENS}
    groups = {"latents"} if pooled else set()
    groups |= {"tokens"} & set(columns)
    if set(columns) - set(get_args(View)) or _members(file) != {"keys", "lengths"} | groups:
        raise ValueError("it holds other things than latents")
    if pooled and _members(file["latents"]) != pooled:
        raise ValueError("its views are not those it declares")
    yield "keys", (keys := _region(file["keys"], size, ["u1"]))
    yield "lengths", (lengths := _region(file["lengths"], size, ["<i4"]))
    if keys.shape[1:] != (KEY_BYTES,) or lengths.shape != keys.shape[:1]:
        raise ValueError("keys and lengths do not fit each other")
    if len(keys.checksums) != 1 or len(lengths.checksums) != 1:
        raise ValueError("keys or lengths lack their checksum")
    if TOKENS in columns:
        yield from _token_regions(file["tokens"], keys.shape[0], size)
    for view, layers in columns.items():
        name = _dataset(view)
        texts = file["tokens/ids"].shape[0] if view == TOKENS else keys.shape[0]
        region = _region(file[name], size, ["<f2", "<f4"], by_layer=True)
        if region.shape[:2] != (len(layers), texts) or len(region.shape) != 3 or len(set(layers)) < len(layers):
            raise ValueError(f"{name} has shape {region.shape}, declared are {len(layers)} layers")
        if len(region.checksums) != len(layers):
            raise ValueError(f"{name} lacks checksums")
        yield name, region


def _token_regions(group: Any, texts: int, size: int) -> Iterator[tuple[str, Region]]:
    """What the view ``tokens`` has beside its states."""
    if _members(group) != {"states", "offsets", "ids", "spans"}:
        raise ValueError("its tokens are not what belongs to tokens")
    offsets, ids, spans = (
        _region(group[name], size, [dtype]) for name, dtype in (("offsets", "<i8"), ("ids", "<i4"), ("spans", "<i4"))
    )
    if (offsets.shape, len(ids.shape), spans.shape) != ((texts + 1,), 1, (*ids.shape, 2)):
        raise ValueError("tokens/offsets, ids and spans do not fit each other")
    for name, region in (("offsets", offsets), ("ids", ids), ("spans", spans)):
        if len(region.checksums) != 1:
            raise ValueError(f"tokens/{name} lack their checksum")
        yield f"tokens/{name}", region


def _members(group: Any) -> set[str]:
    if not isinstance(group, h5py.Group) or len(group) > 100:
        raise ValueError("a group was expected")
    for name in group:
        if type(group.get(name, getlink=True)) is not h5py.HardLink:
            raise ValueError(f"'{name}' is a link that leads elsewhere")
    return set(group)


def _region(dataset: Any, size: int, dtypes: list[str], by_layer: bool = False) -> Region:
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
    return Region(offset, dataset.dtype, dataset.shape, tuple(int(value) for value in sums), by_layer)
