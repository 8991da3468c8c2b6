"""Components: rates by name, decay where it belongs, and what is frozen moves by no bit while the rest learns on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from permafrost.data.spec import SpecError
from permafrost.probes.balancing.weighting import make_balancer
from permafrost.probes.config.multitask import BalancingSpec
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.training.loop import FitResult, fit
from permafrost.probes.training.parameter_groups import BACKBONE_RATE, ParameterGroups
from permafrost.probes.training.problem import TaskObjective, TrainingProblem

ROWS, WIDTH = 24, 4
SPEC = TrainSpec(epochs=3, batch_rows=8, learning_rate=0.02, weight_decay=0.1, patience=9, rates={"backbone": 0.01})


class SharedBlocks(nn.Module):
    """Two blocks with dropout between them, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5)) for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.second(self.first(x))))


class Head(nn.Module):
    """A map under a mixer of a few numbers, as probes name theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.mixer = nn.Module()
        self.mixer.logits = nn.Parameter(torch.zeros(1, WIDTH))
        self.head, self.dropout = nn.Linear(WIDTH, 2), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(x * torch.softmax(self.mixer.logits, 1)))


class Pair:
    """Two tasks on shared blocks; what every step and every validation found is kept."""

    def __init__(
        self, tasks: tuple[str, ...] = ("topic", "tone"), values: dict[str, list[float]] | None = None
    ) -> None:
        self.modules = nn.ModuleDict({"backbone": SharedBlocks(), **{task: Head() for task in tasks}})
        self.x = torch.randn(ROWS, WIDTH)
        self.y = {task: torch.randint(0, 2, (ROWS,)) for task in tasks}
        self.values = values
        self.at_epochs: list[dict[str, Tensor]] = []
        """Weights at every validation of the first task; the first of them before training."""
        self.training: list[set[str]] = []
        """Dropouts that drop something, at every loss of the first task."""

    def weights(self) -> dict[str, Tensor]:
        return {name: part.detach().clone() for name, part in self.modules.named_parameters()}

    def objective(self, task: str) -> TaskObjective:
        def loss(rows: np.ndarray) -> Tensor:
            if task == next(iter(self.y)):
                drops = {name: one for name, one in self.modules.named_modules() if isinstance(one, nn.Dropout)}
                self.training.append({name for name, one in drops.items() if one.training})
            said = self.modules[task](self.modules["backbone"](self.x[rows[0]]))
            return nn.functional.cross_entropy(said, self.y[task][rows[0]])[None]

        def validate() -> dict[str, np.ndarray]:
            if task == next(iter(self.y)):
                self.at_epochs.append(self.weights())
            told = self.values[task][len(self.at_epochs) - 1] if self.values else 0.5
            return {"accuracy": np.array([told])}

        return TaskObjective(loss=loss, validate=validate, rows=ROWS, batch_rows=SPEC.batch_rows)

    def problem(self, **changes) -> TrainingProblem:
        member_of = {name: torch.zeros(len(part), dtype=torch.int64) for name, part in self.modules.named_parameters()}
        objectives = {task: self.objective(task) for task in self.y}
        return TrainingProblem(
            modules=dict(self.modules.items()),
            member_of=member_of,
            objectives=objectives,
            shared=("backbone",),
            **changes,
        )

    def fit(self, spec: TrainSpec = SPEC, **changes) -> FitResult:
        return fit(self.problem(**changes), spec, [0])

    def moved(self, epoch: int) -> set[str]:
        """What an epoch, from 0, moved by a bit or more."""
        before, after = self.at_epochs[epoch : epoch + 2]
        return {name for name in before if not torch.equal(before[name], after[name])}


def groups_of(pair: Pair, spec: TrainSpec) -> dict[str, tuple[float, float]]:
    """Parameter -> its peak rate and its decay."""
    named = {id(part): name for name, part in pair.modules.named_parameters()}
    groups = ParameterGroups(pair.problem(), spec).groups()
    assert all(group["lr"] == group["peak"] for group in groups)
    found = [(named[id(p)], (group["peak"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(named.values())
    return dict(found)


def test_the_longest_name_that_fits_gives_the_rate():
    rates = {"backbone": 1.0, "backbone.second": 2.0, "backbone.second.0.bias": 3.0, "topic": 4.0, "tone.mixer": 5.0}
    found = {name: rate for name, (rate, _) in groups_of(Pair(), replace(SPEC, rates=rates)).items()}
    assert found == {
        "backbone.first.0.weight": 1.0, "backbone.first.0.bias": 1.0,
        "backbone.second.0.weight": 2.0, "backbone.second.0.bias": 3.0,
        "backbone.norm.weight": 1.0, "backbone.norm.bias": 1.0,
        "topic.mixer.logits": 4.0, "topic.head.weight": 4.0, "topic.head.bias": 4.0,
        "tone.mixer.logits": 5.0, "tone.head.weight": SPEC.learning_rate, "tone.head.bias": SPEC.learning_rate,
    }  # fmt: skip


def test_blocks_learn_slowly_where_no_rate_is_named_and_mixers_fast():
    found = groups_of(Pair(), replace(SPEC, rates={}, mixer_learning_rate=0.03))
    assert found["backbone.first.0.weight"][0] == BACKBONE_RATE < SPEC.learning_rate
    assert found["topic.mixer.logits"][0] == 0.03 != SPEC.learning_rate


def test_a_name_is_not_the_beginning_of_another():
    found = groups_of(Pair(("topic", "topics")), replace(SPEC, rates={"topic": 7.0}))
    assert found["topic.head.weight"][0] == 7.0
    assert found["topics.head.weight"][0] == SPEC.learning_rate


def test_biases_and_norms_of_blocks_and_mixers_do_not_decay():
    found = groups_of(Pair(), SPEC)
    still = {name for name, (_, decay) in found.items() if decay == 0}
    logits = {"topic.mixer.logits", "tone.mixer.logits"}
    assert (
        still
        == {"backbone.first.0.bias", "backbone.second.0.bias", "backbone.norm.weight", "backbone.norm.bias"} | logits
    )
    assert {decay for name, (_, decay) in found.items() if name not in still} == {SPEC.weight_decay}


def test_a_component_has_the_rate_that_its_weights_move_by():
    pair = Pair()
    pair.fit(
        replace(SPEC, epochs=1, batch_rows=8, weight_decay=0.0, warmup=0.0, rates={"backbone": 1e-4, "tone": 1e-2})
    )
    first, second = pair.at_epochs
    moved = {name: float((second[name] - first[name]).abs().max()) for name in first}
    steps = ROWS // 8
    assert moved["backbone.first.0.weight"] <= steps * 1e-4 * 1.01 < moved["tone.head.weight"] <= steps * 1e-2 * 1.01


@pytest.mark.parametrize("balancer", [None, "equal", "uncertainty", "gradnorm", "pcgrad"])
@pytest.mark.parametrize("frozen", ["backbone", "backbone.first", "topic", "tone.head"])
def test_what_is_frozen_from_the_start_moves_by_no_bit_and_the_rest_learns(frozen, balancer):
    pair = Pair()
    made = None
    if balancer:
        tasks = dict.fromkeys(pair.y, "cross_entropy")
        shared = pair.modules["backbone"].parameters()
        made = make_balancer(BalancingSpec(balancer=balancer), tasks, shared, True, torch.Generator())  # type: ignore[arg-type]
    result = pair.fit(replace(SPEC, freeze={frozen: 0}), balancer=made)
    still = {name for name in pair.weights() if name.startswith(f"{frozen}.")}
    for epoch in range(SPEC.epochs):
        assert pair.moved(epoch) == set(pair.weights()) - still
    assert result.log.frozen == [{"epoch": 0, "component": frozen}]


@pytest.mark.parametrize(
    ("frozen", "dropping"),
    [
        ("backbone", {"topic.dropout", "tone.dropout"}),
        ("backbone.first", {"backbone.second.1", "topic.dropout", "tone.dropout"}),
        ("topic", {"backbone.first.1", "backbone.second.1", "tone.dropout"}),
    ],
)
def test_nothing_is_dropped_in_what_is_frozen(frozen, dropping):
    pair = Pair()
    everything = {"backbone.first.1", "backbone.second.1", "topic.dropout", "tone.dropout"}
    pair.fit(replace(SPEC, freeze={frozen: 1}))
    steps = ROWS // SPEC.batch_rows
    assert pair.training[:steps] == [everything] * steps
    assert pair.training[steps:] == [dropping] * (2 * steps)


def test_a_component_is_frozen_after_the_epochs_that_it_is_given():
    pair = Pair()
    result = pair.fit(replace(SPEC, epochs=4, freeze={"backbone": 2, "topic": 1}))
    everything = set(pair.weights())
    upper, topic = ({name for name in everything if name.startswith(one)} for one in ("backbone", "topic"))
    assert [pair.moved(epoch) for epoch in range(4)] == [
        everything, everything - topic, everything - topic - upper, everything - topic - upper,
    ]  # fmt: skip
    assert result.log.frozen == [{"epoch": 1, "component": "topic"}, {"epoch": 2, "component": "backbone"}]


def test_a_component_that_stands_still_is_frozen_and_one_that_moves_is_not():
    pair = Pair()
    spec = replace(
        SPEC, rates={"backbone": 1e-9}, freeze={"backbone": "converged", "topic": "converged"}, converged=1e-3
    )
    result = pair.fit(spec)
    assert result.log.frozen == [{"epoch": 1, "component": "backbone"}]
    for epoch in (1, 2):
        assert not any(name.startswith("backbone.") for name in pair.moved(epoch))
        assert {"topic.head.weight", "tone.head.weight"} <= pair.moved(epoch)


def test_training_ends_once_all_is_frozen():
    pair = Pair()
    freeze = dict.fromkeys(pair.modules, 1)
    result = pair.fit(replace(SPEC, epochs=8, freeze=freeze))
    assert len(pair.training) == ROWS // SPEC.batch_rows
    assert pair.moved(1) == set()
    assert len(result.histories["topic"][0].values) == 2


def test_what_is_frozen_from_end_to_end_is_measured_as_it_is():
    pair = Pair(values={"topic": [0.25, 0.75], "tone": [0.5, 0.5]})
    before = pair.weights()
    result = pair.fit(replace(SPEC, freeze=dict.fromkeys(pair.modules, 0)))
    assert all(torch.equal(before[name], part) for name, part in pair.weights().items())
    assert (result.histories["topic"][0].best_epoch, result.histories["topic"][0].best_value) == (0, 0.75)
    assert all(line["weight"] is None and math.isnan(line["loss"]) for line in result.log.losses)


@pytest.mark.parametrize("table", ["rates", "freeze"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("backbon", "names the component 'backbon', which has nothing to train. Did you mean 'backbone'?"),
        ("topic.heat", "names the component 'topic.heat', which has nothing to train. Did you mean 'topic.head'?"),
        ("finetune.dropout", "names the component 'finetune.dropout', which has nothing to train."),
        ("topi", "Did you mean 'topic'?"),
    ],
)
def test_a_name_that_matches_nothing_is_refused_with_the_nearest(table, name, message):
    with pytest.raises(SpecError) as error:
        Pair().fit(replace(SPEC, **{table: {name: 1}}))
    assert str(error.value).startswith(f"train.{table} names the component")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("when", [0, 1, "converged"])
def test_components_of_other_variants_are_no_mistake_and_nothing_is_told_of_them(when):
    pair = Pair(("topic",))
    spec = replace(SPEC, rates={"tone.head": 1.0}, freeze={"tone": when})
    result = pair.fit(spec, absent=("tone",))
    assert result.log.frozen == []
    assert pair.moved(0) == set(pair.weights())


BEST = {"topic": [0.0, 0.9, 0.1, 0.1], "tone": [0.0, 0.1, 0.2, 0.5]}
"""By validation, before training first. The first epoch is topic's best and best by mean, the last is tone's."""


def test_each_task_keeps_its_own_best_state_of_what_it_reads():
    pair = Pair(values=BEST)
    result = pair.fit()
    assert [result.histories[task][0].best_epoch for task in BEST] == [0, 2]
    for task, epoch in (("topic", 1), ("tone", 3)):
        result.restore(task)
        mine = {name: part for name, part in pair.weights().items() if name.split(".")[0] in ("backbone", task)}
        assert all(torch.equal(part, pair.at_epochs[epoch][name]) for name, part in mine.items())
    result.restore("topic")
    assert torch.equal(pair.weights()["tone.head.weight"], pair.at_epochs[3]["tone.head.weight"])


def test_one_state_for_all_is_that_of_the_best_mean_and_each_task_tells_its_own_figures():
    pair = Pair(values=BEST)
    result = pair.fit(private=False)
    for task in BEST:
        (fitted,) = result.histories[task]
        assert (fitted.best_epoch, fitted.best_value) == (0, BEST[task][1])
        assert fitted.values == tuple(BEST[task][1:])
        assert fitted.losses == tuple(line["loss"] for line in result.log.losses if line["task"] == task)
        result.restore(task)
        assert all(torch.equal(part, pair.at_epochs[1][name]) for name, part in pair.weights().items())
    assert result.histories["topic"][0].losses != result.histories["tone"][0].losses


def test_patience_is_each_tasks_own_and_training_lasts_while_one_has_some():
    values = {"topic": [0.0, 0.9, 0.1, 0.1, 0.95], "tone": [0.0, 0.1, 0.2, 0.5, 0.6]}
    result = Pair(values=values).fit(replace(SPEC, epochs=4, patience=2))
    topic, tone = (result.histories[task][0] for task in values)
    assert (topic.best_epoch, topic.values) == (0, (0.9, 0.1, 0.1))  # what it came to after its stop is not its own
    assert (tone.best_epoch, tone.values) == (3, (0.1, 0.2, 0.5, 0.6))
