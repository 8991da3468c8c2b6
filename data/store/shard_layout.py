"""The shard format: attributes and datasets of a shard file, and the checks of a file before any of it is trusted.

    about                      attribute, JSON: format, identity, provenance, columns, and peaks: for each view, the
                               largest absolute value in each layer
    keys     [text, 16]        digest of each text
    lengths  [text]            tokens of each text before truncation; of a window of two segments, up to its end
    latents/<view>             [layer, text, width], contiguous: one layer is one run of bytes
    tokens/states              [layer, token, width], contiguous; the group tokens/ exists only for the view tokens
    tokens/offsets [text + 1]  text i has the tokens offsets[i]:offsets[i + 1]
    tokens/ids     [token]     token ids of the tokenizer
    tokens/spans   [token, 2]  start and end (exclusive) of the characters of the text, (-1, -1) for none; for two
                               segments, in the whole second one

Latents are IEEE float16, IEEE float32 or :data:`BFLOAT16`, as the identity says; h5py, netCDF4 and h5dump read
bfloat16 as float32. In int8, the last axis is a record: codes ``values`` [width], and ``scales`` and ``outliers``
[group], one of each for 64 dimensions: the bits of bfloat16 as uint16, because h5py cannot read :data:`BFLOAT16` in a
record. A code times the scale of its group is the number; of the code -128, it is the outlier. A file that has links,
filters, external or virtual storage, or a size that it cannot have, is refused.
:data:`permafrost.data.store.errors.FORMAT` is the version of the format.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.plan.plan import TOKENS, VIEW_NAME
from permafrost.data.ragged import NO_SPAN
from permafrost.data.store.encoding import VALUE_TYPES
from permafrost.data.store.errors import FORMAT, OtherVersionError
from permafrost.data.store.int8 import VALUES, int8_vector

SUFFIX = ".h5"

KEY_BYTES = 16

ABOUT_BYTES = 60_000
"""Maximum size of the description; HDF5 attributes of the default file version are limited to 64 KiB."""


def _bfloat16_type() -> h5py.h5t.TypeFloatID:
    """Return the HDF5 type of a float32 without its lower 16 bits."""
    float_type = h5py.h5t.IEEE_F32LE.copy()
    float_type.set_fields(15, 7, 8, 0, 7)  # sign, exponent and its size, mantissa and its size
    float_type.set_precision(16)
    float_type.set_ebias(127)
    float_type.set_size(2)
    return float_type


MOST_LAYERS = 10_000
"""Most layers of a backbone, so that a damaged number is told."""

NAMES = ("backbone", "revision", "adapter", "tokenizer", "template", "system", "init", "device", "host")
"""Keys of the provenance that are texts."""

BFLOAT16 = _bfloat16_type()

_READ_AS: dict[str, np.dtype[Any]] = {
    **VALUE_TYPES, "uint8": np.dtype("u1"), "int32": np.dtype("<i4"), "int64": np.dtype("<i8")
}  # fmt: skip
"""Name of a type in a shard -> dtype of its bytes."""

_TYPES: dict[str, h5py.h5t.TypeID] = {
    "float16": h5py.h5t.IEEE_F16LE, "bfloat16": BFLOAT16, "float32": h5py.h5t.IEEE_F32LE,
    "uint8": h5py.h5t.STD_U8LE, "int32": h5py.h5t.STD_I32LE, "int64": h5py.h5t.STD_I64LE,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Region:
    """Position of one dataset in its file; ``checksums`` has one xxh3 for each slice that is read on its own."""

    offset: int
    dtype: np.dtype[Any]
    """Dtype of the bytes; ``uint16`` if they are bfloat16, a record for each vector in int8."""

    shape: tuple[int, ...]
    checksums: tuple[int, ...]
    by_layer: bool

    @property
    def width(self) -> int:
        """Width of latents."""
        return int(self.dtype[VALUES].shape[0] if self.dtype.names else self.shape[-1])


def stored_type(stored_dtype: str, vector: np.dtype[Any]) -> h5py.h5t.TypeID:
    """Return the HDF5 type of latents.

    Args:
        vector: the dtype of :func:`permafrost.data.store.int8.int8_vector`; used in int8 alone.
    """
    return h5py.h5t.py_create(vector) if stored_dtype == "int8" else _TYPES[stored_dtype]


def dataset_name(view: str) -> str:
    """Return the path of the dataset that holds the latents of a view."""
    return "tokens/states" if view == TOKENS else f"latents/{view}"


def checksum(values: NDArray[Any]) -> int:
    """Return the 64-bit xxh3 of the bytes of an array."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(values).data)


