"""Devices of stage two: copies to the device of a training and back, and the random generators of a device.

A step copies only what it reads of its rows; everything else is moved once, before the training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")

PINNED_BYTES = 1 << 16
"""Size from which a copy to CUDA goes through pinned memory; the driver buffers a smaller one itself."""


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Return an array or a tensor on a device; a copy to CUDA overlaps with work, and is not waited for."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    if tensor.nbytes >= PINNED_BYTES and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor of any device as an array; on a GPU this waits for all work before it."""
    return tensor.detach().cpu().numpy()


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    raise ValueError(f"{device} is no GPU.")


@contextmanager
def forked_generators(device: torch.device) -> Iterator[None]:
    """Restore afterwards the generators that modules draw from on the CPU and on a device."""
    generators = {id(generator): generator for generator in (torch.default_generator, default_generator(device))}
    states = [(generator, generator.get_state()) for generator in generators.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def default_generator(device: torch.device) -> torch.Generator:
    """Return the generator that modules without one of their own draw from, such as ``nn.Dropout``."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    if device.type == "mps":
        generator: torch.Generator = torch.mps._get_default_mps_generator()
        return generator
    return torch.default_generator
