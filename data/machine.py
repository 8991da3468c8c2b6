"""This machine and its software: processor, number types that it computes natively, memory, versions of packages."""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from permafrost.data.spec import SpecError

CGROUP = Path("/sys/fs/cgroup")
"""Folder of the limits of a container."""

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

UNITS |= {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
"""Unit of a size -> bytes."""

PASSING_FACTS = ("processor", "cpu MHz", "bogomips", "apicid", "initial apicid", "core id", "physical id")
"""Lines of ``/proc/cpuinfo`` that change from time to time, or from one processor to the next."""


KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": (-3, 64 * 2**20), "MALLOC_TRIM_THRESHOLD_": (-1, 256 * 2**20)}
"""Environment variable of the allocator of glibc -> number of its option for ``mallopt``, and bytes: of the smallest
allocation that has pages of its own, and of the most free memory that stays with the process."""

DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
"""Names of devices."""


def machine_name() -> str:
    """Return the processor architecture and the number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


@cache
def processor() -> str:
    """Return what the system says of the first processor: all that tells apart what it can compute."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n", 1)[0].splitlines()
        facts += [line for line in lines if not line.startswith(PASSING_FACTS)]
    return "; ".join(facts)


def free_memory() -> int:
    """Return the bytes of main memory that this process may still allocate."""
    import psutil  # most commands need none of it

    available = int(psutil.virtual_memory().available)
    try:
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is none, or no limit
        return available
    return min(most - used + int(counts.get("inactive_file", 0)), available)  # cached files give way


@cache
def keep_freed_memory() -> bool:
    """Let the allocator keep what is freed, for the next tensor of that size; return whether it does.

    By default glibc returns freed megabytes to the system, and each page of the next tensor is a fault. Variables of
    the environment that say otherwise count.
    """
    if not sys.platform.startswith("linux") or not KEPT_MEMORY.keys().isdisjoint(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(*option) for option in KEPT_MEMORY.values())


def size_in_bytes(text: str, name: str) -> int:
    """Return ``500MB``, ``1.5 GiB`` or plain bytes as a number of bytes; KB is 1,000 bytes, KiB 1,024.

    Args:
        name: of the option or setting, for the message.

    Raises:
        SpecError: ``text`` is no such size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?", text.strip().upper())
    size = round(float(match[1]) * UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise SpecError(f"{name} {text!r}: expected a size such as 500MB, 20GB or 1000000.")
    return size


def may_have_gpu() -> bool:
    """Return whether torch could find a GPU: False if no driver is there, of CUDA or of ROCm."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def native_bfloat16(device: str = "cpu") -> bool:
    """Return whether a device multiplies bfloat16 matrices natively, by its flags and never by timing.

    Of a CPU by its instructions, of CUDA from Ampere on; other devices do not.
    """
    import torch  # the rest of this package does without torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu":
        return False
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def check_device(name: str) -> None:
    """Raise a :class:`SpecError` if no machine could have a device of this name."""
    if not DEVICE.fullmatch(name):
        raise SpecError(f'device must be "auto", "cpu", "cuda", "cuda:N" or "mps", got "{name}".')


def devices() -> list[str]:
    """Return the devices of this machine that torch can use; torch is imported only where there may be a GPU."""
    found = ["cpu"]
    if may_have_gpu():
        import torch

        found += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if platform.system() == "Darwin":
        import torch

        found += ["mps"] * torch.backends.mps.is_available()
    return found


def pick_device(wanted: str) -> str:
    """Return the device to run on: ``auto`` is the GPU of CUDA or ROCm if there is one, else the CPU.

    Raises:
        SpecError: this machine has no such device.
    """
    check_device(wanted)
    if wanted == "cpu":
        return "cpu"
    found = devices()
    if wanted in ("auto", "cuda") and "cuda:0" in found:
        return "cuda"
    if wanted == "auto":
        return "cpu"
    if wanted not in found:
        raise SpecError(
            f'device = "{wanted}" is not on this machine, where torch {package_version("torch") or ""} can use '
            f'{" and ".join(found)}; set device (--device) to one of these, or to "auto".'
        )
    return wanted


def check_device_here(name: str) -> None:
    """Raise a :class:`SpecError` if this machine has no such device; "auto" needs none, and imports no torch."""
    if name != "auto":
        pick_device(name)


@cache
def package_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    from importlib import metadata  # a tenth of the time of a refused command

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
