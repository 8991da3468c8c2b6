"""A tree of tensors and plain values, taken apart into tensors with names and a tree that JSON can hold.

In that tree every container and every tensor is an object of one key that says what it is, so that a key may be any
text or integer, and a tuple comes back as one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def taken_apart(state: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """What JSON holds of a state, and its tensors by their dotted names: contiguous, on the CPU, no memory shared.

    Args:
        state: dicts, lists and tuples of tensors, numpy arrays, numbers, strings, booleans and None; keys are strings
            or integers.

    Raises:
        TypeError: it holds something else.
    """
    tensors: dict[str, Tensor] = {}
    tree = _plain(state, "", tensors)
    seen: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensors[name] = tensor.clone()
        seen.add(storage.data_ptr())
    return tree, tensors


def put_together(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The state that :func:`taken_apart` was given; of a tree that is not from there, any exception."""
    if not isinstance(tree, dict):
        return tree
    ((kind, held),) = tree.items()
    match kind:
        case "dict":
            return {key: put_together(one, tensors) for key, one in held}
        case "list":
            return [put_together(one, tensors) for one in held]
        case "tuple":
            return tuple(put_together(one, tensors) for one in held)
        case "array":
            return tensors[held].numpy()
        case "tensor":
            return tensors[held]
    raise ValueError(f"unknown part '{kind}'")


def dotted(name: str, key: str | int) -> str:
    """The name of what is at ``key`` in ``name``."""
    return f"{name}.{key}" if name else str(key)


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON takes it; its tensors go among ``tensors``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if unknown := [key for key in value if isinstance(key, bool) or not isinstance(key, str | int)]:
            raise TypeError(f"{name or 'the state'}: a key must be a string or an integer, got {unknown[0]!r}.")
        return {"dict": [[key, _plain(one, dotted(name, key), tensors)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_plain(one, dotted(name, place), tensors) for place, one in enumerate(value)]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": _added(torch.from_numpy(np.array(value, order="C")), name, tensors)}
    if isinstance(value, Tensor):
        return {"tensor": _added(value.detach().cpu().contiguous(), name, tensors)}
    raise TypeError(f"{name}: a checkpoint cannot hold {getattr(value, 'dtype', type(value).__name__)}.")


def _added(tensor: Tensor, name: str, tensors: dict[str, Tensor]) -> str:
    """The name under which a tensor is kept: its own, or with a mark where another has that."""
    while name in tensors or name in ("", "__metadata__"):  # keys with dots can make one name twice
        name += "'"
    tensors[name] = tensor
    return name
