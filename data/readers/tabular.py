"""Readers of tabular files, row by row with the origin of each row: csv, tsv, jsonl, parquet, plain lines; also .gz.

Every error in a file is a :class:`CorpusError` whose message begins with ``file:line``.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import nearest

T = TypeVar("T")

Row = tuple[str, Mapping[str, str]]
"""Origin (``file:line``), and the fields by column name."""

TypedRow = tuple[str, Mapping[str, Any]]
"""A row whose fields have the types of the file: numbers, lists, None."""

LONGEST_FIELD = 1 << 24

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""JSON escape of a surrogate: half of a character beyond 16 bits. Without its other half, it cannot be encoded."""


def read_table(path: Path) -> Iterator[Row]:
    """Read the rows of a file with the reader for its suffix, their fields as text.

    Raises:
        CorpusError: the file is missing, unreadable, of an unknown kind, or broken; the message names the line.
    """
    for origin, fields in read_by_suffix(path, READERS):
        yield origin, as_text(fields)


def read_by_suffix(path: Path, readers: Mapping[str, Callable[[Path], Iterator[T]]]) -> Iterator[T]:
    """Read a file with the reader for its suffix; raise like :func:`read_table`."""
    suffix = suffix_of(path)
    if suffix not in readers:
        raise CorpusError(f"{path}: unknown kind of file '{suffix}'. Known: {', '.join(readers)}, and .gz of text.")
    try:
        yield from readers[suffix](path)
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: it cannot be read ({reason}).") from error


def suffix_of(path: Path) -> str:
    """Return the suffix of a file without ``.gz``: ``.csv`` for ``a.csv`` and for ``a.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def read_separated(path: Path, **dialect: Any) -> Iterator[Row]:
    """Read values with separators between them, in a dialect of :mod:`csv`; the first line names the columns."""
    csv.field_size_limit(LONGEST_FIELD)
    reader, start = csv.reader((line for _, line in lines_of(path)), **dialect), 1
    try:
        header = next(reader, None)
        if not header:
            raise CorpusError(f"{path}:1: expected a header that names the columns, found nothing.")
        duplicates = sorted({name for name in header if header.count(name) > 1})
        if duplicates:
            raise CorpusError(f"{path}:1: the header names the column '{duplicates[0]}' twice.")
        start = reader.line_num + 1
        for values in reader:
            origin = f"{path}:{start}"  # a quoted field may span lines: the origin of a row is its first line
            start = reader.line_num + 1
            if len(values) != len(header):
                if not values:
                    continue
                raise CorpusError(
                    f"{origin}: expected {len(header)} fields ({', '.join(header)}), found {len(values)}."
                )
            yield origin, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise CorpusError(f"{path}:{start}: {error}.") from None


def read_jsonl(path: Path) -> Iterator[TypedRow]:
    """Read one JSON object per line."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        origin = f"{path}:{number}"
        fields = _parse_json(origin, line)
        if not isinstance(fields, dict):
            raise CorpusError(f"{origin}: expected a JSON object, found {type(fields).__name__}.")
        yield origin, fields


def read_json(path: Path) -> Any:
    """Read a file that is a single JSON value."""
    return _parse_json(str(path), "".join(line for _, line in lines_of(path)))


def read_lines(path: Path) -> Iterator[Row]:
    """Read one text per line, as the column ``sentence``; blank lines are skipped."""
    for number, line in lines_of(path):
        if line.strip():
            yield f"{path}:{number}", {"sentence": line.strip()}


def read_parquet(path: Path) -> Iterator[TypedRow]:
    """Read a parquet file; one batch of rows is in memory at a time."""
    import pyarrow  # slow to import, and text files do without it
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, memory_map=False) as file:
            names = file.schema_arrow.names
            duplicates = sorted({name for name in names if names.count(name) > 1})
            if duplicates:
                raise CorpusError(f"{path}: the header names the column '{duplicates[0]}' twice.")
            for batch in file.iter_batches():
                try:
                    rows = iter(batch.to_pylist())
                except UnicodeDecodeError:  # convert row by row, which is slower, to find the broken one
                    rows = (batch.slice(row, 1).to_pylist()[0] for row in range(batch.num_rows))
                for fields in rows:
                    number += 1
                    yield f"{path}:{number}", fields
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}:{number + 1}: not UTF-8 at byte {error.start + 1} of a text.") from None
    except pyarrow.ArrowException as error:
        raise CorpusError(f"{path}: not a parquet file that can be read ({error}).") from error


READERS: dict[str, Callable[[Path], Iterator[TypedRow]]] = {
    ".csv": partial(read_separated, delimiter=",", strict=True),
    ".tsv": partial(read_separated, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".txt": read_lines,
}


def get_field(row: tuple[str, Mapping[str, T]], column: str) -> T:
    """Return one field of a row; raise a :class:`CorpusError` that names the nearest column if it is missing."""
    origin, fields = row
    if column not in fields:
        raise CorpusError(f"{origin}: no column '{column}'; set corpus.columns. {nearest(column, fields)}")
    return fields[column]


def as_text(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return typed fields as strings; None becomes the empty string, a list or a table JSON."""
    return {key: _field_text(value) for key, value in fields.items()}


def _field_text(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)


def _parse_json(origin: str, text: str) -> Any:
    try:
        value = _DECODER.decode(text)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise CorpusError(f"{origin}: it holds half a character ({half!r}, a lone surrogate).") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{origin}: not valid JSON ({error}).") from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names '{min(name for name in fields if names.count(name) > 1)}' twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_duplicates)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, also gzipped, with their numbers from 1; line ends are kept."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        for number, line in enumerate(io.BufferedReader(file) if isinstance(file, gzip.GzipFile) else file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{path}:{number}: not UTF-8 at byte {error.start + 1} of the line.") from None
