"""Workbooks: what one unpacks to is found before it is read, as each cell between the outermost ones takes memory."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from permafrost.data.errors import CorpusError
from permafrost.data.files.opening import LARGEST_RATIO, check_unpacked

MOST_CELLS = 1 << 24
"""A sheet may span so many cells, and beyond them so many times the cells that it has as a file may unpack to."""

PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{0,4})([0-9]{1,10})["']""")
"""Place of a cell, or number of a row, in a sheet."""

BLOCK = 1 << 20


def check_workbook(path: Path) -> None:
    """Raise a :class:`CorpusError` if a workbook unpacks to far more bytes than it has, or spans far more cells."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(member.file_size for member in archive.infolist()))
            for member in archive.infolist():
                _check_sheet(path, archive, member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise CorpusError(f"{path}: it cannot be read as a workbook ({error}).") from error


def _check_sheet(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    cells, rows, columns = 0, [1 << 40, 0], set[bytes]()
    for found in _places(archive, member):
        row = int(found[2])
        rows = [min(rows[0], row), max(rows[1], row)]
        if found[1]:
            cells += 1
            columns.add(found[1])
    if not cells:
        return
    numbers = [_number_of(column.upper()) for column in columns]
    spanned = (rows[1] - rows[0] + 1) * (max(numbers) - min(numbers) + 1)
    if spanned > MOST_CELLS and spanned > LARGEST_RATIO * cells:
        raise CorpusError(
            f"{path}: a sheet has {cells:,} cells that span {spanned:,}; remove those far from the others, or save the "
            "sheet as .csv."
        )


def _number_of(column: bytes) -> int:
    """Return the number of a column that letters name: of AA, 27."""
    number = 0
    for letter in column:
        number = 26 * number + letter - 64
    return number


def _places(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[re.Match[bytes]]:
    """Yield the places that a member of an archive names; one across two blocks is found too."""
    with archive.open(member) as file:
        rest = b""
        while block := file.read(BLOCK):
            text, end = rest + block, 0
            for found in PLACE.finditer(text):
                end = found.end()
                yield found
            rest = text[max(end, len(text) - 64) :]
