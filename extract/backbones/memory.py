"""Free memory of a device."""

from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")
"""Folder of the limits of a container."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may still allocate."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = int(psutil.virtual_memory().available)
    try:
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is none, or no limit
        return available
    return min(most - used + int(counts.get("inactive_file", 0)), available)  # cached files give way
