"""Files, row by row and each with its place: csv, tsv, jsonl, parquet, plain lines, JSON; gzip where they end in .gz.

Every fault of a file is a :class:`CorpusError` that begins with ``file:line``.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from permafrost.data.corpora.records import CorpusError
from permafrost.data.spec import nearest

T = TypeVar("T")

Row = tuple[str, Mapping[str, str]]
"""``file:line``, and the fields by column name."""

TypedRow = tuple[str, Mapping[str, Any]]
"""The same with the fields as the file types them: numbers, lists, nothing."""

LONGEST_FIELD = 1 << 24

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON spells half of a character that lies beyond 16 bits; without the other half, no file can hold it."""


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a file, by the reader its suffix names.

    Raises:
        CorpusError: the file is missing, unreadable, of an unknown kind, or broken at the line named.
    """
    yield from read_by_suffix(path, READERS)


def read_by_suffix(path: Path, readers: Mapping[str, Callable[[Path], Iterator[T]]]) -> Iterator[T]:
    """What the reader gives that the suffix of a file names; raises like :func:`read_table`."""
    kind = suffix_of(path)
    if kind not in readers:
        raise CorpusError(f"{path}: unknown kind of file '{kind}'. Known: {', '.join(readers)}, and .gz of text.")
    try:
        yield from readers[kind](path)
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: it cannot be read ({reason}).") from error


def suffix_of(path: Path) -> str:
    """``.csv`` of ``a.csv`` and of ``a.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])


def read_csv(path: Path) -> Iterator[Row]:
    """Comma-separated, fields in double quotes where needed; the first line names the columns."""
    yield from _separated(path, delimiter=",", strict=True)


def read_tsv(path: Path) -> Iterator[Row]:
    """Tab-separated, no quoting; the first line names the columns."""
    yield from _separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def read_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object a line."""
    yield from ((place, as_text(fields)) for place, fields in jsonl_objects(path))


def jsonl_objects(path: Path) -> Iterator[TypedRow]:
    """One JSON object a line, its fields typed."""
    for number, line in lines_of(path):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        fields = _parsed(place, line)
        if not isinstance(fields, dict):
            raise CorpusError(f"{place}: expected a JSON object, found {type(fields).__name__}.")
        yield place, fields


def read_json(path: Path) -> Any:
    """A file that is one piece of JSON."""
    return _parsed(str(path), "".join(line for _, line in lines_of(path)))


def read_lines(path: Path) -> Iterator[Row]:
    """One text a line, in the column ``sentence``; blank lines are skipped."""
    for number, line in lines_of(path):
        if line.strip():
            yield f"{path}:{number}", {"sentence": line.strip()}


def read_parquet(path: Path) -> Iterator[Row]:
    """Parquet, one batch of rows in memory at a time."""
    yield from ((place, as_text(fields)) for place, fields in parquet_objects(path))


def parquet_objects(path: Path) -> Iterator[TypedRow]:
    """Parquet, its fields typed."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, memory_map=False) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise CorpusError(f"{path}: the header names the column '{twice[0]}' twice.")
            for batch in file.iter_batches():
                try:
                    rows = iter(batch.to_pylist())
                except UnicodeDecodeError:  # row by row, which takes longer, to know which
                    rows = (batch.slice(row, 1).to_pylist()[0] for row in range(batch.num_rows))
                for fields in rows:
                    number += 1
                    yield f"{path}:{number}", fields
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}:{number + 1}: not UTF-8 at byte {error.start + 1} of a text.") from None
    except pyarrow.ArrowException as error:
        raise CorpusError(f"{path}: not a parquet file that can be read ({error}).") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".txt": read_lines,
}


def select(row: Row, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of ``columns``, in that order."""
    place, fields = row
    for column in columns:
        if column not in fields:
            raise CorpusError(f"{place}: no column '{column}'; set corpus.columns. {nearest(column, fields)}")
    return tuple(fields[column] for column in columns)


def as_text(fields: Mapping[str, Any]) -> dict[str, str]:
    """Typed fields as a text file would hold them; nothing is the empty text."""
    return {key: "" if value is None else str(value) for key, value in fields.items()}


def _separated(path: Path, **dialect: Any) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    line, start = 0, 1

    def decoded() -> Iterator[str]:
        nonlocal line
        for number, text in lines_of(path):
            line = number
            yield text

    reader = csv.reader(decoded(), **dialect)
    try:
        header = next(reader, None)
        if not header:
            raise CorpusError(f"{path}:1: expected a header that names the columns, found nothing.")
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise CorpusError(f"{path}:1: the header names the column '{twice[0]}' twice.")
        start = line + 1
        for values in reader:
            place, start = f"{path}:{start}", line + 1  # a quoted field may span lines: a row is where it begins
            if len(values) != len(header):
                if not values:
                    continue
                raise CorpusError(f"{place}: expected {len(header)} fields ({', '.join(header)}), found {len(values)}.")
            yield place, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise CorpusError(f"{path}:{start}: {error}.") from None


def _parsed(place: str, text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise CorpusError(f"{place}: it holds half a character ({half!r}, a lone surrogate).") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{place}: not valid JSON ({error}).") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names '{min(name for name in fields if names.count(name) > 1)}' twice")
    return fields


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, line ends kept; each must be UTF-8."""
    opened = gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")
    with opened as file:
        for number, line in enumerate(io.BufferedReader(file) if isinstance(file, gzip.GzipFile) else file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{path}:{number}: not UTF-8 at byte {error.start + 1} of the line.") from None
