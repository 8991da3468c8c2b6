"""Batches: which rows of which tasks each step takes, for every order."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from permafrost.data.spec import SpecError
from permafrost.probes.training.problem import Batches, TaskObjective, TrainingProblem, check_problem

SIZES = {"small": 7, "large": 20}
"""Rows; of 3 each, 3 and 7 batches."""


def objective(rows: int, batch_rows: int = 3, smallest: int = 1) -> TaskObjective:
    return TaskObjective(
        loss=lambda rows: None, validate=dict, rows=rows, batch_rows=batch_rows, smallest_batch=smallest
    )  # type: ignore[arg-type,return-value]


def problem(order: str = "joint", temperature: float = 1.0, **sizes: int) -> TrainingProblem:
    objectives = {task: objective(rows) for task, rows in (sizes or SIZES).items()}
    return TrainingProblem(
        modules={}, member_of={"a": None}, objectives=objectives, order=order, temperature=temperature
    )  # type: ignore[arg-type,dict-item]


def epochs(order: str, count: int = 2, seeds: tuple[int, ...] = (0,), **more) -> list[list[dict[str, np.ndarray]]]:
    batches = Batches(problem(order, **more), seeds)
    made = [list(batches.epoch()) for _ in range(count)]
    assert {len(steps) for steps in made} == {batches.steps}
    return made


def rows_of(steps: list[dict[str, np.ndarray]], task: str) -> list[int]:
    return [row for step in steps if task in step for row in step[task][0].tolist()]


def test_joint_steps_have_a_batch_of_every_task_and_the_shorter_begins_anew_within_the_epoch():
    for steps in epochs("joint"):
        assert len(steps) == 7
        assert all(set(step) == set(SIZES) for step in steps)
        assert sorted(rows_of(steps, "large")) == list(range(20))
        small = rows_of(steps, "small")
        assert sorted(small[:7]) == sorted(small[7:14]) == list(range(7))
        assert small[:7] != small[7:14]  # an order of its own each time
        assert len(small) == 14 + 3


def test_turns_take_one_task_after_the_other_and_then_what_is_left():
    for steps in epochs("round_robin"):
        assert [task for step in steps for task in step] == ["small", "large"] * 3 + ["large"] * 4
        for task, rows in SIZES.items():
            assert sorted(rows_of(steps, task)) == list(range(rows))


def test_proportion_visits_every_batch_once_an_epoch_in_an_order_that_is_drawn():
    first, second = epochs("proportional")
    for steps in (first, second):
        assert all(len(step) == 1 for step in steps)
        for task, rows in SIZES.items():
            assert sorted(rows_of(steps, task)) == list(range(rows))
    assert [list(step) for step in first] != [list(step) for step in second]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_temperature_draws_tasks_by_their_batches_to_the_power_of_its_inverse(temperature):
    made = epochs("temperature", 300, temperature=temperature)
    drawn = Counter(task for steps in made for step in steps for task in step)
    expected = 3 ** (1 / temperature) / (3 ** (1 / temperature) + 7 ** (1 / temperature))
    total = drawn.total()
    assert total == 300 * 10
    assert drawn["small"] / total == pytest.approx(expected, abs=4 * np.sqrt(0.25 / total))  # four deviations
    assert expected > 0.29  # 3 / 10 where nothing is flattened


def test_a_higher_temperature_takes_more_of_the_smaller_task():
    shares = []
    for temperature in (1.0, 3.0, 1000.0):
        made = epochs("temperature", 200, temperature=temperature)
        shares.append(sum("small" in step for steps in made for step in steps) / 2000)
    assert shares[0] < shares[1] < shares[2] < 0.55
    assert shares[1] > shares[0] + 0.05


@pytest.mark.parametrize("order", ["joint", "round_robin", "proportional", "temperature"])
def test_a_seed_settles_all_and_another_changes_it(order):
    first, again, other = (epochs(order, seeds=(seed,)) for seed in (3, 3, 4))

    def flat(made):
        return [(task, rows.tolist()) for steps in made for step in steps for task, rows in step.items()]

    assert flat(first) == flat(again)
    assert flat(first) != flat(other)


def test_tasks_of_as_many_rows_are_shuffled_apart():
    (steps,) = epochs("joint", 1, one=12, two=12)
    assert rows_of(steps, "one") != rows_of(steps, "two")


def test_a_task_alone_has_the_orders_of_its_seeds_whatever_the_order_of_tasks():
    generators = [np.random.default_rng(seed) for seed in (2, 5)]
    expected = [np.stack([one.permutation(20) for one in generators]) for _ in range(2)]
    for order in ("joint", "round_robin", "proportional"):
        made = epochs(order, seeds=(5, 2, 5), only=20)
        for steps, rows in zip(made, expected, strict=True):
            np.testing.assert_array_equal(np.concatenate([step["only"] for step in steps], 1), rows)


@pytest.mark.parametrize("order", ["joint", "round_robin", "proportional", "temperature"])
def test_batches_go_on_from_a_state_as_they_would_have(order):
    batches = Batches(problem(order, 2.0), (1,))
    list(batches.epoch())
    state = batches.state_dict()
    expected = list(batches.epoch())
    other = Batches(problem(order, 2.0), (1,))
    other.load_state_dict(state)
    for mine, theirs in zip(expected, other.epoch(), strict=True):
        assert list(mine) == list(theirs)
        for task in mine:
            np.testing.assert_array_equal(mine[task], theirs[task])


def test_a_batch_too_small_for_its_loss_joins_the_one_before():
    assert objective(7, 3, smallest=2).bounds == [(0, 3), (3, 7)]
    assert objective(8, 3, smallest=2).bounds == [(0, 3), (3, 6), (6, 8)]


def test_too_few_rows_are_told_by_task_where_there_are_several():
    both = problem(a=5, b=1)
    few = {task: replace(one, smallest_batch=2) for task, one in both.objectives.items()}
    with pytest.raises(SpecError, match=r"^b: 1 training rows are too few: this loss needs 2 in a batch\.$"):
        check_problem(replace(both, objectives=few))
    with pytest.raises(SpecError, match=r"^1 training rows are too few"):
        check_problem(replace(both, objectives={"b": few["b"]}))
