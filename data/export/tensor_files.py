"""Files of whole tensors, npy and safetensors, written block by block at their places by plain writes.

The size of every file is known before the first block. A file is written under a temporary name; how many rows are
safely on the disk is recorded beside it, so that a process that was killed is followed by one that goes on from there.
"""

import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.atomic import move_into_place, open_regular, read_json, write_atomically
from permafrost.data.export.vectors import SIZES, Tensor, VectorSource, block_rows

SYNC_SECONDS = 10.0
"""Longest time between two records of how far a file is."""

SAFETENSORS_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """One file with the tensors that it holds."""

    path: Path
    header: bytes
    starts: Mapping[str, int]
    """Tensor -> its first byte in the file."""

    bits: Mapping[str, str]
    """Tensor -> precision of its values in the file."""

    size: int
    """Bytes of the whole file."""


def npy_file(path: Path, tensor: Tensor) -> TensorFile:
    """Return the npy file of one tensor; values of bfloat16 are float32 there, which holds them exactly."""
    bits = "float32" if tensor.bits == "bfloat16" else tensor.bits
    header = io.BytesIO()
    about = {"descr": np.dtype(bits).newbyteorder("<").str, "fortran_order": False, "shape": tensor.shape}
    np.lib.format.write_array_header_1_0(header, about)
    start = len(header.getvalue())
    size = start + int(np.prod(tensor.shape)) * np.dtype(bits).itemsize
    return TensorFile(
        path=path, header=header.getvalue(), starts={tensor.name: start}, bits={tensor.name: bits}, size=size
    )


def safetensors_file(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> TensorFile:
    """Return the safetensors file of several tensors, in the precision of each."""
    about: dict[str, Any] = {"__metadata__": dict(metadata)}
    ends, end = dict[str, int](), 0
    for tensor in tensors:
        start, end = end, end + int(np.prod(tensor.shape)) * SIZES[tensor.bits]
        ends[tensor.name] = start
        about[tensor.name] = {
            "dtype": SAFETENSORS_TYPES[tensor.bits], "shape": tensor.shape, "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return TensorFile(
        path=path,
        header=header,
        starts={name: len(header) + start for name, start in ends.items()},
        bits={tensor.name: tensor.bits for tensor in tensors},
        size=len(header) + end,
    )


def write_tensors(
    files: Sequence[TensorFile], source: VectorSource, state: Path, description: str, advance: Callable[[int], None]
) -> None:
    """Write files of tensors, or go on with files that were begun.

    Args:
        files: with all tensors of the source.
        state: file that records how many rows are on the disk; it is removed in the end.
        description: of what is written; files that were begun with another one are written anew.
        advance: called with the number of rows written, or found written.
    """
    tensors = {tensor.name: tensor for tensor in source.tensors}
    rows, step = source.tensors[0].rows, block_rows(source.tensors)
    temporary = [file.path.with_name(f".{file.path.name}.partial") for file in files]
    done = _rows_done(state, description, files, temporary)
    advance(done)
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(path, file, done)) for path, file in zip(temporary, files, strict=True)]
        synced = time.monotonic()
        for start in range(done, rows, step):
            stop = min(start + step, rows)
            block = source.read(start, stop)
            for file, handle in zip(files, opened, strict=True):
                for name, first in file.starts.items():
                    _write_block(handle, first, tensors[name], file.bits[name], block[name], start)
            advance(stop - start)
            if time.monotonic() - synced > SYNC_SECONDS or stop == rows:
                for handle in opened:
                    os.fsync(handle.fileno())
                write_atomically(state, json.dumps({"rows": stop, "of": description}).encode())
                synced = time.monotonic()
    for path, file in zip(temporary, files, strict=True):
        if path.exists():
            move_into_place(path, file.path)
    state.unlink(missing_ok=True)


def _rows_done(state: Path, description: str, files: Sequence[TensorFile], temporary: Sequence[Path]) -> int:
    """Return the number of rows that are on the disk of files that were begun; 0 if they must be written anew."""
    try:
        record = read_json(state)
        done = int(record["rows"]) if record["of"] == description else 0
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0
    for path, file in zip(temporary, files, strict=True):
        whole = [place for place in (path, file.path) if place.exists() and place.stat().st_size == file.size]
        if not whole:
            return 0
    return done


def _open(path: Path, file: TensorFile, done: int) -> IO[bytes]:
    """Open a file under its temporary name, of its final size; one that is whole already is opened where it is."""
    if done:
        return open_regular(path if path.exists() else file.path, "r+b", buffering=0)
    handle = open_regular(path, "w+b", buffering=0)
    os.truncate(handle.fileno(), file.size)
    _write_all(handle, file.header, 0)
    return handle


def _write_block(handle: IO[bytes], first: int, tensor: Tensor, bits: str, block: NDArray[Any], start: int) -> None:
    """Write ``[layer, row, width]`` to a tensor that begins at the byte ``first``, from row ``start`` on."""
    row_bytes = tensor.width * SIZES[bits]  # type: ignore[index]
    for position, layer in enumerate(block):
        values = np.ascontiguousarray(layer)
        if bits == "bfloat16":  # float32 without its lower half
            values = (values.astype("<f4", copy=False).view("<u4") >> 16).astype("<u2")
        else:
            values = values.astype(np.dtype(bits).newbyteorder("<"), copy=False)
        _write_all(handle, values.data.cast("B"), first + (position * tensor.rows + start) * row_bytes)


def _write_all(handle: IO[bytes], content: bytes | memoryview, place: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(handle.fileno(), view, place)
        view, place = view[written:], place + written
