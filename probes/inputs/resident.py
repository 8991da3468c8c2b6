"""Token states in the memory of a device, where batches of windows are read without a copy from the host."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.device.memory import free_bytes
from permafrost.data.device.transfer import to_device
from permafrost.data.ragged import TokenIndex, offsets_from_lengths

DEVICE_SHARE = 0.5
"""Share of the free memory of a GPU that latents may take; else a step copies those of its rows."""

COPIED_WINDOWS = 1024
"""Number of windows that are copied at once."""

Read = Callable[[NDArray[np.int64], Sequence[int]], Tensor]
"""(indices of windows, indices of layers) -> ``[layer, token, width]``, in the stored precision."""


def fits(size: int, device: torch.device) -> bool:
    """Return whether so many bytes may lie in the memory of a device for a training; the CPU has them already."""
    return device.type == "cpu" or size <= DEVICE_SHARE * free_bytes(device)


def resident_states(read: Read, tokens: TokenIndex, layers: int, device: torch.device) -> Read | None:
    """Copy the states of all windows to a device, and return what reads them there; None if they do not fit.

    Args:
        layers: number of layers that ``read`` knows.
    """
    windows, offsets = np.arange(len(tokens.lengths)), offsets_from_lengths(tokens.lengths)
    first = read(windows[:1], range(layers))
    if not fits(first[:, :1].nbytes * int(offsets[-1]), device):
        return None
    states = first.new_empty((layers, int(offsets[-1]), first.shape[2]), device=device)
    for chunk in np.split(windows, range(COPIED_WINDOWS, len(windows), COPIED_WINDOWS)):
        states[:, offsets[chunk[0]] : offsets[chunk[-1] + 1]] = to_device(read(chunk, range(layers)), device)

    def read_there(windows: NDArray[np.int64], layers: Sequence[int]) -> Tensor:
        chosen = torch.tensor(list(layers), device=device)
        return states[chosen[:, None], to_device(tokens.tokens_of(windows), device)]

    return read_there
