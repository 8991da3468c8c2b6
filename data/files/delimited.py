"""Rows of delimited text: fields by the names of a header, or by their positions from 1."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from permafrost.data.errors import EMPTY_ROW, CorpusError
from permafrost.data.files.dialect import DELIMITER_LINE, Dialect, split_rows
from permafrost.data.files.json_rows import TEXT
from permafrost.data.files.opening import LONGEST_LINE, lines_of
from permafrost.data.files.settings import Skip

DECIMAL = re.compile(r"\s*[-+]?\d+,\d+\s*", re.ASCII)
"""Number with a decimal comma."""

Fields = tuple[str, dict[str, str]]
"""Origin (``file:line``), and the fields of a row by column."""


def read_delimited(path: Path, encoding: str, dialect: Dialect, skip: Skip) -> Iterator[Fields]:
    """Read the rows of a file of text; blank lines are left out, and ``skip`` receives rows of empty cells.

    Raises:
        CorpusError: the file cannot be read, a header names a column twice, or a quotation mark is out of place.
    """
    if not dialect.delimiter:
        lines = ((number, line.strip()) for number, line in lines_of(path, encoding))
        texts = ((f"{path}:{number}", {TEXT: line}) for number, line in lines if line)
        yield from islice(texts, int(dialect.header), None)
        return
    csv.field_size_limit(LONGEST_LINE)
    number = 0

    def counted() -> Iterator[str]:
        nonlocal number
        for number, line in lines_of(path, encoding):  # the number is read between lines too
            if number > 1 or not DELIMITER_LINE.fullmatch(line):
                yield line

    names, header = list[str](), list[str]()
    start = 1
    try:
        for values in split_rows(counted(), dialect):
            origin, start = f"{path}:{start}", number + 1  # a quoted field may span lines: a row is where it begins
            if not any(values):
                if len(values) > 1 and (names or not dialect.header):
                    skip(origin, EMPTY_ROW, "all its cells are empty")
                continue
            if dialect.header and not names:
                names, header = _names(values), values
                _check_names(origin, names)
            elif values == header:
                pass  # files were joined
            elif fields := _fields(origin, values, names, dialect, skip):
                yield origin, fields
    except csv.Error as error:
        problem = "a carriage return stands in a field without quotes" if "new-line" in str(error) else str(error)
        raise CorpusError(
            f'{path}:{start}: {problem}; if quotes are part of the texts, set corpus.quoting = "none".'
        ) from None
    if dialect.header and not names:
        raise CorpusError(f"{path}:1: expected a header that names the columns, found nothing.")


def _fields(origin: str, values: list[str], names: list[str], dialect: Dialect, skip: Skip) -> dict[str, str]:
    """Return the fields of a row by column; none if it is skipped."""
    if dialect.decimal_comma:
        values = [value.replace(",", ".") if DECIMAL.fullmatch(value) else value for value in values]
    if names and not any(values[len(names) :]):
        values = values[: len(names)]  # delimiters at the end of a line
    if names and len(values) != len(names):
        skip(origin, "fields", f"expected {len(names)} fields ({', '.join(names)}), found {len(values)}")
        return {}
    low, high = dialect.widths
    if not names and not low <= len(values) <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        skip(origin, "fields", f"expected {expected} fields, found {len(values)}")
        return {}
    return dict(zip(names or map(str, range(1, len(values) + 1)), values, strict=False))


def _names(values: list[str]) -> list[str]:
    """Return the names in a header; a column without one is named by its position."""
    names = [value.strip() for value in values]
    known = set(names)
    positions = [f"column {number}" if str(number) in known else str(number) for number in range(1, len(names) + 1)]
    return [name or position for name, position in zip(names, positions, strict=True)]


def _check_names(origin: str, names: list[str]) -> None:
    if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
        raise CorpusError(
            f"{origin}: the header names the column '{duplicates[0]}' twice; rename one, or set corpus.header = \"no\" "
            "if the line is a row."
        )
