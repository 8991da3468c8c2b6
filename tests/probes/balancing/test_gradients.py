"""How tasks agree on what they share is measured beside the training, and leaves it as it was."""

import pytest
import torch
from torch import nn

from permafrost.probes.balancing.gradients import EVERY_STEPS, gradient_cosines
from permafrost.probes.training import step
from tests.probes.training.test_resume_bits import SPEC, Pair


def losses_of(shared: nn.Parameter) -> dict[str, torch.Tensor]:
    """Gradients (1, 0), (-1, 1) and (0, 2)."""
    one, other = shared
    return {"a": one, "b": other - one, "c": 2 * other}


def test_the_cosine_of_each_two_tasks_is_that_of_their_gradients():
    shared = nn.Parameter(torch.tensor([3.0, 4.0]))
    found = gradient_cosines(losses_of(shared), [shared])
    assert found == pytest.approx({("a", "b"): -(0.5**0.5), ("a", "c"): 0.0, ("b", "c"): 0.5**0.5})
    assert shared.grad is None


def test_a_task_that_does_not_reach_what_is_shared_has_no_cosine_but_0():
    shared, own = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    assert gradient_cosines({"a": shared.sum(), "b": own.sum(), "c": torch.ones(1)}, [shared]) == {
        ("a", "b"): 0.0,
        ("a", "c"): 0.0,
        ("b", "c"): 0.0,
    }


def test_nothing_shared_or_one_task_has_nothing_to_agree_on():
    shared = nn.Parameter(torch.ones(2))
    assert gradient_cosines(losses_of(shared), []) == {}
    assert gradient_cosines({"a": shared.sum()}, [shared]) == {}


@pytest.mark.parametrize("balancer", ["equal", "uncertainty"])
def test_measuring_it_changes_no_weight(balancer, monkeypatch):
    measured, silent = Pair("joint", balancer), Pair("joint", balancer)
    log = measured.fit().log
    assert {line["epoch"] for line in log.conflicts} == {1, 2, 3, 4}
    monkeypatch.setattr(step, "gradient_cosines", lambda losses, shared: {})
    assert not silent.fit().log.conflicts
    for mine, theirs in zip(measured.weights(), silent.weights(), strict=True):
        assert torch.equal(mine, theirs)


def test_steps_of_one_task_have_nothing_to_compare():
    assert EVERY_STEPS > 1
    assert not Pair("round_robin").fit(SPEC).log.conflicts
