"""Checkpoint of an unfinished training: one safetensors file, complete or absent; refused if of another training.

Its tensors are those of the state; its metadata holds the rest of the state as JSON, the origin (everything that the
training depends on), and a digest of all of it.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from permafrost.data.atomic import move_into_place, remove_leftovers, temporary_path
from permafrost.data.digests import DamageError
from permafrost.data.errors import CheckpointError, MachineError, first_line
from permafrost.data.spec import differences, flatten_settings

FORMAT = "permafrost checkpoint 2"


class Checkpoint:
    """File of one training's state.

    Args:
        path: the file; it ends in ``.safetensors``.
        origin: everything that the training depends on, as plain values; a state of another origin is refused.
        seconds: time from one save until the next is due, 0 saves after each step; the end is always saved.
    """

    def __init__(self, path: Path, origin: Mapping[str, Any], seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._origin, self._since = dict(flatten_settings(origin)), time.monotonic()

    def due(self) -> bool:
        """Return whether the time has passed since the last save, or since the construction."""
        return time.monotonic() - self._since >= self.seconds

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, its tensors on the CPU; None if there is none.

        Temporary files of a killed save are removed.

        Raises:
            CheckpointError: the file is of another training, or not a checkpoint.
            DamageError: the file is damaged.
            MachineError: the file cannot be read.
        """
        remove_leftovers(self.path.parent, f"{self.path.name}.", alone=True)
        try:
            if not self.path.exists():
                return None
            if not self.path.is_file() and not self.path.is_dir():  # opening a pipe would wait
                raise CheckpointError(f"{self.path} is no regular file; remove it to start over.")
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise CheckpointError(f"{self.path} is no checkpoint of this version; remove it to start over.")
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            if metadata.get("digest") != _digest(metadata["origin"], metadata["state"], tensors):
                raise DamageError(f"{self.path} is damaged; remove it to start over.")
            self._check_origin(json.loads(metadata["origin"]))
            return dict(unflatten_state(json.loads(metadata["state"]), tensors))
        except (CheckpointError, DamageError):
            raise
        except OSError as error:
            raise MachineError(
                f"{self.path} cannot be read ({error.strerror or error}); it is left as it is. Put that right and run "
                "the same command again."
            ) from error
        except Exception as error:  # a file from elsewhere can be wrong in any way
            raise DamageError(
                f"{self.path} cannot be read as a checkpoint ({type(error).__name__}: {first_line(error)}); remove it "
                "to start over."
            ) from error

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state; the one before stays until this one is completely written.

        Args:
            state: as :func:`flatten_state` takes it.

        Raises:
            MachineError: it cannot be written; the state saved before is unchanged.
        """
        tree, tensors = flatten_state(state)
        metadata = {"format": FORMAT, "origin": json.dumps(self._origin), "state": json.dumps(tree)}
        metadata["digest"] = _digest(metadata["origin"], metadata["state"], tensors)
        try:
            with temporary_path(self.path.parent, f"{self.path.name}.") as folder:
                folder.mkdir()  # as safetensors has a temporary name too
                save_file(tensors, folder / self.path.name, metadata)
                move_into_place(folder / self.path.name, self.path)
        except (OSError, SafetensorError) as error:
            before = "the state saved before is safe in it" if self.path.is_file() else "none was saved before"
            reason = getattr(error, "strerror", None) or first_line(error).removeprefix("Error while serializing: ")
            raise MachineError(
                f"{self.path} cannot be written ({reason}); {before}. Make room for it and run the same command again "
                "to resume."
            ) from error
        self._since = time.monotonic()

    def _check_origin(self, saved: Mapping[str, str]) -> None:
        """Raise a :class:`CheckpointError` if a saved origin is not that of this training."""
        if differing := differences(saved, self._origin):
            raise CheckpointError(
                f"{self.path} is of another training ({differing}); restore these settings to resume, or remove "
                f"{self.path.name} to start over."
            )


def _digest(origin: str, state: str, tensors: Mapping[str, Tensor]) -> str:
    running = xxhash.xxh3_128()
    for text in (origin, state):
        running.update(len(text).to_bytes(8, "little") + text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        running.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        running.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()


def flatten_state(state: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Return a state as a JSON tree and its tensors by dotted name: contiguous, on the CPU, sharing no memory.

    In the tree every container and every tensor is an object of one key, its kind: so a key may be any text or integer,
    and a tuple stays a tuple.

    Args:
        state: dicts, lists and tuples of tensors, numpy arrays, numbers, strings, booleans and None; keys are strings
            or integers.

    Raises:
        TypeError: the state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    tree = _to_json(state, "", tensors)
    seen: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensors[name] = tensor.clone()
        seen.add(storage.data_ptr())
    return tree, tensors


def unflatten_state(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the state of a result of :func:`flatten_state`; raise any exception for another tree."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "dict":
            return {key: unflatten_state(value, tensors) for key, value in content}
        case "list":
            return [unflatten_state(value, tensors) for value in content]
        case "tuple":
            return tuple(unflatten_state(value, tensors) for value in content)
        case "array":
            return tensors[content].numpy()
        case "tensor":
            return tensors[content]
    raise ValueError(f"unknown part '{kind}'")


def _dotted(name: str, key: str | int) -> str:
    return f"{name}.{key}" if name else str(key)


def _to_json(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON takes it, and add its tensors to ``tensors``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if unknown := [key for key in value if isinstance(key, bool) or not isinstance(key, str | int)]:
            raise TypeError(f"{name or 'the state'}: a key must be a string or an integer, got {unknown[0]!r}.")
        return {"dict": [[key, _to_json(item, _dotted(name, key), tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_to_json(item, _dotted(name, index), tensors) for index, item in enumerate(value)]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": _add_tensor(torch.from_numpy(np.array(value, order="C")), name, tensors)}
    if isinstance(value, Tensor):
        return {"tensor": _add_tensor(value.detach().cpu().contiguous(), name, tensors)}
    raise TypeError(f"{name}: a checkpoint cannot hold {getattr(value, 'dtype', type(value).__name__)}.")


def _add_tensor(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    """Add a tensor and return its name, with a mark if another tensor has the name."""
    while name in tensors or name in ("", "__metadata__"):  # keys with dots can make one name twice
        name += "'"
    tensors[name] = tensor
    return name
