"""This machine and its software: processor, number types that it computes natively, versions of packages."""

import ctypes
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

PASSING_FACTS = ("processor", "cpu MHz", "bogomips", "apicid", "initial apicid", "core id", "physical id")
"""Lines of ``/proc/cpuinfo`` that change from time to time, or from one processor to the next."""


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


def native_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices natively, by its flags and never by timing."""
    import torch  # the rest of this package does without torch

    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


@cache
def package_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed."""
    from importlib import metadata  # a tenth of the time of a refused command

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
