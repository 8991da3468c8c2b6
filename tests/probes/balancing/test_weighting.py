"""Balancers: steps worked out by hand, a loss beside one 100 times as large, bounds, states that go on, refusals."""

import io
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError, parse, plain
from permafrost.probes.balancing.base import FORMS, Balancer
from permafrost.probes.balancing.gradients import projection_factors
from permafrost.probes.balancing.weighting import BALANCERS, make_balancer
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.objectives.losses import LOSSES, log_variance

COMPARING = [name for name, balancer in BALANCERS.items() if balancer.compares]
PLAIN = [name for name in BALANCERS if name not in COMPARING]


def shared_of(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float32))


def loss_of(value: float, gradient: Sequence[float], part: nn.Parameter) -> Tensor:
    """A loss of a given value and a given gradient by ``part``."""
    return value + (torch.tensor(gradient) * (part - part.detach())).sum()


def balancer_of(name: str, tasks: dict[str, str], part: nn.Parameter, **changes) -> Balancer:
    changes = {"weights": {task: 0.5 + place for place, task in enumerate(tasks)}} | changes
    return make_balancer(BalancingSpec(balancer=name, **changes), tasks, [part], True, torch.Generator().manual_seed(5))


def two(name: str, part: nn.Parameter, **changes) -> Balancer:
    return balancer_of(name, {"a": "mse", "b": "cross_entropy"}, part, **changes)


def close(found: Tensor | None, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6)


def test_equal_adds_the_gradients_up():
    part = shared_of(1, 1)
    step = two("equal", part).backward({"a": loss_of(7, [3, 4], part), "b": loss_of(2, [0, 1], part)}, [part])
    close(part.grad, 3, 5)
    assert (step.weights, step.cosines) == ({"a": 1, "b": 1}, {})


def test_fixed_weighs_them_as_the_recipe_says():
    part = shared_of(1, 1)
    balancer = two("fixed", part, weights={"b": 3.0, "a": 0.5})
    step = balancer.backward({"a": loss_of(7, [3, 4], part), "b": loss_of(2, [0, 1], part)}, [part])
    close(part.grad, 1.5, 5)  # half of (3, 4) and three times (0, 1)
    assert step.weights == {"a": 0.5, "b": 3}


def with_noise(part: nn.Parameter, tasks: dict[str, str], *noise: float) -> Balancer:
    """Uncertainty balancing with given task variances, sigma squared."""
    balancer = balancer_of("uncertainty", tasks, part)
    with torch.no_grad():
        for s, variance in zip(balancer.parameters(), noise, strict=True):
            s.fill_(math.log(variance))
    return balancer


def test_uncertainty_halves_the_precision_of_a_squared_error_and_takes_it_whole_for_classes():
    part = shared_of(0, 0)
    balancer = with_noise(part, {"a": "mse", "b": "cross_entropy"}, 2, 4)
    step = balancer.backward({"a": loss_of(4, [8, 0], part), "b": loss_of(0.5, [0, 8], part)}, [part])
    # 4 / (2 * 2) + log(2) / 2 and 0.5 / 4 + log(4) / 2
    close(part.grad, 2, 2)
    assert step.weights == pytest.approx({"a": 1 / 4, "b": 1 / 4})
    slopes = [s.grad.item() for s in balancer.parameters()]
    assert slopes == pytest.approx([-1 + 1 / 2, -1 / 8 + 1 / 2])


def test_a_log_variance_loss_is_balanced_on_its_variance():
    part = shared_of(0, 0)
    balancer = with_noise(part, {"a": "log_variance", "b": "mse"}, 2, 2)
    step = balancer.backward({"a": loss_of(math.log(0.5), [8, 0], part), "b": loss_of(0.5, [0, 8], part)}, [part])
    first, second = (s.grad.item() for s in balancer.parameters())
    assert first == pytest.approx(second)  # a variance of 0.5 and a squared error of 0.5 say the same of the noise
    assert first == pytest.approx(-0.5 / 4 + 1 / 2)
    assert step.weights["a"] == pytest.approx(0.5 / (2 * 2))
    close(part.grad, 8 / 8, 8 / 4)


