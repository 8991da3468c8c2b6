"""Rows of files that hold columns with types: parquet, Arrow, xlsx, and what readers from outside read."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Any

from permafrost.data.errors import EMPTY_ROW, CorpusError
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.opening import MOST_FIELDS, check_unpacked, check_workbook
from permafrost.data.files.settings import Skip, refuse_row
from permafrost.data.plugin_registry import find, named_errors, origin_of
from permafrost.data.plugins import Reader

BATCH_ROWS = 1 << 12
"""Rows that are Python objects at a time."""

LARGEST_BATCH, BUFFER = 1 << 28, 1 << 16
"""Bytes that a batch of rows may have whatever the file has, and bytes that are read at a time to find that out."""


def read_parquet(path: Path) -> Iterator[TypedRow]:
    """Read a parquet file; one batch of rows is in memory at a time."""
    from pyarrow import parquet  # slow to import, and text files do without it

    with _arrow_errors(path, "parquet file"), ExitStack() as stack:
        metadata = parquet.read_metadata(path)
        groups = range(metadata.num_row_groups)
        chunks = [
            (group, metadata.row_group(group).column(at)) for group in groups for at in range(metadata.num_columns)
        ]
        check_unpacked(path, sum(chunk.total_uncompressed_size for _, chunk in chunks))
        repeated = _long_and_repeated(
            path, [(group, chunk.path_in_schema) for group, chunk in chunks if _is_repeated(chunk)]
        )
        file = stack.enter_context(parquet.ParquetFile(path, memory_map=False, read_dictionary=repeated))
        _check_names(path, file.schema_arrow.names)
        yield from _rows(path, file.iter_batches(BATCH_ROWS), file.schema_arrow)


def read_arrow(path: Path) -> Iterator[TypedRow]:
    """Read an Arrow file or stream, as ``datasets`` and pandas (feather) write them."""
    import pyarrow

    with _arrow_errors(path, "Arrow file"), pyarrow.OSFile(str(path)) as file:
        try:
            reader = pyarrow.ipc.open_file(file)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        except pyarrow.ArrowInvalid:
            file.seek(0)
            reader = batches = pyarrow.ipc.open_stream(file)
        _check_names(path, reader.schema.names)
        yield from _rows(path, batches, reader.schema)


def read_xlsx(path: Path, skip: Skip = refuse_row) -> Iterator[TypedRow]:
    """Read the first sheet of a workbook; its first row names the columns, and ``skip`` receives rows of empty cells.

    Raises:
        CorpusError: python-calamine is not installed, or the file is no workbook.
    """
    try:
        import python_calamine as calamine
    except ImportError:
        raise CorpusError(
            f"{path}: xlsx needs python-calamine: pip install 'permafrost[xlsx]', or save the sheet as .csv."
        ) from None
    check_workbook(path)
    try:
        rows = calamine.CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise CorpusError(f"{path}: it cannot be read as a workbook ({error}).") from error
    if not rows:
        raise CorpusError(f"{path}:1: expected a row that names the columns, found nothing.")
    names = [str(name).strip() or str(number) for number, name in enumerate(rows[0], 1)]
    _check_names(path, names)
    for number, values in enumerate(rows[1:], 2):
        if any(value != "" for value in values):
            yield f"{path}:{number}", dict(zip(names, map(_cell, values), strict=True))
        else:
            skip(f"{path}:{number}", EMPTY_ROW, "all its cells are empty")


def read_own(path: Path, name: str) -> Iterator[TypedRow]:
    """Read a file by a reader from outside.

    Raises:
        CorpusError: the reader gives rows that have no names or not those of the first.
        PluginError: there is no such reader, or it fails.
    """
    reader, names = find(Reader, name), set[str]()
    with named_errors(name, reader, f"({origin_of(Reader, name)}) cannot read {path}"):
        for number, row in enumerate(reader.read(path), 1):
            if not isinstance(row, Mapping) or not row:
                raise CorpusError(f"{path}:{number}: the reader '{name}' must give a dict of columns, got {row!r:.60}.")
            if any(not isinstance(column, str) for column in row):
                raise CorpusError(
                    f"{path}:{number}: the reader '{name}' must name columns by text, got {[*row]!r:.60}."
                )
            if number == 1:
                _check_names(path, list(row))
                names = set(row)
            if row.keys() != names:
                column = min(map(str, names ^ row.keys()))
                raise CorpusError(
                    f"{path}:{number}: the reader '{name}' gives other columns than in row 1: '{column}'."
                )
            yield f"{path}:{number}", {column: _own_cell(row[column], path, number, column) for column in row}


def _own_cell(value: Any, path: Path, number: int, column: str) -> Any:
    """Return a cell of a reader from outside as text, number, list or None.

    Raises:
        CorpusError: it cannot be one.
    """
    if type(value) in (str, int, float, bool, NoneType):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, date | Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _own_cell(each, path, number, column) for key, each in value.items()}
    if hasattr(value, "tolist"):  # of numpy, and of what is like it
        return _own_cell(value.tolist(), path, number, column)
    if isinstance(value, str | int | float):  # of a type of their own
        return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))
    if isinstance(value, list | tuple | set | frozenset):
        values = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_own_cell(each, path, number, column) for each in values]
    raise CorpusError(
        f"{path}:{number}: column '{column}' holds a {type(value).__name__}; its reader must give text, a number, a "
        "list of them or None."
    )


def _cell(value: Any) -> Any:
    """Return a cell; whole numbers, which a sheet holds as floats, as integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def names_of_classes(schema: Any) -> dict[str, list[str]]:
    """Return column -> the names of the classes that it holds as numbers, as ``datasets`` records them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {name: feature.get("feature") or feature for name, feature in features.items()}
        return {name: list(feature["names"]) for name, feature in inner.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _named(value: Any, names: list[str]) -> Any:
    """Return the name of a class, or the names of a list of them; a number that has none stays."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _parts(batch: Any) -> Iterator[Any]:
    """Yield a batch in parts of at most :data:`BATCH_ROWS` rows."""
    return (batch.slice(start, BATCH_ROWS) for start in range(0, batch.num_rows, BATCH_ROWS))


