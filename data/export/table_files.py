"""Files of tables, parquet and Arrow: a column of vectors for each tensor and layer, beside the columns of the rows.

A table is divided into parts of a fixed number of rows; each part is whole or absent, and one that is there is kept.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from permafrost.data.atomic import move_into_place, temporary_path
from permafrost.data.export.vectors import VectorSource, block_rows

PART_BYTES = 256 << 20
"""Bytes of vectors in one part."""

METADATA = b"permafrost"
"""Key of the schema's metadata under which the description of the vectors is, as JSON."""


def part_names(source: VectorSource, suffix: str) -> list[str]:
    """Return the names of the parts, ``data-00000-of-00002.parquet`` and so on."""
    count = -(-source.tensors[0].rows // _part_rows(source))
    return [f"data-{number:05}-of-{count:05}{suffix}" for number in range(count)]


def _part_rows(source: VectorSource) -> int:
    return max(1, PART_BYTES // sum(tensor.row_bytes for tensor in source.tensors))


def write_parts(
    folder: Path, suffix: str, source: VectorSource, about: Mapping[str, Any], advance: Callable[[int], None]
) -> None:
    """Write the parts that a folder lacks; call ``advance`` with the number of rows written or found."""
    schema, rows, size = _schema(source, about), source.tensors[0].rows, _part_rows(source)
    step = min(block_rows(source.tensors), size)
    for number, name in enumerate(part_names(source, suffix)):
        start, stop = number * size, min((number + 1) * size, rows)
        if (folder / name).exists():
            advance(stop - start)
            continue
        with temporary_path(folder) as temporary:
            with _writer(temporary, suffix, schema) as writer:
                for first in range(start, stop, step):
                    last = min(first + step, stop)
                    writer.write_table(_block(source, schema, first, last))
                    advance(last - first)
            move_into_place(temporary, folder / name)


def write_columns(path: Path, source: VectorSource, about: Mapping[str, Any], anew: bool = False) -> None:
    """Write the columns of the rows alone, as parquet; a file that is there stays unless they are written ``anew``."""
    if path.exists() and not anew:
        return
    schema = source.schema.with_metadata({METADATA: json.dumps(about).encode()})
    rows = source.tensors[0].rows
    with temporary_path(path.parent) as temporary:
        with _writer(temporary, ".parquet", schema) as writer:
            for start in range(0, rows, 65_536):
                writer.write_table(source.columns(start, min(start + 65_536, rows)).cast(schema))
        move_into_place(temporary, path)


def column_name(tensor: str, layer: int | None) -> str:
    """Return the name of the column of a layer of a tensor."""
    return tensor if layer is None else f"{tensor}_{layer}"


def _schema(source: VectorSource, about: Mapping[str, Any]) -> pa.Schema:
    schema = source.schema
    for tensor in source.tensors:
        value = pa.float16() if tensor.bits == "float16" else pa.float32()
        for layer in tensor.layers or (None,):
            schema = schema.append(pa.field(column_name(tensor.name, layer), pa.list_(value, tensor.width)))
    return schema.with_metadata({METADATA: json.dumps(about).encode()})


def _block(source: VectorSource, schema: pa.Schema, start: int, stop: int) -> pa.Table:
    columns = list(source.columns(start, stop).columns)
    block = source.read(start, stop)
    for tensor in source.tensors:
        columns += [_fixed_size_lists(layer, tensor.width) for layer in block[tensor.name]]
    return pa.table(columns, schema=schema)


def _fixed_size_lists(values: NDArray[Any], width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), width)


def _writer(path: Path, suffix: str, schema: pa.Schema) -> Any:
    if suffix == ".arrow":
        return pa.ipc.new_file(str(path), schema)
    texts = {field.name: "ZSTD" for field in schema if pa.types.is_string(field.type)}  # floats hardly compress
    return parquet.ParquetWriter(path, schema, compression=texts, use_dictionary=False)
