"""Environment of a run, for its record: package versions, git commit, host and machine."""

import contextlib
import platform
import subprocess
from pathlib import Path
from typing import Any

from permafrost.data.machine import machine_name, package_version

PACKAGES = ("permafrost", "torch", "transformers", "h5py", "numpy", "scipy", "pandas", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return the package versions, git commit, host name and machine of this process."""
    return {
        "versions": {"python": platform.python_version()} | {name: package_version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "machine": machine_name(),
    }


def _commit() -> str | None:
    folder = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        completed = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
        return completed.stdout.strip()
    return None
