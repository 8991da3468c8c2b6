"""Opening files: bytes and lines of plain and compressed files, in memory that no file can exceed.

Compression is recognised by the first bytes, not by the name.
"""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from permafrost.data.errors import CorpusError
from permafrost.data.files.encoding import find_encoding, tells_encoding

LONGEST_LINE = 1 << 24
"""Bytes of the longest line, and of the longest field that spans lines."""

MOST_FIELDS = 10_000
"""Fields of the longest row."""

LARGEST_VALUE = 1 << 29
"""Bytes of the largest file that is read as a single JSON value."""

MOST_UNPACKED, LARGEST_RATIO = 1 << 24, 100
"""A compressed file may unpack to so many bytes, and beyond them to so many times the bytes that were read of it."""

SAMPLE = 1 << 20
"""Bytes at the start of a file that its encoding and layout are found from."""

MOST_CELLS = 1 << 24
"""A sheet may span so many cells, and beyond them so many times the cells that it has as a file may unpack to."""

PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{0,4})([0-9]{1,10})["']""")
"""Place of a cell, or number of a row, in a sheet."""

MARK = "\ufeff"
"""Mark of UTF-8 and UTF-16 at the start of a file."""

ZSTD = b"\x28\xb5\x2f\xfd"

COMPRESSIONS = {b"\x1f\x8b": "gzip", ZSTD: "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
"""First bytes of a file -> its compression."""

COMPRESSED_SUFFIXES = (".gz", ".zst", ".zstd", ".xz", ".bz2")


class _Unpacked(io.RawIOBase):
    """Stream that refuses to unpack far more bytes than it read."""

    def __init__(self, path: Path, packed: BinaryIO, unpacked: BinaryIO) -> None:
        self._path, self._packed, self._unpacked, self._count = path, packed, unpacked, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        data = self._unpacked.read(len(buffer))
        self._count += len(data)
        _check_ratio(self._path, max(self._packed.tell(), 1), self._count)
        buffer[: len(data)] = data
        return len(data)


def _check_ratio(path: Path, packed: int, unpacked: int) -> None:
    if unpacked > MOST_UNPACKED and unpacked > LARGEST_RATIO * packed:
        raise CorpusError(
            f"{path}: its first {packed:,} bytes unpack to more than {LARGEST_RATIO} times as many; no file of "
            "texts is like that. Unpack it and give the unpacked file if it is right."
        )


def check_unpacked(path: Path, size: int) -> None:
    """Raise a :class:`CorpusError` if a file, whose format packs its content, unpacks to far more bytes than it has."""
    _check_ratio(path, path.stat().st_size, size)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is compressed by gzip, zstd, xz or bzip2.

    Raises:
        CorpusError: the file is missing, no regular file, cannot be read or unpacked, or unpacks to far more than it
            holds.
    """
    if path.exists() and not path.is_file():
        raise CorpusError(f"{path}: it is {'a folder' if path.is_dir() else 'a device or pipe'}, expected a file.")
    try:
        with open(path, "rb") as packed:
            compression = next((name for mark, name in COMPRESSIONS.items() if packed.peek(8).startswith(mark)), "")
            if not compression:
                yield packed
                return
            with _unpack(packed, compression) as unpacked:
                yield cast(BinaryIO, io.BufferedReader(_Unpacked(path, packed, unpacked), 1 << 16))
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file.") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CorpusError(f"{path}: it cannot be read ({reason}).") from error


def _unpack(packed: BinaryIO, compression: str) -> BinaryIO:
    if compression == "zstd":
        import pyarrow  # slow to import, and other files do without it

        return cast(BinaryIO, pyarrow.CompressedInputStream(packed, "zstd"))
    openers = {"xz": lzma.LZMAFile, "bzip2": bz2.BZ2File}
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=packed))
    return cast(BinaryIO, openers[compression](packed))


def read_sample(path: Path) -> bytes:
    """Return the first bytes of a file, unpacked."""
    with open_bytes(path) as file:
        return file.read(SAMPLE)


def encoding_or(path: Path, usual: str) -> str:
    """Return ``usual`` for a file whose first bytes do not tell its encoding, else "auto"."""
    return usual if path.is_file() and not tells_encoding(read_sample(path)) else "auto"


def read_whole(path: Path) -> bytes:
    """Return all bytes of a file, unpacked; raise a :class:`CorpusError` if there are too many for a JSON value."""
    with open_bytes(path) as file:
        content = file.read(LARGEST_VALUE + 1)
    if len(content) > LARGEST_VALUE:
        raise CorpusError(
            f"{path}: more than {LARGEST_VALUE >> 20} MiB of JSON; write it as .jsonl, one object per line, or parquet."
        )
    return content


def first_lines(sample: bytes, encoding: str) -> list[str]:
    """Return the whole lines of the first bytes of a file; of a longer first line its begin.

    Args:
        sample: from :func:`read_sample`.
        encoding: from :func:`permafrost.data.files.encoding.find_encoding`.
    """
    errors = decode_errors(encoding)
    decoder = codecs.getincrementaldecoder(encoding)("replace" if errors == "strict" else errors)
    end = _line_end(sample, encoding)
    lines = [line.removeprefix(MARK) for line in re.split(f"(?<={end})", decoder.decode(sample)) if line]
    is_cut = len(sample) == SAMPLE and len(lines) > 1 and not lines[-1].endswith(end)
    return lines[:-1] if is_cut else lines


def lines_of(path: Path, encoding: str = "auto") -> Iterator[tuple[int, str]]:
    """Yield the lines of a file of text with their numbers from 1; line ends are kept.

    A mark at the start of a line, as joined files have it, is no part of it. A byte that is not of the encoding becomes
    half a character (a lone surrogate), which no text may hold: such a row is told when it is used.

    Raises:
        CorpusError: as :func:`open_bytes`; or a line is longer than 16 MiB.
    """
    sample = read_sample(path)
    encoding = find_encoding(path, sample, encoding)
    with open_bytes(path) as file:
        lines = io.TextIOWrapper(file, encoding, errors=decode_errors(encoding), newline=_line_end(sample, encoding))
        number = 0
        try:
            while line := lines.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE and not line.endswith(("\n", "\r")):
                    raise CorpusError(
                        f"{path}:{number}: the line has more than {LONGEST_LINE >> 20} million characters; a file of "
                        "texts has one row per line."
                    )
                yield number, line.removeprefix(MARK)
        except UnicodeError as error:
            raise CorpusError(
                f"{path}:{number + 1}: not {encoding} ({error}); set corpus.encoding to that of the file."
            ) from None
        finally:
            lines.detach()


def decode_errors(encoding: str) -> str:
    """Return how bytes that are not of an encoding are decoded, as ``errors`` of ``bytes.decode``."""
    return "surrogateescape" if encoding.startswith("utf-8") or not encoding.startswith("utf") else "strict"


def _line_end(sample: bytes, encoding: str) -> str:
    """Return the end of a line: a carriage return if the file has no other, as on the first Macintosh."""
    alone = b"\r" in sample and b"\n" not in sample and not encoding.startswith(("utf-16", "utf-32"))
    return "\r" if alone else "\n"


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
        while block := file.read(SAMPLE):
            text, end = rest + block, 0
            for found in PLACE.finditer(text):
                end = found.end()
                yield found
            rest = text[max(end, len(text) - 64) :]
