"""This machine and its software: processor, number types that it computes natively, versions of packages."""

import ctypes
import os
import platform
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from permafrost.data.spec import SpecError

PASSING_FACTS = ("processor", "cpu MHz", "bogomips", "apicid", "initial apicid", "core id", "physical id")
"""Lines of ``/proc/cpuinfo`` that change from time to time, or from one processor to the next."""


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
