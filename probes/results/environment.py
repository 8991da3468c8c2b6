"""The environment of a run: versions, commit, host and machine."""

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("permafrost", "torch", "transformers", "h5py", "numpy", "scipy", "pandas", "scikit-learn")


def environment() -> dict[str, Any]:
    """With which versions, of which commit and on which machine this process runs."""
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
        return said.stdout.strip()
    return None
