"""Work side by side: order, errors in their place, threads of torch that are divided and given back, none left."""

import threading
import time
from contextlib import closing

import pytest
import torch

from permafrost.data.device.side_by_side import run_side_by_side


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("side by side")]


def test_results_come_in_order_and_an_item_that_is_to_be_alone_is():
    running, most = set[int](), [0]

    def run(item: int) -> tuple[int, int, bool]:
        running.add(item)
        time.sleep(0.002 * (item % 3))
        if item % 5 == 4:
            assert running == {item}
        most[0] = max(most[0], len(running))
        running.remove(item)
        return item, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    found = list(run_side_by_side(run, range(40), 2, lambda item: item % 5 == 4))
    assert [item for item, _, _ in found] == list(range(40))
    assert all((threads, here) == ((4, True) if item % 5 == 4 else (2, False)) for item, threads, here in found)
    assert most[0] == 2
    assert torch.get_num_threads() == 4
    later = list[int]()
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [4], "a thread that begins later has them all"


def test_an_error_comes_in_its_place_and_little_runs_ahead():
    run = list[int]()

    def fail_at_ten(item: int) -> int:
        run.append(item)
        if item == 10:
            raise ArithmeticError("planted")
        return item

    results = run_side_by_side(fail_at_ten, range(1000), 3, lambda _: False)
    for item in range(10):
        assert next(results) == item
        assert len(run) <= item + 1 + 4
    with pytest.raises(ArithmeticError, match="planted"):
        next(results)


def test_what_is_closed_early_stops():
    with closing(run_side_by_side(lambda item: item, range(10**9), 2, lambda _: False)) as results:
        assert next(results) == 0
