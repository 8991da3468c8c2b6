"""What a benchmark says of a process is said of that process alone."""

import json

import numpy as np
import pytest

from benchmarks import processes
from benchmarks.processes import measure


def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_started_it():
    held = np.ones(40_000_000)
    measured = measure(processes.peak_memory)
    assert processes.peak_memory() > held.nbytes
    assert measured.result <= measured.peak < held.nbytes / 2


def test_a_process_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"loads ended with 1:\n(.|\n)*JSONDecodeError"):
        measure(json.loads, "{")
