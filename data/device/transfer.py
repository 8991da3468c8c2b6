"""Transfer: copies to a device and back, through pinned memory where that lets them overlap with work."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CPU = torch.device("cpu")

PINNED_BYTES = 1 << 16
"""Size from which a copy to CUDA goes through pinned memory; the driver buffers a smaller one itself."""

MOST_PINNED_BYTES = 1 << 28
"""Size up to which a copy from CUDA goes through pinned memory, which the system cannot give to others meanwhile."""


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Return an array or a tensor on a device; a copy to CUDA overlaps with work, and is not waited for."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    if tensor.nbytes >= PINNED_BYTES and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # torch gives the memory to nobody else before the copy is done
    return tensor.to(device, non_blocking=True)


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor of any device as an array; on a GPU this waits for all work before it."""
    return tensor.detach().cpu().numpy()


def start_to_numpy(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    """Return a function that waits until a tensor is computed, and returns it as an array; it may run on any thread.

    A tensor of CUDA is copied on a stream of its own, beside the work that is given to the device after it.
    """
    if tensor.device.type != "cuda" or tensor.nbytes > MOST_PINNED_BYTES:
        return lambda: to_numpy(tensor)
    stream = _copy_stream(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        copied = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        done = stream.record_event()
    tensor.record_stream(stream)  # its memory is given to nobody else before the copy is done

    def wait() -> NDArray[Any]:
        done.synchronize()
        return np.array(copied)  # so that the pinned memory is free for the next copy

    return wait


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
