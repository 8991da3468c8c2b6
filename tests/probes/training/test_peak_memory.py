"""Memory: what was taken and given back again is seen, and what was there before is not."""

import threading
import time

import numpy as np
import pytest

from permafrost.probes.training import peak_memory
from permafrost.probes.training.peak_memory import PeakMemory

LARGE = 100 << 20


def test_memory_that_was_given_back_counts():
    with PeakMemory() as peak:
        block = np.ones(LARGE, np.uint8)
        time.sleep(10 * peak_memory.EVERY_SECONDS)
        del block
    assert LARGE * 0.8 < peak.bytes < LARGE * 1.5


def test_the_last_moment_counts_however_short_it_was(monkeypatch):
    monkeypatch.setattr(peak_memory, "EVERY_SECONDS", 60)
    with PeakMemory() as peak:
        block = np.ones(LARGE, np.uint8)
    assert LARGE * 0.8 < peak.bytes < LARGE * 1.5
    del block


def test_what_was_there_before_does_not_count_nor_what_comes_after():
    before = np.ones(LARGE, np.uint8)
    with PeakMemory() as peak:
        time.sleep(3 * peak_memory.EVERY_SECONDS)
    found = peak.bytes
    after = np.ones(LARGE, np.uint8)
    time.sleep(3 * peak_memory.EVERY_SECONDS)
    assert peak.bytes == found < LARGE // 2
    assert before.sum() == after.sum()


def test_pages_of_a_mapped_file_do_not_count_and_what_is_written_in_memory_does(tmp_path):
    (tmp_path / "states").write_bytes(bytes(LARGE))
    with PeakMemory() as peak:
        pages = np.memmap(tmp_path / "states", np.uint8, "r")
        assert pages.sum() == 0
        time.sleep(3 * peak_memory.EVERY_SECONDS)
    assert peak.bytes < LARGE // 2
    del pages


def test_what_was_measured_before_a_kill_counts_where_it_was_more():
    with PeakMemory() as peak:
        peak.previous_bytes = 50 * LARGE
    assert peak.bytes == 50 * LARGE
    with PeakMemory() as peak:
        block = np.ones(LARGE, np.uint8)
        peak.previous_bytes = 1
    assert peak.bytes > LARGE * 0.8
    del block


def test_the_watch_ends_with_what_it_watched_even_where_that_fails():
    threads, peak = threading.active_count(), PeakMemory()

    def fail() -> None:
        with peak:
            assert threading.active_count() == threads + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert threading.active_count() == threads
