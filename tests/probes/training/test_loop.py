"""fit(): it learns, repeats itself to the bit, and keeps every member apart: its order, norm, best epoch and stop."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from permafrost.data.spec import SpecError
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.layerwise import LayerwiseLinear
from permafrost.probes.objectives.losses import LOSSES, log_variance
from permafrost.probes.training.best_state import History
from permafrost.probes.training.loop import fit
from permafrost.probes.training.problem import TaskObjective, TrainingProblem, order_indices
from permafrost.probes.training.step import StepRunner, clip_by_member

ROWS, WIDTH = 200, 8
SPEC = TrainSpec(epochs=20, batch_rows=16, learning_rate=0.02)


class Toy:
    """Classes that a linear map can tell apart, and a map for each member, drawn from its seed."""

    def __init__(self, seeds: tuple[int, ...] = (0,)) -> None:
        generator = torch.Generator().manual_seed(99)
        self.seeds = seeds
        self.x = torch.randn(2 * ROWS, WIDTH, generator=generator)
        self.y = (self.x @ torch.randn(WIDTH, generator=generator) > 0).long()
        self.probe = LayerwiseLinear(len(seeds), WIDTH, 2)
        for place, seed in enumerate(seeds):
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.probe.weight[place] = torch.randn(WIDTH, 2)
                self.probe.bias[place] = 0
        self.seen: list[np.ndarray] = []

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        self.seen.append(rows)
        rows = rows[order_indices(self.seeds)]
        logits = self.probe(self.x[rows])
        return LOSSES["cross_entropy"](logits, self.y[rows])

    def validate(self) -> np.ndarray:
        logits = self.probe(self.x[ROWS:].expand(len(self.seeds), -1, -1))
        return (logits.argmax(-1) == self.y[ROWS:]).double().mean(1).numpy()

    def problem(self, **changes) -> TrainingProblem:
        members = torch.arange(len(self.seeds))
        objective = {name: changes.pop(name) for name in list(changes) if name in ("loss", "rows", "smallest_batch")}
        validate = changes.pop("validate", self.validate)
        whole = TaskObjective(
            loss=self.loss,
            validate=lambda: {"accuracy": validate()},
            rows=ROWS,
            batch_rows=changes.pop("batch_rows", SPEC.batch_rows),
        )
        member_of = {"toy.weight": members, "toy.bias": members}
        return replace(
            TrainingProblem(
                modules={"toy": self.probe}, member_of=member_of, objectives={"": replace(whole, **objective)}
            ),
            **changes,
        )

    def fit(self, spec: TrainSpec = SPEC, **changes) -> list[History]:
        return fit(self.problem(batch_rows=spec.batch_rows, **changes), spec, self.seeds).histories[""]


def fitted_of(spec: TrainSpec = SPEC, seed: int = 0, **changes) -> tuple[Toy, History]:
    toy = Toy((seed,))
    return toy, toy.fit(spec, **changes)[0]


def test_a_toy_is_learnt_far_beyond_chance():
    toy, fitted = fitted_of()
    assert fitted.best_value > 0.9  # chance is about one half
    assert fitted.losses[-1] < fitted.losses[0] / 2
    assert not toy.probe.training


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_does_not():
    (first, history), (second, again), (other, _) = fitted_of(seed=3), fitted_of(seed=3), fitted_of(seed=4)
    assert history == again
    assert torch.equal(first.probe.weight, second.probe.weight)
    assert not torch.equal(first.probe.weight, other.probe.weight)


@pytest.mark.parametrize("seeds", [(3, 4, 5), (3, 3, 4)])
def test_members_side_by_side_end_as_each_ends_alone(seeds):
    together = Toy(seeds)
    found = together.fit()
    for place, seed in enumerate(seeds):
        alone, fitted = fitted_of(seed=seed)
        torch.testing.assert_close(together.probe.weight[place], alone.probe.weight[0], rtol=1e-5, atol=1e-5)
        assert found[place].best_epoch == fitted.best_epoch
        assert found[place].values == fitted.values
        assert found[place].losses == pytest.approx(fitted.losses, rel=1e-5)


def following(*lines: list[float]):
    """A validation that says, epoch by epoch, what each member is to be given."""
    epochs = iter(zip(*lines, strict=True))
    return lambda: np.array(next(epochs))


def test_the_weights_of_the_best_epoch_are_restored_for_every_member():
    toy, weights = Toy((0, 1)), []
    said = following([0.1, 0.2, 0.9, 0.3, 0.9], [0.5, 0.8, 0.1, 0.7, 0.1])

    def validate() -> np.ndarray:
        weights.append(toy.probe.weight.detach().clone())
        return said()

    first, second = toy.fit(replace(SPEC, epochs=5), validate=validate)
    assert (first.best_epoch, first.best_value) == (2, 0.9)  # of two equal epochs the first
    assert (second.best_epoch, second.best_value) == (1, 0.8)
    assert torch.equal(toy.probe.weight[0], weights[2][0])
    assert torch.equal(toy.probe.weight[1], weights[1][1])
    assert not torch.equal(weights[1], weights[2])


def test_training_stops_when_patience_is_over():
    _, fitted = fitted_of(replace(SPEC, patience=3), validate=following([0.5, 0.6, 0.1, 0.2, 0.3, 0.9]))
    assert fitted.values == (0.5, 0.6, 0.1, 0.2, 0.3)


def test_a_member_stops_by_its_own_patience_and_what_follows_is_not_its_own():
    lines = [0.5, 0.4, 0.3, 0.9, 0.9, 0.9], [0.1, 0.2, 0.3, 0.2, 0.3, 0.1]
    first, second = Toy((0, 1)).fit(replace(SPEC, patience=2), validate=following(*lines))
    assert (first.best_epoch, first.values) == (0, (0.5, 0.4, 0.3))  # the 0.9 came after its stop
    assert len(first.losses) == 3
    assert (second.best_epoch, second.values) == (2, (0.1, 0.2, 0.3, 0.2, 0.3))


def test_a_metric_that_never_exists_is_never_the_best():
    nothing = [math.nan] * 20
    first, second = Toy((0, 1)).fit(validate=following(nothing, [math.nan, 0.2, *nothing[2:]]))
    assert (first.best_epoch, first.best_value) == (-1, -math.inf)
    assert (second.best_epoch, second.best_value) == (1, 0.2)


class Two(nn.Module):
    """Two members with a weight of one number each and one of three."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(4, 3))
        self.untouched = nn.Parameter(torch.zeros(2))


