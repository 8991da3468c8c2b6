"""A pipeline gives what its stages make, in order, with bounded queues; an error comes once, and no thread is left."""

import threading
from collections.abc import Iterator

import pytest

from permafrost.data.device.pipeline import Pipeline

STAGES = 3


class StageError(Exception):
    pass


def alive() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("stage ")}


def run(pipeline: Pipeline, items: Iterator[int], failing: int | None = None, at: int = 5) -> Iterator[int]:
    """Three stages that add one each; one may fail at an item."""

    def add(number: int, before: Iterator[int]) -> Iterator[int]:
        for item in before:
            if number == failing and item == at + number:
                raise StageError(number)
            yield item + 1

    for number in range(STAGES):
        items = pipeline.stage(add(number, items))
    return items


@pytest.mark.parametrize("threads", [False, True])
def test_stages_on_threads_make_what_they_make_one_after_another(threads):
    with Pipeline(threads) as pipeline:
        found = list(run(pipeline, iter(range(200))))
        assert bool(alive()) <= threads
    assert found == [item + STAGES for item in range(200)]
    assert not alive()


@pytest.mark.parametrize("failing", range(STAGES))
@pytest.mark.parametrize("threads", [False, True])
def test_an_error_of_a_stage_comes_once_in_its_place_with_its_traceback(failing, threads):
    found = list[int]()

    def take() -> None:
        with Pipeline(threads) as pipeline:
            found.extend(run(pipeline, iter(range(100)), failing))

    with pytest.raises(StageError) as error:
        take()
    assert error.value.args == (failing,)
    assert "add" in [entry.name for entry in error.traceback], "where it was raised"
    assert found == [item + STAGES for item in range(5)]
    assert not alive()


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("kind", [StageError, KeyboardInterrupt])
def test_an_error_of_what_takes_the_items_ends_all_stages(kind, threads):
    endless = iter(range(10**9))

    def take() -> None:
        with Pipeline(threads) as pipeline:
            for item in run(pipeline, endless):
                if item == 9:
                    raise kind

    with pytest.raises(kind):
        take()
    assert not alive()
    made = next(endless)
    assert next(endless) == made + 1, "nothing is made any more"


def test_a_pipeline_that_is_left_at_once_leaves_no_thread():
    with Pipeline(threads=True) as pipeline:
        run(pipeline, iter(range(10**9)))
    assert not alive()


@pytest.mark.parametrize("most", [1, 3])
def test_no_stage_runs_further_ahead_than_its_queue(most):
    """Each of the three has an item in hand and ``most`` before the next; so has what makes the first ones."""
    made, taken, ahead = [0], 0, 0

    def items() -> Iterator[int]:
        for item in range(100):
            made[0] = item + 1
            yield item

    with Pipeline(threads=True, most=most) as pipeline:
        for _ in run(pipeline, items()):
            taken += 1
            ahead = max(ahead, made[0] - taken)
    assert ahead <= STAGES * (most + 1)
