"""Checkpoints of a pretraining: whole or not used, and of this text and these settings or refused."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import files_digests
from permafrost.data.errors import InputError, MachineError
from permafrost.data.language.spec import differences
from permafrost.data.progress import Progress

ORIGIN = "origin.json"

SEAL = "whole.json"
"""Written last: the digest of every file of a checkpoint."""


class CheckpointError(InputError):
    """A folder whose checkpoints belong to another pretraining."""


def open_folder(folder: Path, origin: Mapping[str, Any]) -> None:
    """Make a folder for the checkpoints of a pretraining, or see that it is one of the same.

    Raises:
        CheckpointError: it holds checkpoints of other settings, another text or vocabulary, or no such thing.
    """
    path = folder / ORIGIN
    if not path.is_file():
        if folder.is_dir() and any(not name.name.startswith(".") for name in folder.iterdir()):
            raise CheckpointError(f"{folder} is where checkpoints go, and holds something else; move it away.")
        write_atomically(path, json.dumps(origin, indent=1).encode())
        return
    try:
        there = json.loads(path.read_text("utf-8"))
        differ = differences(there, origin)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete {folder} to begin again.") from error
    if differ:
        raise CheckpointError(
            f"{folder} holds checkpoints of another pretraining ({'; '.join(differ)}); go back to its settings, or "
            "delete it to begin again."
        )


def seal(checkpoint: Path) -> None:
    """Say of a checkpoint that it is whole.

    Raises:
        MachineError: it cannot be written.
    """
    try:
        write_atomically(checkpoint / SEAL, json.dumps(_digests(checkpoint)).encode())
    except OSError as error:
        raise MachineError(f"{checkpoint} cannot be written ({error.strerror or error}).") from error


def newest(folder: Path, progress: Progress) -> Path | None:
    """The latest whole checkpoint; what is not whole is removed, and said to be."""
    numbered = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()}
    found = sorted((path for path, number in numbered.items() if number.isdecimal()), key=lambda p: int(numbered[p]))
    while found:
        if _is_whole(found[-1]):
            return found[-1]
        progress.note(f"{found[-1]} is not whole, as after a kill while it was written: it is removed")
        shutil.rmtree(found.pop())
    return None


def _is_whole(checkpoint: Path) -> bool:
    try:
        said = json.loads((checkpoint / SEAL).read_text("utf-8"))
        return bool(said == _digests(checkpoint))
    except (OSError, ValueError):
        return False


def _digests(checkpoint: Path) -> dict[str, str]:
    return files_digests(checkpoint, (path.name for path in checkpoint.iterdir() if path.name != SEAL))