def test_a_log_variance_loss_at_its_own_noise_weighs_one_half_however_small_it_is():
    for variance in (0.01, 1, 100):
        part = shared_of(0)
        balancer = with_noise(part, {"a": "log_variance"}, variance)
        balancer.backward({"a": loss_of(math.log(variance), [1], part)}, [part])
        close(part.grad, 0.5)
        assert next(balancer.parameters()).grad.item() == pytest.approx(0, abs=1e-6)  # the best noise for this loss


def noises(form: str, bounds: tuple[float, float], phases: Sequence[float]) -> list[list[float]]:
    """Task log-variance by step, 400 steps a phase, of predictions that fit their targets but for some noise."""
    generator = torch.Generator().manual_seed(0)
    target, prediction = torch.randn(32, generator=generator), nn.Parameter(torch.zeros(32))
    spec = BalancingSpec(balancer="uncertainty", learning_rate=0.1, bounds=bounds)
    balancer = make_balancer(spec, {"a": form}, [prediction], False, generator)
    optimizer = torch.optim.AdamW([{"params": [prediction], "lr": 0.05, "weight_decay": 0.0}, *balancer.groups()])
    seen: list[list[float]] = []
    for noise in phases:
        seen.append([])
        for _ in range(400):
            optimizer.zero_grad()
            wanted = target + noise * torch.randn(32, generator=generator)
            balancer.backward({"a": log_variance(prediction, wanted)}, [prediction])
            seen[-1].append(next(balancer.parameters()).item())
            optimizer.step()
    return seen


def test_task_log_variances_stay_between_their_bounds_and_come_back_from_them():
    ((*_, unbounded),) = noises("mse", (-60, 60), [0])  # the loss itself, in the place of its variance
    assert unbounded < -20
    perfect, noisy = noises("log_variance", (-5, 5), [0, 1])
    assert min(perfect) >= -5
    assert perfect[-1] == -5
    assert np.mean(noisy[-50:]) == pytest.approx(0, abs=0.7)  # the log of the noise's variance
    loud = noises("log_variance", (-5, 2), [30])[0]
    assert max(loud) == 2


def test_gradnorm_moves_the_weights_towards_gradients_of_one_length():
    part, rate = shared_of(1, 1), 0.1
    balancer = two("gradnorm", part, learning_rate=rate, alpha=1.5)
    step = balancer.backward({"a": loss_of(7, [3, 4], part), "b": loss_of(2, [0, 1], part)}, [part])
    close(part.grad, 3, 5)  # the first step weighs nothing yet
    assert step.weights == {"a": 1, "b": 1}
    assert step.cosines == {("a", "b"): pytest.approx(4 / 5)}
    # lengths 5 and 1, both targets 3: down by 5/3 and up by 1/3 of the rate, then scaled to add up to 2
    low, high = math.exp(-rate * 5 / 3), math.exp(rate * 1 / 3)
    close(balancer.weights, 2 * low / (low + high), 2 * high / (low + high))


def test_gradnorm_favours_the_task_that_lags_behind_by_the_power_alpha():
    part, rate, alpha = shared_of(1, 1), 0.1, 1.5
    balancer = two("gradnorm", part, learning_rate=rate, alpha=alpha)
    balancer.backward({"a": loss_of(8, [0, 1], part), "b": loss_of(2, [1, 0], part)}, [part])
    close(balancer.weights, 1, 1)  # of one length at the same progress: nothing to do
    part.grad = None
    step = balancer.backward({"a": loss_of(8, [0, 4], part), "b": loss_of(1, [2, 0], part)}, [part])
    # a has all of its loss left and b half: rates 1 / 0.75 and 0.5 / 0.75; lengths 4 and 2, mean 3
    targets = 3 * (4 / 3) ** alpha, 3 * (2 / 3) ** alpha  # 4.62 and 1.63
    assert targets[0] > 4
    assert targets[1] < 2
    high, low = math.exp(rate * 4 / 3), math.exp(-rate * 2 / 3)
    close(balancer.weights, 2 * high / (high + low), 2 * low / (high + low))
    assert step.cosines == {("a", "b"): 0}


