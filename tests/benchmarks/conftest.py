"""Measured calls in the process of the test, for benchmarks whose arms each have a process of their own."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.processes import Measured

Measure = Callable[..., Measured]


@pytest.fixture
def in_process() -> Measure:
    """What stands in for benchmarks.processes.measure: it saves the imports of every arm."""

    def measure(function: Callable[..., Any], *arguments: Any) -> Measured:
        return Measured(result=function(*arguments), seconds=1.0, cpu_seconds=1.0, peak=1)

    return measure
