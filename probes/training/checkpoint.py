"""Where an unfinished training lies: one safetensors file, whole or absent, of this training or refused.

Its tensors are those of the state; its metadata holds the rest of the state, the origin, and a digest of all of it.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from permafrost.data.atomic import TEMPORARY_SUFFIX, sync_folder
from permafrost.data.digests import DamageError
from permafrost.data.errors import InputError, MachineError
from permafrost.probes.training.state_tree import dotted, put_together, taken_apart

FORMAT = "permafrost checkpoint 2"

SHOWN = 3
"""Settings that an error names."""

LONGEST = 60
"""Letters of a value that an error shows."""


class CheckpointError(InputError):
    """A file that is no checkpoint of this training."""


class Checkpoint:
    """The place of one training's state.

    Args:
        path: the file; it ends in ``.safetensors``.
        origin: all that the training depends on, as plain values; a state of another origin is refused.
        seconds: how long after one state the next is due; 0 is always, infinity never.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any], seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._origin, self._since = dict(_flat(origin)), time.monotonic()

    def due(self) -> bool:
        """Whether the time has passed since this was made, or since the last save."""
        return time.monotonic() - self._since >= self.seconds

    def load(self) -> dict[str, Any] | None:
        """The state saved last, its tensors on the CPU and its own; None where there is none.

        What a killed save left beside it is removed.

        Raises:
            CheckpointError: the file is of another training, or no checkpoint.
            DamageError: it is not as it was saved.
            MachineError: it cannot be read.
        """
        for leftover in self.path.parent.glob(f".{escape(self.path.name)}.*{TEMPORARY_SUFFIX}"):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            if not self.path.exists():
                return None
            with safe_open(self.path, "pt") as file:
                told = file.metadata() or {}
                if told.get("format") != FORMAT:
                    raise CheckpointError(f"{self.path} is no checkpoint of this version; remove it to begin anew.")
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if told.get("digest") != _digest(told["origin"], told["state"], tensors):
                raise DamageError(f"{self.path} is damaged; remove it to begin anew.")
            self._check(told)
            return dict(put_together(json.loads(told["state"]), tensors))
        except (CheckpointError, DamageError):
            raise
        except OSError as error:
            raise MachineError(
                f"{self.path} cannot be read ({error.strerror or error}); it is left as it is. Put that right and run "
                "the same command again."
            ) from error
        except Exception as error:  # a file from elsewhere can be wrong in any way
            said = str(error).split("\n")[0]
            raise DamageError(
                f"{self.path} cannot be read as a checkpoint ({type(error).__name__}: {said}); remove it to begin anew."
            ) from error

    def save(self, state: Mapping[str, Any]) -> None:
        """Put ``state`` in the place of the one before, which stays until this one is whole on the disk.

        Args:
            state: as :func:`probes.state_tree.taken_apart` takes it.

        Raises:
            MachineError: it cannot be written; what was saved before is as it was.
        """
        tree, tensors = taken_apart(state)
        told = {"format": FORMAT, "origin": json.dumps(self._origin), "state": json.dumps(tree)}
        told["digest"] = _digest(told["origin"], told["state"], tensors)
        try:
            _write(self.path, tensors, told)
        except (OSError, SafetensorError) as error:
            before = "the state saved before is safe in it" if self.path.is_file() else "none was saved before"
            raise MachineError(
                f"{self.path} cannot be written ({_reason(error)}); {before}. Make room for it and run the same "
                "command again to go on."
            ) from error
        self._since = time.monotonic()

    def _check(self, told: Mapping[str, str]) -> None:
        """Raise a :class:`CheckpointError` where the file is of another training, by what it says of itself."""
        there, here = json.loads(told["origin"]), self._origin
        differ = [key for key in {**here, **there} if there.get(key) != here.get(key)]
        if differ:
            named = "; ".join(
                f"{_line(key)} = {_told(there, key)} there, {_told(here, key)} here" for key in differ[:SHOWN]
            )
            more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
            raise CheckpointError(
                f"{self.path} is of another training ({named}{more}); give them back to go on, or remove "
                f"{self.path.name} to begin anew."
            )


def _write(path: Path, tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> None:
    """The file at its place in one step; written in a folder of its own, as safetensors has a temporary name too."""
    folder = path.parent / f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    try:
        folder.mkdir(parents=True)
        save_file(dict(tensors), folder / path.name, dict(told))
        with open(folder / path.name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def _digest(origin: str, state: str, tensors: Mapping[str, Tensor]) -> str:
    running = xxhash.xxh3_128()
    for text in (origin, state):
        running.update(len(text).to_bytes(8, "little") + text.encode())
    for name in sorted(tensors):
        one = tensors[name]
        running.update(f"{name} {one.dtype} {list(one.shape)} ".encode())
        running.update(one.reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()


def _flat(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and their values as JSON."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _flat(value, dotted(key, name))
    elif isinstance(tree, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in tree):
        for place, value in enumerate(tree):
            yield from _flat(value, dotted(key, place))
    else:
        yield key, json.dumps(tree, ensure_ascii=False)


def _told(origin: Mapping[str, str], key: str) -> str:
    value = _line(origin.get(key, "absent"))
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _reason(error: Exception) -> str:
    """What the system said, also where safetensors tells it in a sentence of its own."""
    return str(getattr(error, "strerror", None) or error).split("\n")[0].removeprefix("Error while serializing: ")