def test_gradnorms_step_is_down_the_slope_of_its_own_loss():
    part, rate = shared_of(0, 0), 0.05
    balancer = two("gradnorm", part, learning_rate=rate, alpha=0.5)
    balancer.weights = torch.tensor([0.4, 1.6])
    balancer.initial = torch.tensor([5.0, 0.5])
    losses, gradients = torch.tensor([4.0, 0.1]), torch.tensor([[3.0, -1.0], [0.5, 0.5]])
    tasks = zip("ab", losses.tolist(), gradients.tolist(), strict=True)
    balancer.backward({task: loss_of(value, gradient, part) for task, value, gradient in tasks}, [part])

    logs = torch.tensor([0.4, 1.6]).log().requires_grad_()
    lengths = logs.exp() * gradients.norm(dim=1)
    left = losses / torch.tensor([5.0, 0.5])
    target = lengths.detach().mean() * (left / left.mean()) ** 0.5
    ((lengths - target).abs().sum() / lengths.detach().mean()).backward()
    moved = (logs.detach() - rate * logs.grad).exp()
    torch.testing.assert_close(balancer.weights, 2 * moved / moved.sum())
    torch.testing.assert_close(part.grad, 0.4 * gradients[0] + 1.6 * gradients[1])


def test_gradnorms_weights_stay_positive_and_add_up_with_a_gradient_1000_times_the_other():
    part = shared_of(1, 1)
    balancer = two("gradnorm", part)
    for _ in range(600):
        balancer.backward({"a": loss_of(1, [1000, 0], part), "b": loss_of(1, [0, 1], part)}, [part])
        assert balancer.weights.min() > 0
        assert balancer.weights.sum().item() == pytest.approx(2)
        part.grad = None
    first, second = balancer.weights.tolist()
    assert 1000 * first == pytest.approx(second, rel=0.1)  # it steps to and fro about the balance


def test_gradnorm_measures_the_progress_of_a_log_variance_loss_by_its_variance():
    part = shared_of(0, 0)
    logs, plain_ones = (balancer_of("gradnorm", {"a": form, "b": "mse"}, part) for form in ("log_variance", "mse"))
    for variance, error in ((1, 4), (0.1, 2), (1e-4, 0.8)):
        for balancer, value in ((logs, math.log(variance)), (plain_ones, variance)):
            part.grad = None
            balancer.backward({"a": loss_of(value, [1, 0], part), "b": loss_of(error, [0, 1], part)}, [part])
        torch.testing.assert_close(logs.weights, plain_ones.weights)
    first, second = logs.weights.tolist()
    assert first < second - 0.01  # a has always the less left to learn


def test_a_first_loss_of_zero_does_not_count_as_the_first_for_gradnorm():
    part = shared_of(0, 0)
    balancer = two("gradnorm", part)
    for value, weights in ((0, (1, 1)), (0.5, (1, 1)), (0.25, (1.025, 0.975))):
        part.grad = None
        balancer.backward({"a": loss_of(1, [1, 0], part), "b": loss_of(value, [0, 1], part)}, [part])
        torch.testing.assert_close(balancer.weights, torch.tensor(weights, dtype=torch.float32), atol=1e-4, rtol=0)
    close(balancer.initial, 1, 0.5)


@pytest.mark.parametrize(
    ("gradients", "expected", "weights", "cosine"),
    [
        # (1, 0) becomes (1, 0) + (-1, 1) / 2, and (-1, 1) becomes (-1, 1) + (1, 0)
        (([1, 0], [-1, 1]), (0.5, 1.5), {"a": 2, "b": 1.5}, -1 / math.sqrt(2)),
        (([1, 0], [1, 1]), (2, 1), {"a": 1, "b": 1}, 1 / math.sqrt(2)),
        (([2, 0], [-6, 0]), (0, 0), {"a": 4, "b": 4 / 3}, -1),  # against each other nothing is left of either
        (([1, 2], [0, 0]), (1, 2), {"a": 1, "b": 1}, 0),
    ],
)
def test_pcgrad_takes_out_what_works_against_another_task_and_nothing_else(gradients, expected, weights, cosine):
    part = shared_of(0, 0)
    first, second = gradients
    losses = {"a": loss_of(1, first, part), "b": loss_of(1, second, part)}
    step = two("pcgrad", part).backward(losses, [part])
    close(part.grad, *expected)
    assert step.weights == pytest.approx(weights)
    assert step.cosines == {("a", "b"): pytest.approx(cosine)}


