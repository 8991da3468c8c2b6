"""Tables: the rows of a file of any format, whose layout is found from its content.

The first bytes tell parquet, Arrow and xlsx; the first characters tell JSON; the first lines tell the delimiter.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from permafrost.data.errors import CorpusError
from permafrost.data.files import columnar, json_rows
from permafrost.data.files.delimited import read_delimited
from permafrost.data.files.dialect import Dialect, find_dialect
from permafrost.data.files.documents import is_folder_of_documents, read_documents
from permafrost.data.files.encoding import find_encoding
from permafrost.data.files.json_rows import TypedRow
from permafrost.data.files.opening import COMPRESSED_SUFFIXES, COMPRESSIONS, first_lines, read_sample
from permafrost.data.files.settings import FileFormat, Skip, refuse_row
from permafrost.data.plugin_registry import is_known
from permafrost.data.plugins import Reader
from permafrost.data.spec import nearest

T = TypeVar("T")

Row = tuple[str, Mapping[str, str]]
"""Origin (``file:line``), and the fields by column as text."""

BLOCK_ROWS = 1 << 14

Kind = Literal["parquet", "arrow", "xlsx", "jsonl", "json", "squad", "documents", "reader", "text"]

BINARY: dict[bytes, Kind] = {
    b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"PK\x03\x04": "xlsx",
}  # fmt: skip
"""First bytes of a file -> its kind."""

ARCHIVES: dict[str, tuple[bytes, int]] = {"zip": (b"PK\x03\x04", 0), "tar": (b"ustar", 257)}
"""Kind of an archive of files -> bytes and where they stand in it."""

BINARY_READERS = {"parquet": columnar.read_parquet, "arrow": columnar.read_arrow}

BINARY_SUFFIXES = (".parquet", ".arrow", ".feather", ".xlsx")

LOOKED_AT = 5
"""Lines that are looked at to see whether each is JSON."""

NAMES = {
    "squad": "JSON in SQuAD's layout", "json": "JSON", "jsonl": "JSON lines", "documents": "a text per file",
}  # fmt: skip

LINES = Dialect("")


@dataclass(frozen=True)
class Table:
    """A file of rows, and how it is read."""

    path: Path
    kind: Kind
    encoding: str = "utf-8"
    dialect: Dialect = LINES
    value: Any = None
    """The content of a file that is a single JSON value."""

    reader: str = ""
    """Reader from outside."""

    def describe(self) -> str:
        """Return the format in words, e.g. ``tabs, no header, UTF-8``."""
        if self.kind == "reader":
            return f"read by '{self.reader}'"
        if self.kind != "text":
            left_out = ", ".join(
                f"{name} ({count:,} rows)" for name, count in json_rows.foreign_splits(self.value).items()
            )
            name = NAMES.get(self.kind, self.kind)
            return f"{name}, without {left_out}" if left_out else name
        encoding = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8 with a mark"}.get(self.encoding, self.encoding)
        return f"{self.dialect.describe()}, {encoding}"

    def rows(self, skip: Skip = refuse_row) -> Iterator[TypedRow]:
        """Yield the rows with their origins; ``skip`` receives those that cannot be read.

        Raises:
            CorpusError: the file is broken; the message names the line.
        """
        if self.kind in BINARY_READERS:
            yield from BINARY_READERS[self.kind](self.path)
        elif self.kind == "reader":
            yield from columnar.read_own(self.path, self.reader)
        elif self.kind == "xlsx":
            yield from columnar.read_xlsx(self.path, skip)
        elif self.kind == "documents":
            yield from read_documents(self.path, self.encoding, skip)
        elif self.kind == "jsonl":
            yield from json_rows.read_jsonl(self.path, self.encoding, skip)
        elif self.kind == "json":
            yield from json_rows.json_rows(self.path, self.value)
        elif self.kind == "squad":
            raise CorpusError(f'{self.path}: it has the layout of SQuAD, not rows; set corpus.target = "answers".')
        else:
            yield from read_delimited(self.path, self.encoding, self.dialect, skip)

    def blocks(self, skip: Skip = refuse_row) -> Iterator[list[TypedRow]]:
        """Yield the rows in lists of at most :data:`BLOCK_ROWS`."""
        rows = self.rows(skip)
        while block := list(islice(rows, BLOCK_ROWS)):
            yield block


def open_table(path: Path, settings: FileFormat | None = None, like: Table | None = None) -> Table:
    """Find how a file is written.

    Args:
        path: of the file; compressed by gzip, zstd, xz or bzip2 if it is text. Or of a folder of documents.
        settings: what is known of a file of text.
        like: the first file of the same corpus; what has the same suffix is written alike.

    Raises:
        CorpusError: the file is missing, cannot be read, is of no known format, or contradicts a setting.
    """
    settings = settings or FileFormat()
    if path.is_dir() and is_folder_of_documents(path):
        return Table(path, "documents", settings.encoding)
    sample = read_sample(path)
    if reader := settings.reader or _reader_of_suffix(path):
        return Table(path, "reader", reader=reader)
    for archive, (mark, start) in ARCHIVES.items():
        if sample.startswith(mark, start) and not (archive == "zip" and _is_workbook(path)):
            raise CorpusError(f"{path}: a {archive} archive; unpack it, and give the file or the folder in it.")
    if kind := next((kind for mark, kind in BINARY.items() if sample.startswith(mark)), None):
        with open(path, "rb") as file:
            if any(file.read(8).startswith(mark) for mark in COMPRESSIONS):
                raise CorpusError(f"{path}: a compressed {kind} file; unpack it, its columns are compressed already.")
        if settings.delimiter == "none":
            raise CorpusError(
                f"{path}: a {kind} file has columns: name them in corpus.columns (--columns); regular expressions and "
                'corpus.delimiter = "none" are for files of text.'
            )
        return Table(path, kind)
    suffix = suffix_of(path)
    if suffix in BINARY_SUFFIXES:
        raise CorpusError(f"{path}: not a {suffix[1:]} file that can be read; its first bytes are of another format.")
    encoding = find_encoding(path, sample, settings.encoding)
    lines = first_lines(sample, encoding)
    if settings.delimiter == "auto" and (kind := _json_kind(lines, suffix)):
        if kind == "jsonl":
            return Table(path, kind, encoding)
        value = json_rows.read_json(path)
        value = {"data": value} if json_rows.is_squad({"data": value}) else value
        return Table(path, "squad" if json_rows.is_squad(value) else "json", encoding, value=value)
    known = like.dialect if like and like.kind == "text" and suffix_of(like.path) == suffix else None
    try:
        return Table(path, "text", encoding, find_dialect(lines, suffix, settings, known))
    except ValueError as error:
        raise CorpusError(f"{path}: {error}") from None


def _reader_of_suffix(path: Path) -> str:
    """Return the reader from outside that is named as the suffix of a file; empty if there is none."""
    name = suffix_of(path)[1:]
    return name if name and name not in Reader.built_in and is_known(Reader, name) else ""


def _is_workbook(path: Path) -> bool:
    """Return whether a zip archive is a workbook of Excel or LibreOffice, or cannot be read as an archive."""
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return any(name.startswith(("xl/", "content.xml")) for name in archive.namelist())


def _json_kind(lines: list[str], suffix: str) -> Kind | None:
    """Return "jsonl" if each line is an object or list, "json" if a value spans lines; None if neither.

    Only a suffix of JSON makes lines JSON that cannot be read so.
    """
    filled = list(islice((line.strip() for line in lines if line.strip()), LOOKED_AT))
    first = "".join(filled[:1])
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    if suffix == ".json":
        whole = first[-1:] in "}]" and first[:1] in "{[" and len(filled) > 1
        return "jsonl" if first and whole else "json"
    if filled and all(map(json_rows.is_object, filled)):
        return "jsonl"
    if first.startswith(("{", "[")) and suffix in ("", ".js") and (first in "{[" or json_rows.is_list(first)):
        return "jsonl" if len(filled) > 1 and json_rows.is_list(first) else "json"
    return None


def suffix_of(path: Path) -> str:
    """Return the suffix of a file without that of its compression: ``.csv`` for ``a.csv`` and for ``a.csv.gz``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] and suffixes[-1] in COMPRESSED_SUFFIXES
    return suffixes[-2] if compressed and len(suffixes) > 1 else "" if compressed else "".join(suffixes[-1:])


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
    return "" if value is None or value != value else str(value)  # noqa: PLR0124  NaN is an empty cell
