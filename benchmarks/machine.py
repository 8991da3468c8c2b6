"""What every benchmark says of the machine it ran on, and reads from its command line."""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from permafrost.data.machine import package_version

if TYPE_CHECKING:  # a benchmark of what needs no torch measures its memory without it
    import torch

PACKAGES = ("torch", "transformers", "sentence-transformers")
"""Packages whose versions are told, unless a benchmark names others."""


def parse_options(description: str | None, **defaults: Any) -> argparse.Namespace:
    """Options of the command line, name -> default, which gives the type."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    return parser.parse_args()


def describe(device: str, packages: Sequence[str] = PACKAGES) -> str:
    """One line: processor or GPU, threads, versions."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    versions = ", ".join(f"{package} {package_version(package) or 'absent'}" for package in packages)
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{name}, {cores}; Python {platform.python_version()}, {versions}"


def matmul_gflops(dtype: "torch.dtype", device: str, size: int = 2048, rounds: int = 7) -> float:
    """Best of several square matmuls: the roof that a forward pass can be measured against."""
    import torch

    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(rounds):
        started = clock(device)
        first @ second
        best = max(best, 2 * size**3 / (clock(device) - started) / 1e9)
    return best


def clock(device: str) -> float:
    """Seconds, after the device has done what it was given."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