THREE = {"a": "mse", "b": "mse", "c": "mse"}


def test_pcgrad_with_three_tasks_leaves_the_one_alone_that_is_in_no_conflict():
    part = shared_of(0, 0, 0)
    gradients = {"a": [1, 0, 0], "b": [-1, 1, 0], "c": [0, 0, 2]}
    losses = {task: loss_of(1, gradient, part) for task, gradient in gradients.items()}
    step = balancer_of("pcgrad", THREE, part).backward(losses, [part])
    close(part.grad, 0.5, 1.5, 2)
    assert list(step.cosines) == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("width", [6, 2])  # of the four in a plane, one comes to point against what it was itself
def test_pcgrad_projects_gradients_one_after_another_in_a_drawn_order(width):
    gradients = torch.randn(4, width).double()
    draws, expected = torch.Generator().manual_seed(3), torch.zeros(width, dtype=torch.float64)
    for task in range(4):
        mine = gradients[task].clone()
        for other in torch.randperm(4, generator=draws).tolist():
            if other != task and mine @ gradients[other] < 0:
                mine -= (mine @ gradients[other]) / (gradients[other] @ gradients[other]) * gradients[other]
        expected += mine
    products = gradients @ gradients.T
    found = [projection_factors(products, torch.Generator().manual_seed(seed)) @ gradients for seed in (3, 3, 4)]
    torch.testing.assert_close(found[0], expected)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])  # several conflicts: the order matters


class Pair(nn.Module):
    """A narrow shared encoder and a head a task; the first task is in units ten times the second's, its loss 100 times.

    They want different things of the encoder: their targets are lines at 100 degrees to each other, and noise.
    """

    UNITS, DEGREES = {"large": 10.0, "small": 1.0}, (0.0, 100.0)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.encoder = nn.Linear(4, 2)
        self.heads = nn.ModuleDict({task: nn.Linear(2, 1) for task in self.UNITS})
        self.x = torch.randn(64, 4, generator=generator)
        noise = 0.3 * torch.randn(2, 64, generator=generator)
        lines = [self.x[:, :2] @ torch.tensor([math.cos(a), math.sin(a)]) for a in map(math.radians, self.DEGREES)]
        pairs = zip(self.UNITS.items(), lines, noise, strict=True)
        self.y = {task: unit * (line + drawn) / (line + drawn).std() for (task, unit), line, drawn in pairs}

    def losses(self) -> dict[str, Tensor]:
        code = torch.tanh(self.encoder(self.x))
        return {task: (head(code)[:, 0] - self.y[task]).square().mean() for task, head in self.heads.items()}


def unexplained(name: str, steps: int = 100) -> dict[str, float]:
    """Share of each task's variance that is missed after some steps on all rows."""
    torch.manual_seed(0)
    pair = Pair()
    shared = list(pair.encoder.parameters())
    spec = BalancingSpec(balancer=name, weights={"large": 0.02, "small": 1.98})
    balancer = make_balancer(spec, {"large": "mse", "small": "mse"}, shared, True, torch.Generator().manual_seed(0))
    model = {"params": list(pair.parameters()), "lr": 0.02, "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([model, *balancer.groups()])
    for _ in range(steps):
        optimizer.zero_grad()
        balancer.backward(pair.losses(), shared)
        optimizer.step()
    return {task: (loss / pair.y[task].var()).item() for task, loss in pair.losses().items()}


def test_the_made_up_losses_are_100_times_apart():
    large, small = (target.square().mean().item() for target in Pair().y.values())  # of a head that says 0
    assert large / small == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "equal"])
