"""Blocks of texts with their latents, and the shard that is written of one: complete or absent, and never changed.

The file is built in memory, written under a temporary name, synced, and renamed to the digest of its bytes.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from permafrost.data.atomic import write_atomically
from permafrost.data.errors import MachineError
from permafrost.data.plan.plan import TOKENS
from permafrost.data.ragged import TokenLatents
from permafrost.data.spec import plain
from permafrost.data.store.encoding import is_stored_as, largest_magnitude
from permafrost.data.store.errors import FORMAT
from permafrost.data.store.identity import Identity
from permafrost.data.store.shard_layout import KEY_BYTES, SUFFIX, checksum, dataset_name, stored_type

Latents = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Texts with their latents: the content of one shard."""

    keys: NDArray[np.bytes_]
    """``[text]``, 16 bytes each."""

    lengths: NDArray[np.int32]
    """``[text]``, tokens before truncation."""

    columns: Mapping[str, tuple[int, ...]]
    latents: Mapping[str, NDArray[Any]]
    """Pooled view -> ``[layer, text, width]``, as a shard stores them: bfloat16 as ``uint16``, int8 as records."""

    tokens: TokenLatents | None = None
    """Tokens of the same texts in the layers of the view ``tokens``, their states as a shard stores them; None if the
    columns do not have it."""


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


def _write_latents(file: h5py.File, name: str, values: NDArray[Any], stored_dtype: str) -> None:
    if not is_stored_as(values, stored_dtype):
        raise ValueError(f"latents of dtype {values.dtype} cannot be stored as {stored_dtype}.")
    file_type = stored_type(stored_dtype, values.dtype)
    dataset = file.create_dataset(name, values.shape, h5py.Datatype(file_type))
    space, checksums = dataset.id.get_space(), []
    for index, layer in enumerate(values):
        stored = np.ascontiguousarray(layer)
        space.select_hyperslab((index, *(0 for _ in stored.shape)), (1, *stored.shape))
        memory = h5py.h5s.create_simple((1, *stored.shape))
        dataset.id.write(memory, space, stored, file_type)  # its type in memory is that on disk: nothing is converted
        checksums.append(checksum(stored))
    dataset.attrs["xxh3"] = np.array(checksums, np.uint64)


def _peak(layer: NDArray[Any]) -> float:
    return float(f"{largest_magnitude(layer):.6g}")
