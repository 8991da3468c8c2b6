"""Memory of a device: what is free, and work in parts that are made smaller where it does not suffice."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU in bytes; of CUDA, with what torch holds and has given to nothing."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    raise ValueError(f"{device} is no GPU.")


class PartSize:
    """Largest part of some work that the memory of a device holds, which is found as parts fail."""

    def __init__(self, most: float = math.inf) -> None:
        self.most = most
        """Largest size of a part; a part that cannot be divided may be larger."""

    def run(
        self,
        whole: Part,
        size: Callable[[Part], int],
        halves: Callable[[Part], Sequence[Part]],
        run: Callable[[Part], Result],
    ) -> Iterator[Result]:
        """Yield the results of the parts of some work, in order; a part for which memory is short runs in halves.

        So do all parts of that size from then on.

        Args:
            halves: parts that a part consists of, in order; nothing if it cannot be divided.

        Raises:
            torch.OutOfMemoryError: a part that cannot be divided does not fit.
        """
        waiting = [whole]
        while waiting:
            part = waiting.pop()
            smaller = halves(part)
            if smaller and size(part) > self.most:
                waiting += reversed(smaller)
                continue
            try:
                result = run(part)
            except torch.OutOfMemoryError:
                if not smaller:
                    raise
                self.most = min(self.most, size(part) / 2)
            else:
                yield result
                continue
            torch.cuda.empty_cache()  # after the error, which held what had been computed
            waiting.append(part)
