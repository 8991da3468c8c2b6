"""CPU time of ``run sts`` from the start of the process until training begins, if all latents are stored.

    python -m benchmarks.commands.warm_start --only two-views

The time to import torch is taken apart. The first round extracts what is not stored in ``--cache``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from permafrost.data.machine import machine_name, package_version


class TrainingBegins(BaseException):
    """Raised in place of the first training."""


def seconds() -> float:
    """CPU time of this process, of its threads and of the system for it."""
    spent = os.times()
    return spent.user + spent.system


def measure(only: list[str], settings: list[str]) -> tuple[float, float]:
    """Return the CPU time in seconds until torch is imported, and from then until training begins."""
    import torch  # noqa: F401

    imported = seconds()
    from permafrost import api
    from permafrost.cli import main  # noqa: F401
    from permafrost.probes.variants import train_group

    def begin(*_: Any, **__: Any) -> NoReturn:
        raise TrainingBegins

    train_group.fit = begin  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as runs:
        try:
            api.run("sts", settings, Path(runs), only=only)
        except TrainingBegins:
            return imported, seconds() - imported
    raise AssertionError("no training began")


def main() -> None:
    """Print one line per round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="two-views", help="variants, with commas; empty for all")
    parser.add_argument("--set", action="append", default=[], help="settings of the recipe")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(*measure([name for name in options.only.split(",") if name], options.set))
        return
    print(f"{machine_name()}, torch {package_version('torch')}")
    print(f"{'round':>5}{'torch, CPU s':>16}{'until training, CPU s':>25}")
    command = [sys.executable, "-m", "benchmarks.commands.warm_start", "--child", "--only", options.only]
    for number in range(1, options.rounds + 1):
        settings = [word for setting in options.set for word in ("--set", setting)]
        torch_seconds, others = map(float, subprocess.check_output([*command, *settings], text=True).split())
        print(f"{number:5}{torch_seconds:16.2f}{others:25.2f}")


if __name__ == "__main__":
    main()