def _is_binary(kind: Any) -> bool:
    """Return whether a type of Arrow is bytes, of whatever layout."""
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    checks = types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view
    return any(check(kind) for check in checks)


def _is_repeated(chunk: Any) -> bool:
    """Return whether the texts of a chunk of a parquet file are stored once, however often they occur."""
    return chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page and "." not in chunk.path_in_schema


def _long_and_repeated(path: Path, chunks: list[tuple[int, str]]) -> list[str]:
    """Return the columns with texts that are stored once, and so long that a batch of them may not fit in memory.

    Args:
        chunks: row groups and columns.
    """
    from pyarrow import compute, parquet

    columns, long = sorted({column for _, column in chunks}), set[str]()
    with parquet.ParquetFile(path, memory_map=False, read_dictionary=columns, buffer_size=BUFFER) as file:
        for group, column in chunks:
            first = next(file.iter_batches(1, row_groups=[group], columns=[column]), None)
            if first is not None and hasattr(first.column(0), "dictionary"):
                longest = compute.max(compute.binary_length(first.column(0).dictionary)).as_py() or 0
                long |= {column} if BATCH_ROWS * longest > LARGEST_BATCH else set()
    return sorted(long)


def _size(column: Any) -> int:
    """Return the bytes of a column of Arrow once each of its rows has a value of its own."""
    from pyarrow import compute, types

    kind = column.type
    if not types.is_dictionary(kind) or not (types.is_string(kind.value_type) or types.is_binary(kind.value_type)):
        return int(column.nbytes)
    return int(compute.sum(compute.binary_length(column.dictionary).take(column.indices)).as_py() or 0)


def _unpacked(path: Path, parts: Iterator[Any]) -> Iterator[Any]:
    """Yield parts of a file whose repeated values are written out; refuse what is far larger than the file."""
    import pyarrow

    size = 0
    for part in parts:
        size += sum(map(_size, part.columns))
        check_unpacked(path, size)
        arrays = [
            column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
            for column in part.columns
        ]
        yield pyarrow.RecordBatch.from_arrays(arrays, names=part.schema.names)


def _rows(path: Path, batches: Any, schema: Any) -> Iterator[TypedRow]:
    names, number = names_of_classes(schema), 0
    binary = [field.name for field in schema if _is_binary(field.type)]
    try:
        parts = _unpacked(path, (part for batch in batches for part in _parts(batch)))
        for part in parts:
            try:
                rows = iter(part.to_pylist())
            except UnicodeDecodeError:  # convert row by row, which is slower, to find the broken one
                rows = (part.slice(row, 1).to_pylist()[0] for row in range(part.num_rows))
            for fields in rows:
                number += 1
                fields |= {name: _named(fields[name], names[name]) for name in names}
                fields |= {name: fields[name].decode("utf-8", "surrogateescape") for name in binary if fields[name]}
                yield f"{path}:{number}", fields
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}:{number + 1}: not UTF-8 at byte {error.start + 1} of a text.") from None


@contextmanager
def _arrow_errors(path: Path, noun: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: not a {noun} that can be read ({error}).") from error


def _check_names(path: Path, names: list[str]) -> None:
    if len(names) > MOST_FIELDS:
        raise CorpusError(f"{path}: a row has {len(names):,} fields, and at most {MOST_FIELDS:,} are read.")
    if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
        raise CorpusError(f"{path}: the header names the column '{duplicates[0]}' twice; rename one of them.")
