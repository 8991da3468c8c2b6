"""Pretraining checkpoints: incomplete ones are not used, and those of other settings or other text are refused."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.digests import digests_of_files
from permafrost.data.errors import CheckpointError
from permafrost.data.language.spec import differences
from permafrost.data.progress import Progress

ORIGIN = "origin.json"
"""File with the settings and digests that a folder's checkpoints belong to."""

DIGESTS_FILE = "whole.json"
"""File with the digest of every file of a checkpoint; written last."""


def open_folder(folder: Path, origin: Mapping[str, Any]) -> None:
    """Create the folder for the checkpoints of a pretraining, or check that an existing one is of the same.

    Raises:
        CheckpointError: it holds checkpoints of other settings, text or vocabulary, or something else.
    """
    path = folder / ORIGIN
    if not path.is_file():
        if folder.is_dir() and any(not name.name.startswith(".") for name in folder.iterdir()):
            raise CheckpointError(f"{folder} is where checkpoints go, and holds something else; move it away.")
        write_atomically(path, json.dumps(origin, indent=1).encode())
        return
    try:
        known = json.loads(path.read_text("utf-8"))
        different = differences(known, origin)
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); delete {folder} to begin again.") from error
    if different:
        raise CheckpointError(
            f"{folder} holds checkpoints of another pretraining ({'; '.join(different)}); go back to its settings, or "
            "delete it to begin again."
        )


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete; raise :class:`OSError` if the mark cannot be written."""
    write_atomically(checkpoint / DIGESTS_FILE, json.dumps(_digests(checkpoint)).encode())


def newest_checkpoint(folder: Path, progress: Progress) -> Path | None:
    """Return the latest complete checkpoint, or None; later ones that are incomplete are removed with a note."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()}
    checkpoints = sorted((path for path, step in steps.items() if step.isdecimal()), key=lambda path: int(steps[path]))
    while checkpoints:
        with suppress(OSError, ValueError):  # no readable list of digests
            if json.loads((checkpoints[-1] / DIGESTS_FILE).read_text("utf-8")) == _digests(checkpoints[-1]):
                return checkpoints[-1]
        progress.note(f"{checkpoints[-1]} is incomplete (interrupted while writing) and is removed")
        shutil.rmtree(checkpoints.pop())
    return None


def _digests(checkpoint: Path) -> dict[str, str]:
    return digests_of_files(checkpoint, (path.name for path in checkpoint.iterdir() if path.name != DIGESTS_FILE))