def clipped(first: list[float], largest: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients after clipping: those of the first member are given, the second's are (0.3, 0 ... 0.4)."""
    module = Two()
    module.one.grad = torch.tensor([[first[0]], [0.3]])
    module.three.grad = torch.zeros(4, 3)
    module.three.grad[0, 0], module.three.grad[2, 2], module.three.grad[3, 1] = first[1], first[2], 0.4
    member_of = {"one": torch.arange(2), "three": torch.tensor([0, 1, 0, 1]), "untouched": torch.arange(2)}
    problem = TrainingProblem(
        modules={"two": module},
        member_of={f"two.{name}": owner for name, owner in member_of.items()},
        objectives={},
    )
    clip_by_member(problem.owned_parameters(), largest, 2)
    return module.one.grad, module.three.grad


def test_the_gradient_of_a_member_is_clipped_by_its_own_norm_over_all_its_parameters():
    one, three = clipped([2.0, 6.0, 9.0])  # of norm 11
    assert one.flatten().tolist() == pytest.approx([2 / 11, 0.3])
    assert three[[0, 2, 3], [0, 2, 1]].tolist() == pytest.approx([6 / 11, 9 / 11, 0.4])


def test_a_gradient_within_its_norm_is_left_to_the_bit():
    one, three = clipped([0.2, 0.6, 0.7])
    assert torch.equal(one, torch.tensor([[0.2], [0.3]]))
    assert torch.equal(three[[0, 2, 3], [0, 2, 1]], torch.tensor([0.6, 0.7, 0.4]))


def test_the_norm_of_a_member_alone_is_clipped_as_torch_clips_it():
    toy = Toy()
    (100 * toy.loss(np.arange(16)[None]).sum()).backward()
    expected = [part.grad.clone() for part in toy.probe.parameters()]
    torch.nn.utils.clip_grads_with_norm_(toy.probe.parameters(), 0.5, torch.nn.utils.get_total_norm(expected))
    torchs = [part.grad.clone() for part in toy.probe.parameters()]
    for part, gradient in zip(toy.probe.parameters(), expected, strict=True):
        part.grad = gradient.clone()
    clip_by_member(toy.problem().owned_parameters(), 0.5, 1)
    for part, gradient in zip(toy.probe.parameters(), torchs, strict=True):
        torch.testing.assert_close(part.grad, gradient)
        assert not torch.equal(part.grad, 0 * gradient)


def test_a_state_of_another_device_goes_on_with_generators_that_it_decides():
    seen = []
    for _ in range(2):
        toy = Toy()
        runner = StepRunner(toy.problem(), SPEC, 1)
        state = runner.state_dict()
        assert state["device"] == "cpu"
        with torch.random.fork_rng(devices=[]):
            runner.load_state_dict(state | {"device": "cuda", "torch": torch.arange(16, dtype=torch.uint8)})
            seen.append(torch.rand(3))
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    ("rows", "size", "smallest", "sizes"),
    [
        (10, 4, 1, [4, 4, 2]),
        (9, 4, 1, [4, 4, 1]),
        (9, 4, 2, [4, 5]),  # a last row alone has no variance
        (10, 4, 2, [4, 4, 2]),
        (5, 1, 2, [2, 3]),
        (3, 64, 2, [3]),
    ],
)
def test_batches_hold_every_row_once_and_none_is_too_small(rows, size, smallest, sizes):
    toy = Toy().problem().objectives[""]
    bounds = replace(toy, rows=rows, batch_rows=size, smallest_batch=smallest).bounds
    assert [end - start for start, end in bounds] == sizes
    assert [row for start, end in bounds for row in range(start, end)] == list(range(rows))


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    toy, _ = fitted_of(replace(SPEC, epochs=2, batch_rows=50))
    first, second = np.concatenate(toy.seen[:4], 1), np.concatenate(toy.seen[4:], 1)
    assert sorted(first[0]) == sorted(second[0]) == list(range(ROWS))
    assert first.tolist() != second.tolist()


