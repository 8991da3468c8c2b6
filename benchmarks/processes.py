"""Functions and commands in a process of their own, with its seconds and its peak memory.

    python -m benchmarks.processes MODULE FUNCTION ARGUMENTS

The peak is that of the resident set, to which pages of mapped files count. On Linux it is read from ``/proc``: what
``getrusage`` says begins with the memory of the process that started this one.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a function returned, and what its process cost."""

    result: Any
    seconds: float
    """From the start of the process to its end, imports included."""

    cpu_seconds: float
    """Of all threads, and of the system for them."""

    peak: int
    """Bytes."""


def measure(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a function of a module in a process of its own; arguments and result are written as JSON.

    Raises:
        RuntimeError: the process failed; the message is what it wrote to stderr.
    """
    module = function.__module__
    if module == "__main__":
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
    command = [sys.executable, "-m", __name__, module, function.__name__, json.dumps(arguments)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths})
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{function.__name__} ended with {done.returncode}:\n{done.stderr}")
    return Measured(seconds=seconds, **json.loads(done.stdout.splitlines()[-1]))


def command(*words: str) -> Any:
    """Run a command of permafrost with ``--json`` in this process; return the object that it prints."""
    from permafrost.cli.main import app

    with redirect_stdout(StringIO()) as printed:
        app([*words, "--json"], standalone_mode=False)
    return json.loads(printed.getvalue())


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def spread(values: Sequence[float] | np.ndarray, style: str = ".2f") -> str:
    """Median, and the lowest and the highest in brackets."""
    return f"{np.median(values):{style}} ({min(values):{style}}-{max(values):{style}})"


def main() -> None:
    """Call the function and print the result, CPU seconds and the peak as the last line."""
    module, name, arguments = sys.argv[1:]
    result = getattr(import_module(module), name)(*json.loads(arguments))
    spent = os.times()
    print()
    print(json.dumps({"result": result, "cpu_seconds": spent.user + spent.system, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