def test_equal_weights_starve_a_small_loss_and_every_balancer_does_better(name):
    equal, found = unexplained("equal"), unexplained(name)
    assert equal["small"] > 0.6  # after as many steps
    assert found["small"] < 0.75 * equal["small"]
    assert sum(found.values()) < sum(equal.values())  # and not at the other's expense
    assert found == unexplained(name)


def trained(name: str, steps: int, saved: bytes | None = None) -> tuple[list, bytes]:
    """Steps of three tasks with conflicting gradients, from the start or from what was saved."""
    torch.manual_seed(1)
    encoder = nn.Linear(5, 3)
    wanted = torch.randn(3, 5, 3) * torch.tensor([1.0, 10, 0.1])[:, None, None]
    shared = list(encoder.parameters())
    tasks = {"a": "mse", "b": "log_variance", "c": "mse"}
    spec = BalancingSpec(balancer=name, weights={"a": 1.0, "b": 2.0, "c": 0.5})
    balancer = make_balancer(spec, tasks, shared, True, torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW([{"params": shared, "lr": 0.05}, *balancer.groups()])
    parts = {"encoder": encoder, "balancer": balancer, "optimizer": optimizer}
    if saved:
        for key, state in torch.load(io.BytesIO(saved), weights_only=True).items():
            parts[key].load_state_dict(state)
    log = []
    for _ in range(steps):
        optimizer.zero_grad()
        code = encoder(torch.eye(5))
        errors = [code.flatten() - target.flatten() for target in wanted]
        losses = {"a": errors[0].square().mean(), "b": errors[1].var().log(), "c": errors[2].square().mean()}
        log.append(balancer.backward(losses, shared))
        optimizer.step()
    buffer = io.BytesIO()
    torch.save({key: part.state_dict() for key, part in parts.items()}, buffer)
    return log, buffer.getvalue()


@pytest.mark.parametrize("name", BALANCERS)
def test_a_saved_balancer_goes_on_as_if_it_had_never_stopped(name):
    whole, _ = trained(name, 12)
    first, saved = trained(name, 6)
    second, _ = trained(name, 6, saved)
    assert first + second == whole
    assert (len({tuple(step.weights.values()) for step in whole}) > 1) == (name not in ("equal", "fixed"))


@pytest.mark.parametrize("name", BALANCERS)
def test_a_tasks_own_parameters_learn_from_it_alone_and_shared_ones_from_all(name):
    part, own = shared_of(1, 1), {task: shared_of(2) for task in "ab"}
    balancer = two(name, part)
    code = (part * part).sum()  # one graph that both tasks go back through
    losses = {"a": (code * own["a"]).sum(), "b": (-3 * code * own["b"]).sum()}
    step = balancer.backward(losses, [part])
    weights = dict.fromkeys("ab", 1.0) if name == "pcgrad" else step.weights  # surgery is on what is shared
    close(own["a"].grad, 2 * weights["a"])
    close(own["b"].grad, -6 * weights["b"])
    expected = 4 * step.weights["a"] - 12 * step.weights["b"]
    close(part.grad, expected, expected)


@pytest.mark.parametrize("name", BALANCERS)
def test_the_loss_of_one_member_is_as_good_as_a_scalar(name):
    found = []
    for shape in ((), (1,)):
        part = shared_of(1, 1)
        losses = {"a": loss_of(3, [1, 0], part).reshape(shape), "b": loss_of(1, [-1, 2], part).reshape(shape)}
        found.append((two(name, part).backward(losses, [part]), part.grad.tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", BALANCERS)
def test_what_no_loss_reaches_or_is_frozen_gets_no_gradient(name):
    part, unused, frozen = shared_of(1, 1), shared_of(3), nn.Parameter(torch.ones(2), requires_grad=False)
    losses = {"a": (part * frozen).sum(), "b": part.sum()}
    two(name, part).backward(losses, [frozen, part, unused])
    assert part.grad is not None
    assert unused.grad is None
    assert frozen.grad is None


@pytest.mark.parametrize("name", BALANCERS)
def test_training_goes_on_once_all_that_is_shared_is_frozen(name):
    part, own = shared_of(1, 1), shared_of(2)
    balancer = two(name, part)
    balancer.backward({"a": loss_of(3, [1, 0], part), "b": loss_of(1, [0, 2], part)}, [part])
    part.requires_grad_(False)
    part.grad = None
    step = balancer.backward({"a": own.square().sum(), "b": part.sum()}, [part])  # b is frozen from end to end
    close(own.grad, 4 * step.weights["a"])
    assert part.grad is None
    assert all(math.isfinite(weight) for weight in step.weights.values())


@pytest.mark.parametrize("name", PLAIN)
def test_a_step_may_have_one_of_the_tasks_where_no_gradients_are_compared(name):
    part = shared_of(1, 1)
    balancer = two(name, part)
    step = balancer.backward({"b": loss_of(2, [0, 1], part)}, [part])
    assert list(step.weights) == ["b"]
    close(part.grad, 0, step.weights["b"])
    absent = [s.grad for s in balancer.parameters()][:1]
    assert absent in ([], [None])  # the log-variance of a stays as it is


@pytest.mark.parametrize("name", COMPARING)
def test_comparing_gradients_needs_joint_steps_tasks_and_something_shared_that_is_trained(name):
    part, generator = shared_of(1, 1), torch.Generator()
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    spec, tasks = BalancingSpec(balancer=name), {"a": "mse", "b": "span"}
    for shared in ([], [frozen]):
        with pytest.raises(SpecError, match=f"'{name}' compares .* nothing shared is trained; .* equal, fixed or unc"):
            make_balancer(spec, tasks, shared, True, generator)
    with pytest.raises(SpecError, match=f"'{name}' compares .* needs joint steps"):
        make_balancer(spec, tasks, [part], False, generator)
    with pytest.raises(SpecError, match="one task only"):
        make_balancer(spec, {"a": "mse"}, [part], True, generator)
    with pytest.raises(SpecError, match=f"'{name}' needs joint steps, one batch of every task in each; 'b' is not"):
        make_balancer(spec, tasks, [part], True, generator).backward({"a": loss_of(1, [1, 1], part)}, [part])


def test_what_is_learnt_with_the_model_has_a_rate_of_its_own_and_no_decay():
    groups = two("uncertainty", shared_of(1), learning_rate=0.5).groups()
    assert [(len(group.pop("params")), group) for group in groups] == [(2, {"lr": 0.5, "weight_decay": 0.0})]
    assert not any(two(name, shared_of(1)).groups() for name in BALANCERS if name != "uncertainty")


@pytest.mark.parametrize("name", PLAIN)
def test_the_others_need_nothing_shared(name):
    spec = BalancingSpec(balancer=name, weights={"a": 1.0})
    assert isinstance(make_balancer(spec, {"a": "mse"}, [], False, torch.Generator()), BALANCERS[name])


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"a": 1.0, "c": 1.0}, "no task 'c'. Known: a, b."), ({"a": 1.0}, "every task; balancing.weights lacks 'b'")],
)
def test_fixed_weights_must_name_the_tasks(weights, message):
    with pytest.raises(SpecError, match=message):
        two("fixed", shared_of(1), weights=weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balancer": "fixed"}, "needs the weight of every task"),
        ({"weights": {"a": 0.0}}, "the weight of 'a' must be positive and finite, got 0.0"),
        ({"weights": {"a": math.inf}}, "got inf"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"alpha": -1.0}, "alpha must not be negative, got -1.0"),
        ({"alpha": math.nan}, "alpha must not be negative, got nan"),
        ({"bounds": (1.0, 5.0)}, r"with 0, .* between, got \[1.0, 5.0\]"),
        ({"bounds": (0.0, 0.0)}, "bounds must be"),
        ({"bounds": (-math.inf, 5.0)}, "bounds must be finite"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        BalancingSpec(**changes)


def test_a_recipe_can_hold_the_settings():
    spec = BalancingSpec(balancer="fixed", weights={"topic": 0.5, "tone": 0.5}, bounds=(-3.0, 4.0))
    assert parse(BalancingSpec, plain(spec), "a recipe") == spec


def test_every_loss_has_a_form_to_be_balanced_in():
    assert set(FORMS) == set(LOSSES)