def test_every_seed_draws_an_order_of_its_own_whoever_it_is_beside():
    toy, alone = Toy((4, 3, 4)), Toy((3,))
    for one in (toy, alone):
        one.fit(replace(SPEC, epochs=2))
    orders = np.concatenate(toy.seen, 1)
    assert orders.shape[0] == 2  # members of one seed share theirs
    assert order_indices(toy.seeds).tolist() == [1, 0, 1]
    np.testing.assert_array_equal(orders[0], np.concatenate(alone.seen, 1)[0])
    assert orders[0].tolist() != orders[1].tolist()


def test_a_small_last_batch_does_not_stop_log_variance():
    toy = Toy()
    target = toy.y.float()

    def loss(rows: np.ndarray) -> torch.Tensor:
        return log_variance(toy.probe(toy.x[rows])[..., 0], target[rows])

    spec = replace(SPEC, epochs=2)
    (fitted,) = toy.fit(spec, loss=loss, rows=17, smallest_batch=2)
    assert np.isfinite(fitted.losses).all()
    with pytest.raises(SpecError, match="1 training rows are too few: this loss needs 2"):
        toy.fit(spec, loss=loss, rows=1, smallest_batch=2)


def test_nothing_to_train_is_refused():
    with pytest.raises(SpecError, match="there is nothing to train: an encoder 'none' under a mixer 'last'"):
        Toy().fit(member_of={})


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_the_way_out(wrong):
    toy = Toy((0, 1))
    with pytest.raises(
        SpecError, match=rf"the training loss became {wrong} in step 1 of 260; lower train\.learning_rate"
    ):
        toy.fit(loss=lambda rows: toy.loss(rows) * torch.tensor([1.0, wrong]))


def test_the_rate_rises_over_the_warm_up_and_then_falls():
    steps = []
    for epochs in (1, 2):  # 10 steps an epoch: of 20 steps the first moves by half the peak rate, of 10 by all of it
        toy = Toy()
        before = toy.probe.weight.detach().clone()
        moved = []

        def loss(rows, toy=toy, before=before, moved=moved):
            moved.append((toy.probe.weight.detach() - before).abs().max().item())
            return toy.loss(rows)

        toy.fit(TrainSpec(epochs=epochs, batch_rows=20, learning_rate=1e-3, weight_decay=0.0), loss=loss)
        steps.append(moved[1])
    assert steps == pytest.approx([1e-3, 0.5e-3], rel=1e-3)  # AdamW's first step is the rate itself


def test_the_epochs_are_told_and_what_the_listener_raises_ends_the_training():
    told = []

    def listen(epoch: int, value: float) -> None:
        told.append((epoch, value))
        if epoch == 2:
            raise StopIteration

    toy = Toy((0, 1))
    with pytest.raises(StopIteration):
        fit(toy.problem(validate=following([0.1, 0.2, 0.3], [0.9, 0.9, 0.9])), SPEC, (0, 1), after_epoch=listen)
    assert told == [(0, 0.1), (1, 0.2), (2, 0.3)]


@pytest.mark.parametrize(
    ("dtype", "native", "lowered"),
    [
        ("float32", "amx_bf16", False),
        ("bfloat16", "", True),
        ("auto", "", False),
        ("auto", "amx_bf16", True),
        ("auto", "avx512_bf16", True),
    ],
)
def test_products_are_in_bfloat16_where_it_is_asked_for_or_the_hardware_has_it(dtype, native, lowered, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True} | ({native: True} if native else {}))
    toy, seen = Toy(), []

    def loss(rows: np.ndarray) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return toy.loss(rows)

    def validate() -> np.ndarray:
        assert not torch.is_autocast_enabled("cpu")
        return toy.validate()

    toy.fit(replace(SPEC, epochs=1, compute_dtype=dtype), loss=loss, validate=validate)
    assert set(seen) == {lowered}


IMPOSSIBLE = [
    {"epochs": 0},
    {"batch_rows": 0},
    {"patience": 0},
    {"learning_rate": 0.0},
    {"learning_rate": math.nan},
    {"mixer_learning_rate": 0.0},
    {"clip": 0.0},
    {"weight_decay": -1.0},
    {"warmup": 2.0},
    {"seeds": ()},
    {"seeds": (-1,)},
    {"seeds": (1, 1)},
]


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong)).replace("mixer_", "").replace("_rate", "")):
        TrainSpec(**wrong)
