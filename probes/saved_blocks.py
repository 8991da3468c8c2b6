"""The model folder that a run leaves where blocks of its backbone learnt: whether its files are those that it wrote."""

import hashlib
from collections.abc import Mapping
from pathlib import Path


def digests_of(folder: Path) -> dict[str, str]:
    """Name of every file -> sha256 of its bytes."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def fault_of(folder: Path, digests: Mapping[str, str]) -> str:
    """What is wrong with the folder: it, or a file that had a digest, is a link, not there, or changed, or there is one
    that had none; else empty.
    """
    if folder.is_symlink() or not folder.is_dir():
        return f"the folder '{folder.name}' that has them is {'a link' if folder.is_symlink() else 'not there'}"
    for name, digest in digests.items():
        path = folder / Path(name).name
        if path.is_symlink() or not path.is_file():
            return f"{folder.name}/{path.name} is {'a link' if path.is_symlink() else 'not there'}"
        if _sha256(path) != digest:
            return f"{folder.name}/{path.name} is not as the run wrote it"
    others = sorted({path.name for path in folder.iterdir()} - set(digests))
    return f"{folder.name}/{others[0]!r} is none of what the run wrote there" if others else ""


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
