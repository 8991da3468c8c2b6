"""The layout of delimited text: delimiter, quoting and header, found from the first lines of a file.

The number of fields of the rows decides, not the name of the file: in a delimited file nearly all rows have the same
number of them. Only a suffix that names the delimiter (.csv, .tsv) settles what the rows leave open.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from permafrost.data.errors import CorpusError
from permafrost.data.files.column_names import KNOWN, plain_name
from permafrost.data.files.opening import MOST_FIELDS
from permafrost.data.files.settings import FileFormat

DELIMITERS = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}
"""Name of a delimiter -> the character; a tab is the surest, as no text holds one."""

QUOTINGS = ("double", "none")

SAME_WIDTH = 0.9
"""Share of the rows that have the commonest number of fields, in a delimited file."""

NEARLY_ALL = 0.99
"""Share from which on the delimiter that the suffix names is not doubted."""

MOST_SAMPLED = 5000
"""Lines that the layout is found from."""

MOST_CUT = 50
"""Lines at the end of the sample that a quoted field may hold which the sample cuts."""

SPACED = 0.5
"""Share of delimiters with a blank after them from which on they are punctuation."""

HEADED = (".csv", ".tsv", ".tab")
"""Suffixes of files whose first row names the columns, unless it is seen not to."""

SHORTEST_KEY = 4
"""Characters of the shortest key."""

LONGEST_NAME = 6
"""Words of the longest name of a column."""

DELIMITER_LINE = re.compile(r"sep=(.)\s*")
"""First line that names the delimiter, as Excel reads and writes it."""


@dataclass(frozen=True)
class Dialect:
    """How the fields of a row are separated."""

    delimiter: str
    """The character; empty if each line is one text."""

    quoted: bool = False
    """Whether fields may stand in double quotes, which are then no part of them."""

    header: bool = False
    """Whether the first row names the columns."""

    widths: tuple[int, int] = (1, 1)
    """Smallest and largest number of fields of a row without a header."""

    decimal_comma: bool = False
    """Whether numbers are written with a comma, as in ``3,5``."""

    def describe(self) -> str:
        """Return the layout in words."""
        if not self.delimiter:
            return "one text per line"
        name = next((name for name, character in DELIMITERS.items() if character == self.delimiter), "")
        parts = [f"{name}s" if name else repr(self.delimiter), "header" if self.header else "no header"]
        if self.quoted != (self.delimiter != "\t"):  # not the usual
            parts.append("quotes" if self.quoted else "quotation marks are text")
        return ", ".join(parts)


def find_dialect(lines: Sequence[str], suffix: str, settings: FileFormat, like: Dialect | None = None) -> Dialect:
    """Return the layout of a file of text.

    Args:
        lines: the first lines of the file.
        suffix: of its name, in lower case, e.g. ``.csv``; empty if there is none.
        settings: what is not "auto" is taken as it is.
        like: the layout of another file of the same corpus, which settles delimiter and quoting, and that there is no
            header if there is none in that file and the rows have as many fields.

    Raises:
        CorpusError: a setting is none of the known values; a row of too many fields is a ValueError.
    """
    lines = [line for line in lines[:MOST_SAMPLED] if line.strip()]
    if not lines and suffix in HEADED:
        return Dialect(",", header=True)
    delimiter = _set_delimiter(settings.delimiter)
    if lines and delimiter != "" and (told := DELIMITER_LINE.fullmatch(lines[0])):
        delimiter, lines = delimiter or told[1], lines[1:]
    if delimiter is None:
        delimiter = like.delimiter if like else _find_delimiter(lines, suffix)
    if not delimiter:
        return Dialect("", header=settings.header == "yes")
    quoted = settings.quoting == "double"
    if settings.quoting not in ("auto", *QUOTINGS):
        raise CorpusError(f'corpus.quoting = "{settings.quoting}": set it to "auto", "double" or "none".')
    if settings.quoting == "auto":
        quoted = like.quoted if like else _is_quoted(lines, delimiter)
    decimal_comma = settings.decimal == "comma"
    if settings.header == "yes":
        return Dialect(delimiter, quoted, header=True, decimal_comma=decimal_comma)
    rows = list(_split(lines, delimiter, quoted))
    if (widest := max(map(len, rows), default=0)) > MOST_FIELDS:
        raise ValueError(f"a row has {widest:,} fields, and at most {MOST_FIELDS:,} are read.")
    if settings.header not in ("auto", "yes", "no"):
        raise CorpusError(f'corpus.header = "{settings.header}": set it to "auto", "yes" or "no".')
    header = settings.header == "auto" and _has_header(rows, suffix)
    widths = Counter(map(len, rows))
    common = [width for width, count in widths.items() if count >= 0.01 * len(rows)] or [1]
    if delimiter != "\t":
        common = [widths.most_common(1)[0][0]] if rows else [1]  # a text may hold the delimiter, but no tab
    if settings.header == "auto" and like and not like.header and like.widths[0] <= min(common):
        header = False
    return Dialect(delimiter, quoted, header, (min(common), max(common)), decimal_comma)


def split_rows(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    """Yield the fields of each row; a quoted field may span lines.

    Raises:
        csv.Error: a quotation mark stands where the dialect has none.
    """
    if dialect.quoted:
        yield from csv.reader(lines, delimiter=dialect.delimiter, strict=True)
    else:
        for line in lines:
            yield line.rstrip("\r\n").split(dialect.delimiter)


def _set_delimiter(setting: str) -> str | None:
    """Return the delimiter that is set: its name or the character itself; None for "auto"."""
    if setting == "auto":
        return None
    if setting == "none":
        return ""
    delimiter = DELIMITERS.get(setting, setting.replace("\\t", "\t"))
    if len(delimiter) != 1:
        names = ", ".join(f'"{name}"' for name in DELIMITERS)
        raise CorpusError(f'corpus.delimiter = "{setting}": set it to {names}, "none" or a single character.')
    return delimiter


def _find_delimiter(lines: Sequence[str], suffix: str) -> str:
    """Return the delimiter by which the rows have the same number of fields; empty if each line is one text."""
    named = {".csv": ",", ".tsv": "\t", ".tab": "\t"}.get(suffix, "")
    best, best_rank = named, (0.0, 0)
    for delimiter in DELIMITERS.values():
        rows = list(_split(lines, delimiter, _is_quoted(lines, delimiter)))
        widths = Counter(map(len, rows))
        if not rows or widths[1] > 0.05 * len(rows) or (len(rows) < 2 and delimiter != named):
            continue
        width, count = widths.most_common(1)[0]
        share = count / len(rows)
        if delimiter == named and share >= NEARLY_ALL and len(rows[0]) == width:
            return named
        sure = delimiter == "\t" or suffix in HEADED
        if not sure and (share < SAME_WIDTH or (_is_punctuation(lines, delimiter) and not _has_header(rows))):
            continue
        if delimiter != named and not any(any(row[1:]) for row in rows):
            continue  # it ends lines, and separates nothing
        if delimiter not in ("\t", named) and share < SAME_WIDTH:
            continue
        # a delimiter whose rows are all alike beats one whose are not; a tab and the suffix break ties
        alike = round(share, 1) - 0.5 * (suffix in HEADED and len(rows[0]) != width)
        rank = (alike + 0.5 * (delimiter == "\t"), (delimiter == named) + (delimiter == "\t"))
        if rank > best_rank:
            best, best_rank = delimiter, rank
    return best


def _is_punctuation(lines: Sequence[str], delimiter: str) -> bool:
    count = sum(line.count(delimiter) for line in lines)
    return sum(line.count(f"{delimiter} ") for line in lines) >= SPACED * max(count, 1)


def _is_quoted(lines: Sequence[str], delimiter: str) -> bool:
    """Return whether fields that begin with a quotation mark are quoted, not texts that begin with one.

    They are if all rows can be read so, with no fewer rows of the commonest number of fields. After a tab, more rows
    must have that number, or each field that begins with a mark must end with one, too, and hold none or doubled ones:
    some doubled, or a whole column in quotes.
    """
    text = "".join(lines)
    if f'{delimiter}"' not in text and '\n"' not in text and not text.startswith('"'):
        return delimiter != "\t"
    rows = list(_split(lines, delimiter, quoted=True))
    plain = list(_split(lines, delimiter, quoted=False))
    if not rows or not _reach_the_end(lines, rows, delimiter) or _same_width(rows) < _same_width(plain):
        return False
    return delimiter != "\t" or _same_width(rows) > _same_width(plain) or _is_well_quoted(plain)


def _is_well_quoted(rows: Sequence[list[str]]) -> bool:
    """Return whether marks at the ends of fields are quotes: in pairs, and doubled inside or around a whole column."""
    marked = [field for row in rows for field in row if field.startswith('"')]
    inner = [field[1:-1] for field in marked if len(field) > 1 and field.endswith('"')]
    if not marked or len(inner) < len(marked) or any('"' in text.replace('""', "") for text in inner):
        return False
    columns = zip_longest(*rows[1:], fillvalue="")
    return any('""' in text for text in inner) or any(
        len(column) > 1 and all(field.startswith('"') for field in column) for column in columns
    )


def _reach_the_end(lines: Sequence[str], rows: Sequence[list[str]], delimiter: str) -> bool:
    """Return whether rows were read up to the end of the sample, or to a quoted field that the sample cuts."""
    read = sum(1 + sum(field.count("\n") for field in row) for row in rows)
    if len(lines) - MOST_CUT > read:
        return False
    try:
        for _ in split_rows(iter([*lines[read:], '"\n']), Dialect(delimiter, quoted=True)):
            pass
    except csv.Error:
        return read == len(lines)
    return True


def _same_width(rows: Sequence[list[str]]) -> float:
    return max(Counter(map(len, rows)).values()) / len(rows)


def _split(lines: Sequence[str], delimiter: str, quoted: bool) -> Iterator[list[str]]:
    """Yield the fields of rows as far as they can be read."""
    csv.field_size_limit(1 << 24)
    try:
        yield from split_rows(iter(lines), Dialect(delimiter, quoted))
    except csv.Error:
        return


def _has_header(rows: Sequence[list[str]], suffix: str = "") -> bool:
    """Return whether the first row names the columns.

    It does not if a cell is a number, a sentence, or a value of its column. Else it does if it holds a usual name of a
    column, if a column below it is of numbers, if texts below it are far longer, or if the suffix is of such files.
    """
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    others = [row for row in rows[1:] if len(row) == len(first)]
    others = [row for row in others if row != rows[0]] or others  # joined files repeat their header
    if _counts_columns(first, others):
        return True
    if any(_is_list_of_numbers(cell) or _is_sentence(cell) for cell in first) or not any(first):
        return False
    columns = list(zip(*others, strict=True)) if others else [()] * len(first)
    paired = [(cell, column) for cell, column in zip(first, columns, strict=True) if cell]
    if any(cell in column or _is_key_like(cell, column) for cell, column in paired):
        return False  # a name that is a value too, such as a class, or is written like all values
    if suffix in HEADED or any(plain_name(cell) in KNOWN for cell in first):
        return True
    numeric = any(any(column) and all(map(is_number, filter(None, column))) for column in columns)
    longer = any(
        len(cell) < sum(map(len, column)) / len(column) / 3
        for cell, column in zip(first, columns, strict=True)
        if column
    )
    return numeric or (longer and all(len(cell) < 30 for cell in first))


def _counts_columns(first: Sequence[str], others: Sequence[list[str]]) -> bool:
    """Return whether a row counts columns of texts from 0 or 1, as pandas names them; that of an index has no name."""
    numbers = first if first[0] else first[1:]
    counted = any(numbers == [str(start + index) for index in range(len(numbers))] for start in (0, 1))
    has_texts = any(not is_number(cell) for row in others for cell in row if cell)
    return counted and len(numbers) > 1 and has_texts


def _is_sentence(cell: str) -> bool:
    words = len(cell.split())
    return words > LONGEST_NAME or (words > LONGEST_NAME / 2 and cell.endswith((".", "?", "!")))


def _is_list_of_numbers(cell: str) -> bool:
    return all(map(is_number, re.split(r"[,;| ]", cell)))


def _is_key_like(cell: str, column: Sequence[str]) -> bool:
    """Return whether a cell and all values of its column are of one length, with digits, as keys are."""
    cells = [cell, *map(str.strip, column)]
    same_length = len(cells) > 2 and len(cell) >= SHORTEST_KEY and len({len(text) for text in cells}) == 1
    return same_length and any(map(str.isdigit, cell)) and column.count(column[0]) != len(column)


def is_number(text: str) -> bool:
    """Return whether a text is written as a number."""
    return bool(re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text, re.ASCII))
