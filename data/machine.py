"""This machine and its software: processor, number types that it computes natively, versions of packages."""

import os
import platform
from functools import cache


def machine_name() -> str:
    """Return the processor architecture and the number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


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
