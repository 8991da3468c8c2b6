"""SHA-256 digests: of bytes, of files, and of a folder.

Those of a folder's files are kept in a JSON record that also holds a digest of itself. The record and the files that it
lists are compared with their digests before they are used; a changed, truncated or foreign file raises a
:class:`DamageError` that names it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from permafrost.data.errors import MachineError, first_line

DIGESTS, DIGEST = "digests", "digest"
"""Keys of a record: ``digests`` maps relative path -> SHA-256 of the file; ``digest`` is the SHA-256 of the record
without this key."""


LARGEST_RECORD = 1 << 26
"""Bytes of the largest record that is read."""


class DamageError(MachineError):
    """A file whose bytes have changed since it was written."""


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of ``content`` as hex digits."""
    return digest_of_stream([content])


def digest_of_stream(blocks: Iterable[bytes]) -> str:
    """Return the SHA-256 of blocks of bytes, one after another, as hex digits; how they are divided does not count."""
    running = hashlib.sha256()
    for block in blocks:
        running.update(block)
    return running.hexdigest()


def digest_of_parts(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of byte strings as hex digits, each hashed with its length, so that their division counts."""
    running = PartsDigest()
    for part in parts:
        running.add(part)
    return running.digest


class PartsDigest:
    """The digest of :func:`digest_of_parts`, of parts that come one by one."""

    def __init__(self) -> None:
        self._running = hashlib.sha256()

    def add(self, part: bytes) -> None:
        """Add the next part."""
        self._running.update(len(part).to_bytes(8, "little") + part)

    @property
    def digest(self) -> str:
        """Digest of the parts so far, as hex digits."""
        return self._running.hexdigest()


def file_digest(file: Path | BinaryIO) -> str:
    """Return the SHA-256 of a file as hex digits; the file is read in blocks, an open one from its position on."""
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return file_digest(opened)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def digests_of_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the digest of each file: relative path -> SHA-256."""
    return {name: file_digest(folder / name) for name in sorted(names)}


def with_digests(record: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of ``record`` with the digests of the files beside it and a digest of the record itself."""
    complete = {**record, DIGESTS: dict(digests)}
    return complete | {DIGEST: _record_digest(complete)}


def read_record_bytes(path: Path, remedy: str) -> bytes:
    """Return the bytes of a JSON record.

    Args:
        remedy: as of :func:`parse_with_digests`.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        MachineError: it cannot be read; a :class:`DamageError` if it is larger than any record.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_RECORD + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise MachineError(f"{path} cannot be read ({error.strerror or error}).") from error
    if len(content) > LARGEST_RECORD:
        raise DamageError(f"{path} has more than {LARGEST_RECORD >> 20} MiB, and no record is so long: {remedy}.")
    return content


def parse_with_digests(path: Path, content: bytes, remedy: str) -> dict[str, Any] | None:
    """Parse a JSON record and check its digest.

    Args:
        path: path of the record, for the error message.
        remedy: what the user can do about damage; the end of the error message.

    Returns:
        the record, or None if it holds no digest (another version wrote it).

    Raises:
        DamageError: the content is not JSON, or does not match its digest.
    """
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or DIGEST not in record:
            return None
        matches = record[DIGEST] == _record_digest(record)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"{path} cannot be read ({first_line(error)}): {remedy}.") from error
    digests = record.get(DIGESTS)
    if not matches or not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise DamageError(f"{path} is not as it was written: {remedy}.")
    return record


def find_file_problem(folder: Path, digests: Mapping[str, str], record: str = "") -> str:
    """Compare the files of a folder with their digests.

    Args:
        record: name of the file in the folder that holds the digests, if it is in this folder.

    Returns:
        the first problem, as a clause for an error message: the folder or a listed file is a link, is missing or has
        changed, or the folder holds a file that is not listed. Empty if there is none.
    """
    if folder.is_symlink() or not folder.is_dir():
        return f"the folder '{folder.name}' that has them is {'a link' if folder.is_symlink() else 'not there'}"
    for name, digest in digests.items():
        path = folder / Path(name).name
        if path.is_symlink() or not path.is_file():
            return f"{folder.name}/{path.name} is {'a link' if path.is_symlink() else 'not there'}"
        if file_digest(path) != digest:
            return f"{folder.name}/{path.name} is not as the run wrote it"
    unlisted = sorted({path.name for path in folder.iterdir()} - set(digests) - {record})
    return f"{folder.name}/{unlisted[0]!r} was not written by the run" if unlisted else ""


def _record_digest(record: Mapping[str, Any]) -> str:
    """Return the digest of a record without its own; white space and the order of keys in the file do not matter."""
    values = json.loads(json.dumps({key: value for key, value in record.items() if key != DIGEST}))
    return digest_of(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