def read_about(file: h5py.File) -> dict[str, Any]:
    """Read the description of a shard: format, identity, provenance and columns.

    Raises:
        OtherVersionError: another version of this package wrote the shard.
        ValueError: the description is too large, is not text, or does not match its checksum.
    """
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


def read_provenance(about: Mapping[str, Any], columns: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return what is recorded of the extraction that wrote a shard.

    Raises:
        ValueError: it does not say how many layers the backbone has, or says what cannot be.
    """
    provenance = about["provenance"]
    layers, longest = provenance.get("layers"), provenance.get("longest", 1)
    if (
        type(layers) is not int
        or not max((max(of_view) for of_view in columns.values()), default=0) <= layers <= MOST_LAYERS
    ):
        raise ValueError("its provenance does not say how many layers the backbone has")
    if type(longest) is not int or longest < 1:
        raise ValueError("its provenance does not say how many tokens the backbone reads")
    for key in NAMES:
        if not isinstance(provenance.get(key, ""), str):
            raise ValueError(f"'{key}' in its provenance is no text")
    return dict(provenance)


def read_peaks(about: Mapping[str, Any], columns: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[float, ...]]:
    """Return view -> largest absolute value in each layer; empty if an earlier version wrote the shard.

    Raises:
        ValueError: the peaks are not those of the columns.
    """
    peaks = {str(view): tuple(map(float, values)) for view, values in about.get("peaks", {}).items()}
    if peaks and {view: len(values) for view, values in peaks.items()} != {
        view: len(layers) for view, layers in columns.items()
    }:
        raise ValueError("its peaks are not those of its columns")
    return peaks


def read_regions(
    file: h5py.File, columns: Mapping[str, tuple[int, ...]], stored_dtype: str, size: int
) -> Iterator[tuple[str, Region]]:
    """Yield the name and the region of every dataset in a shard.

    Args:
        columns: view -> layers, as the shard declares them.
        stored_dtype: dtype of the latents, as its identity says.
        size: size of the file, in bytes.

    Raises:
        ValueError: the layout is not exactly the one that this package writes.
    """
    pooled = set(columns) - {TOKENS}
    groups = {"latents"} if pooled else set()
    groups |= {"tokens"} & set(columns)
    if not all(map(VIEW_NAME.fullmatch, columns)) or _members(file) != {"keys", "lengths"} | groups:
        raise ValueError("it holds other things than latents")
    if pooled and _members(file["latents"]) != pooled:
        raise ValueError("its views are not those it declares")
    yield "keys", (keys := _region(file["keys"], size, "uint8"))
    yield "lengths", (lengths := _region(file["lengths"], size, "int32"))
    if keys.shape[1:] != (KEY_BYTES,) or lengths.shape != keys.shape[:1]:
        raise ValueError("keys and lengths do not fit each other")
    if TOKENS in columns:
        yield from _token_regions(file["tokens"], keys.shape[0], size)
    for view, layers in columns.items():
        name = dataset_name(view)
        texts = file["tokens/ids"].shape[0] if view == TOKENS else keys.shape[0]
        region = _region(file[name], size, stored_dtype, by_layer=True)
        axes = 2 if region.dtype.names else 3
        if region.shape[:2] != (len(layers), texts) or len(region.shape) != axes or len(set(layers)) < len(layers):
            raise ValueError(f"{name} has shape {region.shape}, declared are {len(layers)} layers")
        yield name, region


def _token_regions(group: Any, texts: int, size: int) -> Iterator[tuple[str, Region]]:
    """Yield the regions of the view ``tokens``, but for its states."""
    if _members(group) != {"states", "offsets", "ids", "spans"}:
        raise ValueError("its tokens are not what belongs to tokens")
    dtypes = {"offsets": "int64", "ids": "int32", "spans": "int32"}
    offsets, ids, spans = regions = [_region(group[name], size, dtype) for name, dtype in dtypes.items()]
    if (offsets.shape, len(ids.shape), spans.shape) != ((texts + 1,), 1, (*ids.shape, 2)):
        raise ValueError("tokens/offsets, ids and spans do not fit each other")
    yield from zip((f"tokens/{name}" for name in dtypes), regions, strict=True)


def _members(group: Any) -> set[str]:
    if not isinstance(group, h5py.Group) or len(group) > 100:
        raise ValueError("a group was expected")
    for name in group:
        if type(group.get(name, getlink=True)) is not h5py.HardLink:
            raise ValueError(f"'{name}' is a link that leads elsewhere")
    return set(group)


def _region(dataset: Any, size: int, type_name: str, by_layer: bool = False) -> Region:
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a dataset was expected")
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count() or properties.get_nfilters():
        raise ValueError(f"{dataset.name} is not stored in one plain run of bytes")
    dtype = int8_vector(_width_of_records(dataset)) if type_name == "int8" else _READ_AS[type_name]
    if dataset.id.get_type() != stored_type(type_name, dtype):  # h5py's dtype says less: of bfloat16, it is float32
        raise ValueError(f"{dataset.name} has dtype {dataset.dtype} and not the type {type_name}")
    offset, length = dataset.id.get_offset(), dataset.size * dtype.itemsize
    if offset is None or 0 in dataset.shape or offset + length > size:
        raise ValueError(f"{dataset.name} declares {length:,} bytes, which the file does not hold")
    if h5py.h5a.get_info(dataset.id, b"xxh3").data_size > 8 * dataset.shape[0]:
        raise ValueError(f"{dataset.name} has too many checksums")
    sums = np.asarray(dataset.attrs["xxh3"]).reshape(-1)
    if len(sums) != (dataset.shape[0] if by_layer else 1):
        raise ValueError(f"{dataset.name} {'lacks checksums' if by_layer else 'lack their checksum'}")
    if sums.dtype != np.uint64:
        raise ValueError(f"{dataset.name} has checksums of dtype {sums.dtype}")
    return Region(
        offset=offset,
        dtype=dtype,
        shape=dataset.shape,
        checksums=tuple(int(value) for value in sums),
        by_layer=by_layer,
    )


def _width_of_records(dataset: Any) -> int:
    """Return the number of codes of a vector in int8; 1 if it holds other things."""
    found = dataset.id.get_type()
    if found.get_class() != h5py.h5t.COMPOUND or found.get_member_class(0) != h5py.h5t.ARRAY:
        return 1
    return int(found.get_member_type(0).get_array_dims()[0])


def _are_offsets(offsets: NDArray[Any], tokens: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == tokens and (offsets[1:] > offsets[:-1]).all())


def _are_spans(spans: NDArray[Any], _: int) -> bool:
    start, end = spans[:, 0], spans[:, 1]
    return bool(np.where(start == NO_SPAN, end == NO_SPAN, (start >= 0) & (end > start)).all())


VALIDATORS: dict[str, Callable[[NDArray[Any], int], bool]] = {
    "tokens/offsets": _are_offsets,
    "tokens/spans": _are_spans,
    "tokens/ids": lambda ids, _: bool((ids >= 0).all()),
}
"""Dataset -> check of its values, which index other arrays: a forged file may have valid checksums."""
