"""Expected time: measured first, said once, and only where it is worth it."""

from contextlib import contextmanager

import pytest

from permafrost.data.progress import Eta


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    @contextmanager
    def bar(self, label, total):
        yield lambda steps: None


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr("permafrost.data.progress.time.monotonic", lambda: now[0])
    return now


def test_nothing_is_said_before_it_is_measured_and_then_once_in_proportion_to_what_is_left(clock):
    heard = Heard()
    expected = Eta(heard, total=1000, after=2, label="a training")
    expected.advance(5)
    clock[0] += 2
    expected.advance(5)
    assert heard.notes == []
    clock[0] += 0.5
    expected.advance(15)  # 25 in 2.5 seconds, and 975 are left
    assert heard.notes == ["expected time of a training: about 0:01:38"]
    clock[0] += 50
    expected.advance(100)
    assert len(heard.notes) == 1


def test_what_is_soon_over_is_not_announced_nor_later_on(clock):
    heard = Heard()
    expected = Eta(heard, total=30, after=1)
    clock[0] += 5
    expected.advance(10)  # 10 seconds more
    clock[0] += 500
    expected.advance(1)
    assert heard.notes == []


def test_without_a_name_the_time_is_said_alone(clock):
    heard = Heard()
    expected = Eta(heard, total=100, after=1)
    clock[0] += 60
    expected.advance(1)
    assert heard.notes == ["expected time: about 1:39:00"]


def test_work_that_came_to_nothing_tells_nothing_yet(clock):
    heard = Heard()
    expected = Eta(heard, total=100, after=1)
    clock[0] += 20
    expected.advance(0)
    clock[0] += 20
    expected.advance(10)
    assert heard.notes == ["expected time: about 0:06:00"]
