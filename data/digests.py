"""Digests of a folder's files, kept in a JSON record beside them that has a digest of itself too.

A record that carries its digest, and a file that it lists, are compared before they are believed; a flipped bit, a cut
end or the file of another folder is a :class:`DamageError` that names it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from permafrost.data.errors import MachineError

DIGESTS, DIGEST = "digests", "digest"
"""Fields of a record: relative path -> sha256 of the file, and the sha256 of the record without that field."""


class DamageError(MachineError):
    """A file that is not as it was written."""


def digest_of(content: bytes) -> str:
    """Hex sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Relative path -> digest of the file there."""
    return {name: file_digest(folder / name) for name in sorted(names)}


def with_digests(record: Mapping[str, Any], digests: Mapping[str, str]) -> dict[str, Any]:
    """A record with the digests of the files beside it and its own."""
    whole = dict(record) | {DIGESTS: dict(digests)}
    whole.pop(DIGEST, None)
    return whole | {DIGEST: _own(whole)}


def parse_with_digests(path: Path, content: bytes, way: str) -> dict[str, Any] | None:
    """The record in ``content``, where its digest is right; None of JSON that has no digest, as another version's.

    Args:
        path: of the record, for the error.
        way: what to do about damage; the end of the message.

    Raises:
        DamageError: it is no JSON, or not what it carries the digest of.
    """
    try:
        record = json.loads(content)
        if not isinstance(record, dict) or DIGEST not in record:
            return None
        right = record[DIGEST] == _own({key: value for key, value in record.items() if key != DIGEST})
    except (ValueError, RecursionError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DamageError(f"{path} cannot be read ({said}): {way}.") from error
    listed = record.get(DIGESTS)
    if not right or not isinstance(listed, dict) or not all(isinstance(one, str) for one in listed.values()):
        raise DamageError(f"{path} is not as it was written: {way}.")
    return record


def check_files(folder: Path, digests: Mapping[str, str], record: str = "") -> str:
    """What is wrong with a folder whose files are read by others: it, or a file that has a digest, is a link, not
    there, or changed, or there is one that has none; else empty.

    Args:
        record: the name of the file there that holds the digests.
    """
    if folder.is_symlink() or not folder.is_dir():
        return f"the folder '{folder.name}' that has them is {'a link' if folder.is_symlink() else 'not there'}"
    for name, digest in digests.items():
        path = folder / Path(name).name
        if path.is_symlink() or not path.is_file():
            return f"{folder.name}/{path.name} is {'a link' if path.is_symlink() else 'not there'}"
        if file_digest(path) != digest:
            return f"{folder.name}/{path.name} is not as the run wrote it"
    others = sorted({path.name for path in folder.iterdir()} - set(digests) - {record})
    return f"{folder.name}/{others[0]!r} is none of what the run wrote there" if others else ""


def _own(record: Mapping[str, Any]) -> str:
    """Digest of a record's values, however they are spaced in the file."""
    values = json.loads(json.dumps(record))
    return digest_of(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
