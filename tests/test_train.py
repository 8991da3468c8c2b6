"""fit(): it learns, repeats itself to the bit, keeps its best epoch and says when a loss is none."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data.spec import SpecError
from probes.losses import log_variance
from probes.train import TrainSpec, _batches, fit

ROWS, WIDTH = 200, 8
SPEC = TrainSpec(epochs=20, batch_rows=16, learning_rate=0.02)


class Toy:
    """Classes that a linear map can tell apart, and a probe for them."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(99)
        self.x = torch.randn(2 * ROWS, WIDTH, generator=generator)
        self.y = (self.x @ torch.randn(WIDTH, generator=generator) > 0).long()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.probe = nn.Linear(WIDTH, 2)
        self.seen: list[np.ndarray] = []

    def loss(self, rows: np.ndarray) -> torch.Tensor:
        self.seen.append(rows)
        return nn.functional.cross_entropy(self.probe(self.x[rows]), self.y[rows])

    def validate(self) -> float:
        return float((self.probe(self.x[ROWS:]).argmax(1) == self.y[ROWS:]).float().mean())

    def fit(self, spec: TrainSpec = SPEC, seed: int = 0):
        return fit(self.probe, self.loss, ROWS, self.validate, spec, seed)


def test_a_toy_is_learnt_far_beyond_chance():
    toy = Toy()
    fitted = toy.fit()
    assert fitted.best_value > 0.9  # chance is about one half
    assert fitted.losses[-1] < fitted.losses[0] / 2
    assert not toy.probe.training


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_does_not():
    first, second, other = Toy(), Toy(), Toy()
    assert first.fit(seed=3) == second.fit(seed=3)
    other.fit(seed=4)
    assert torch.equal(first.probe.weight, second.probe.weight)
    assert not torch.equal(first.probe.weight, other.probe.weight)


def test_the_weights_of_the_best_epoch_are_restored():
    toy, weights = Toy(), []

    def peaks_in_the_third_epoch() -> float:
        weights.append(toy.probe.weight.detach().clone())
        return [0.1, 0.2, 0.9, 0.3, 0.9][len(weights) - 1]

    fitted = fit(toy.probe, toy.loss, ROWS, peaks_in_the_third_epoch, replace(SPEC, epochs=5), 0)
    assert (fitted.best_epoch, fitted.best_value) == (2, 0.9)  # of two equal epochs the first
    assert torch.equal(toy.probe.weight, weights[2])
    assert not torch.equal(toy.probe.weight, weights[4])


def test_training_stops_when_patience_is_over():
    toy, values = Toy(), iter([0.5, 0.6, 0.1, 0.2, 0.3, 0.9])
    fitted = fit(toy.probe, toy.loss, ROWS, lambda: next(values), replace(SPEC, patience=3), 0)
    assert fitted.values == (0.5, 0.6, 0.1, 0.2, 0.3)


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
    order = np.random.default_rng(0).permutation(rows)
    batches = list(_batches(order, size, smallest))
    assert [len(batch) for batch in batches] == sizes
    np.testing.assert_array_equal(np.concatenate(batches), order)


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    toy = Toy()
    toy.fit(replace(SPEC, epochs=2, batch_rows=50))
    first, second = np.concatenate(toy.seen[:4]), np.concatenate(toy.seen[4:])
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first.tolist() != second.tolist()


def test_a_small_last_batch_does_not_stop_log_variance():
    toy = Toy()
    target = toy.y.float()

    def loss(rows: np.ndarray) -> torch.Tensor:
        return log_variance(toy.probe(toy.x[rows])[:, 0], target[rows])

    fitted = fit(toy.probe, loss, 17, toy.validate, replace(SPEC, epochs=2), 0, smallest_batch=2)
    assert np.isfinite(fitted.losses).all()
    with pytest.raises(SpecError, match="1 training rows are too few: this loss needs 2"):
        fit(toy.probe, loss, 1, toy.validate, SPEC, 0, smallest_batch=2)


def test_a_loss_that_is_no_number_stops_with_the_way_out():
    toy = Toy()
    with pytest.raises(SpecError, match=r"the training loss became nan; lower train\.learning_rate"):
        fit(toy.probe, lambda rows: toy.loss(rows) * float("nan"), ROWS, toy.validate, SPEC, 0)


def test_a_metric_that_never_exists_stops_with_its_reason():
    toy = Toy()
    with pytest.raises(SpecError, match="never finite: predictions or targets of validation are constant"):
        fit(toy.probe, toy.loss, ROWS, lambda: float("nan"), SPEC, 0)


def test_the_rate_rises_over_the_warm_up_and_then_falls():
    steps = []
    for epochs in (1, 2):  # 10 steps an epoch: of 20 steps the first moves by half the peak rate, of 10 by all of it
        toy = Toy()
        before = toy.probe.weight.detach().clone()
        moved = []

        def loss(rows, toy=toy, before=before, moved=moved):
            moved.append((toy.probe.weight.detach() - before).abs().max().item())
            return toy.loss(rows)

        spec = TrainSpec(epochs=epochs, batch_rows=20, learning_rate=1e-3, weight_decay=0.0)
        fit(toy.probe, loss, ROWS, toy.validate, spec, 0)
        steps.append(moved[1])
    assert steps == pytest.approx([1e-3, 0.5e-3], rel=1e-3)  # AdamW's first step is the rate itself


IMPOSSIBLE = [
    {"epochs": 0},
    {"batch_rows": 0},
    {"patience": 0},
    {"learning_rate": 0.0},
    {"learning_rate": math.nan},
    {"weight_decay": -1.0},
    {"warmup": 2.0},
    {"seeds": ()},
    {"seeds": (-1,)},
    {"seeds": (1, 1)},
]


@pytest.mark.parametrize("wrong", IMPOSSIBLE)
def test_a_setting_that_cannot_be_is_refused(wrong):
    with pytest.raises(SpecError, match=next(iter(wrong)).replace("_rate", "")):
        TrainSpec(**wrong)
