"""A training that is killed at any step and begun again ends as one that was not, to the bit."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from permafrost.data.errors import CheckpointError
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.weighting import BALANCERS, make_balancer
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.layerwise import Dropout, LayerwiseLinear
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.loop import FitResult, fit
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.training.problem import TaskObjective, TrainingProblem

ROWS, WIDTH = 50, 6
SPEC = TrainSpec(epochs=4, batch_rows=8, learning_rate=0.02, patience=9)


class KilledError(Exception):
    """What a kill is to a test."""


class SharedBlocks(nn.Module):
    """Shared blocks with dropout of torch's own generator, as those of transformers are."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.dropout = nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dropout(self.map(x)))


class Head(nn.Module):
    """A head of one member whose dropout draws from a generator of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dropout, self.out = Dropout(0.2), LayerwiseLinear(1, WIDTH, 2)
        with torch.no_grad():
            self.out.weight.copy_(torch.randn(1, WIDTH, 2, generator=torch.Generator().manual_seed(seed)))
            self.out.bias.zero_()
        self.dropout.generators = [(torch.Generator().manual_seed(seed), 1)]

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.out(self.dropout(x[None]))
        return said


class Pair:
    """Two tasks on shared blocks; it can be told to die in a step."""

    def __init__(self, order: str = "joint", balancer: str = "equal", dies_in: int | None = None, private=True) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(2 * ROWS, WIDTH, generator=generator)
        self.y = {task: (self.x @ torch.randn(WIDTH, generator=generator) > 0).long() for task in ("a", "b")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.modules = {"backbone": SharedBlocks(), "a": Head(2), "b": Head(3)}
        self.order, self.balancer, self.dies_in, self.private = order, balancer, dies_in, private
        self.steps = 0
        self.seen: list[tuple[str, list[int]]] = []

    def objective(self, task: str, rows: int) -> TaskObjective:
        def logits(rows: np.ndarray | slice) -> Tensor:
            return self.modules[task](self.modules["backbone"](self.x[rows]))

        def loss(rows: np.ndarray) -> Tensor:
            self.steps += 1
            if self.steps == self.dies_in:
                raise KilledError
            self.seen.append((task, rows[0].tolist()))
            return nn.functional.cross_entropy(logits(rows[0])[0], self.y[task][rows[0]])[None]

        def validate() -> dict[str, np.ndarray]:
            said = logits(slice(ROWS, None)).argmax(-1)
            return {"accuracy": (said == self.y[task][ROWS:]).double().mean(1).numpy()}

        return TaskObjective(loss=loss, validate=validate, rows=rows, batch_rows=SPEC.batch_rows)

    def problem(self) -> TrainingProblem:
        member_of = {
            f"{name}.{part}": torch.zeros(len(value), dtype=torch.int64)
            for name, module in self.modules.items()
            for part, value in module.named_parameters()
        }
        objectives = {"a": self.objective("a", ROWS), "b": self.objective("b", ROWS // 2)}
        weights = {"a": 1.0, "b": 2.0} if self.balancer == "fixed" else {}
        balancer = make_balancer(
            BalancingSpec(balancer=self.balancer, weights=weights),  # type: ignore[arg-type]
            dict.fromkeys(objectives, "cross_entropy"),
            self.modules["backbone"].parameters(),
            self.order == "joint",
            torch.Generator().manual_seed(5),
        )
        return TrainingProblem(
            modules=self.modules,
            member_of=member_of,
            objectives=objectives,
            order=self.order,
            temperature=2.0,
            balancer=balancer,
            shared=("backbone",),
            private=self.private,  # type: ignore[arg-type]
        )

    def fit(
        self, spec: TrainSpec = SPEC, checkpoint: Checkpoint | None = None, peak: PeakMemory | None = None
    ) -> FitResult:
        return fit(self.problem(), spec, [0], checkpoint=checkpoint, peak=peak)

    def weights(self) -> list[Tensor]:
        return [part.detach().clone() for module in self.modules.values() for part in module.parameters()]


def kept(path: Path, **origin) -> Checkpoint:
    return Checkpoint(path / "one.safetensors", {"recipe": 1} | origin, 0.0)


def assert_same(first: tuple[Pair, FitResult], second: tuple[Pair, FitResult]) -> None:
    (one, result), (other, again) = first, second
    assert result.histories == again.histories
    assert result.log == again.log
    for task in ("a", "b"):
        result.restore(task)
        again.restore(task)
        for mine, theirs in zip(one.weights(), other.weights(), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("dies_in", [4, 9, 16, 27])
@pytest.mark.parametrize("order", ["joint", "round_robin", "proportional", "temperature"])
def test_a_killed_training_resumed_ends_as_one_that_was_not_killed(order, dies_in, tmp_path):
    whole, killed, resumed = Pair(order), Pair(order, dies_in=dies_in), Pair(order)
    expected = whole.fit()
    with pytest.raises(KilledError):
        killed.fit(checkpoint=kept(tmp_path))
    found = resumed.fit(checkpoint=kept(tmp_path))
    assert resumed.steps < whole.steps  # it went on, and did not begin anew
    assert killed.seen + resumed.seen == whole.seen or killed.seen[:-1] + resumed.seen == whole.seen
    assert_same((whole, expected), (resumed, found))


@pytest.mark.parametrize("balancer", list(BALANCERS))
def test_what_a_balancer_has_learnt_goes_on_too(balancer, tmp_path):
    whole, killed, resumed = (Pair("joint", balancer, dies) for dies in (None, 21, None))
    expected = whole.fit()
    with pytest.raises(KilledError):
        killed.fit(checkpoint=kept(tmp_path))
    assert_same((whole, expected), (resumed, resumed.fit(checkpoint=kept(tmp_path))))


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": {"a": 1}},
        {"freeze": {"backbone": "converged"}, "converged": 0.2},
        {"freeze": {"backbone": 2, "b.out": 1}},
        {"rates": {"backbone": 1e-3, "a.out.bias": 0.1}},
        {"patience": 1},
    ],
)
@pytest.mark.parametrize("private", [True, False])
def test_what_is_frozen_and_what_was_best_goes_on_too(changes, private, tmp_path):
    spec = replace(SPEC, **changes)
    whole, killed, resumed = (Pair("round_robin", dies_in=dies, private=private) for dies in (None, 24, None))
    expected = whole.fit(spec)
    with pytest.raises(KilledError):
        killed.fit(spec, kept(tmp_path))
    assert_same((whole, expected), (resumed, resumed.fit(spec, kept(tmp_path))))


def test_a_finished_training_is_not_trained_again(tmp_path):
    first, second = Pair(), Pair()
    expected = first.fit(checkpoint=kept(tmp_path))
    found = second.fit(checkpoint=kept(tmp_path))
    assert second.steps == 0
    assert_same((first, expected), (second, found))


@pytest.mark.parametrize("dies_in", [None, 27])
def test_the_memory_that_was_measured_before_goes_on_too(dies_in, tmp_path):
    first, second = PeakMemory(), PeakMemory()
    first.previous_bytes = 12345
    if dies_in:
        with pytest.raises(KilledError):
            Pair(dies_in=dies_in).fit(checkpoint=kept(tmp_path), peak=first)
    else:
        Pair().fit(checkpoint=kept(tmp_path), peak=first)
    Pair().fit(checkpoint=kept(tmp_path), peak=second)
    assert second.bytes == 12345


def one_number(tree: object, path: Sequence[str]) -> None:
    """Have a tensor of a state be of one number, which would fit in any place."""
    *above, last = path
    for key in above:
        tree = tree[key]  # type: ignore[index]
    tree[last] = torch.zeros(1)  # type: ignore[index]


@pytest.mark.parametrize(
    "path",
    [("weights", "backbone.map.weight"), ("optimizer", "0", "exp_avg"), ("bests", "a", "weights", "a.out.weight")],
)
def test_a_state_of_other_shapes_is_refused(path, tmp_path):
    with pytest.raises(KilledError):
        Pair(dies_in=9).fit(checkpoint=kept(tmp_path))
    state = kept(tmp_path).load()
    one_number(state, path)
    kept(tmp_path).save(state)
    with pytest.raises(CheckpointError, match=r"does not fit this training \(ValueError\); remove it to start over"):
        Pair().fit(checkpoint=kept(tmp_path))


def test_a_state_sets_nothing_but_what_it_is_to_hold(tmp_path):
    with pytest.raises(KilledError):
        Pair(dies_in=9).fit(checkpoint=kept(tmp_path))
    state = kept(tmp_path).load()
    state["bests"]["a"]["after"] = 3
    kept(tmp_path).save(state)
    whole, resumed = Pair(), Pair()
    assert_same((whole, whole.fit()), (resumed, resumed.fit(checkpoint=kept(tmp_path))))


def test_a_checkpoint_of_another_recipe_is_refused_and_left(tmp_path):
    with pytest.raises(KilledError):
        Pair(dies_in=9).fit(checkpoint=kept(tmp_path))
    with pytest.raises(CheckpointError, match="is of another training"):
        Pair().fit(checkpoint=kept(tmp_path, recipe=2))
    assert (tmp_path / "one.safetensors").is_file()


def test_a_short_training_is_kept_once_it_is_finished_and_never_trained_again(tmp_path, monkeypatch):
    saved, save = [], Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: saved.append(self.path) or save(self, state))
    pair = Pair()
    result = pair.fit(checkpoint=Checkpoint(tmp_path / "one.safetensors", {}, 60.0))
    assert saved == [tmp_path / "one.safetensors"]
    other = Pair(dies_in=1)
    again = other.fit(checkpoint=Checkpoint(tmp_path / "one.safetensors", {}, 60.0))
    assert (pair.steps > 0, other.steps) == (True, 0)
    assert_same((pair, result), (other, again))


def test_a_loss_that_is_no_number_is_told_by_task_and_step():
    pair = Pair("round_robin")
    problem = pair.problem()
    wrong = replace(problem.objectives["b"], loss=lambda rows: pair.modules["b"].out.weight.sum()[None] * math.nan)
    with pytest.raises(SpecError, match=r"b: the training loss became nan in step 2 of 44; lower train.learning_rate"):
        fit(replace(problem, objectives=problem.objectives | {"b": wrong}), SPEC, [0])
