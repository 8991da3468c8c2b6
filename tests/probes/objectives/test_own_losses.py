"""Losses from outside: of every kind of target, one that others wrote trains as ours."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from permafrost.data.plugin_registry import PluginError
from permafrost.data.plugins import Loss
from permafrost.data.spec import SpecError
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.probe import stack
from permafrost.probes.models.shared_reads import shared_reads
from permafrost.probes.objectives.heads import objective_of
from permafrost.probes.objectives.losses import LOSSES, min_batch_rows
from permafrost.probes.tasks.registry import TASKS, make_problem
from permafrost.probes.variants.members import initial_probe
from tests.probes.tasks.test_tasks import KINDS, sample, states
from tests.support.trainings import member_config


def spans(logits, target):
    return sum(functional.cross_entropy(logits[..., end], target[:, end]) for end in (0, 1)) / 2


THEIRS = {
    "score": ("mse", functional.mse_loss),
    "class": ("cross_entropy", functional.cross_entropy),
    "labels": ("binary_cross_entropy", functional.binary_cross_entropy_with_logits),
    "tags": ("cross_entropy", functional.cross_entropy),
    "answers": ("span", spans),
    "rank": ("multiple_negatives_ranking", lambda scores, target: functional.cross_entropy(20 * scores, target)),
}


@KINDS
def test_a_loss_written_by_others_is_ours(kind, registered):
    ours, function = THEIRS[kind]
    registered("theirs", Loss(function, targets=[kind]))
    recipe, corpus = Recipe(probe=ProbeSpec()), sample(kind)
    probes = [initial_probe(member_config(recipe, states(kind), corpus, seed)) for seed in (0, 1)]
    probe = probes[0] if TASKS[kind].reads_tokens else stack(probes)
    objective = objective_of(probe, states(kind), corpus.split("train"), None, kind == "rank")
    orders = np.zeros(len(probe.layout.members), np.int64)
    found = {}
    for name in (ours, "theirs"):
        probe.zero_grad()
        losses = objective.loss(probe, shared_reads(probe.layout, orders), np.arange(6)[None], orders, name)
        losses.sum().backward()
        found[name] = losses, [weight.grad for weight in probe.parameters() if weight.grad is not None]
    torch.testing.assert_close(found["theirs"], found[ours])


def test_a_loss_is_asked_for_by_name_and_for_its_targets_alone(registered):
    registered("huber", Loss(functional.huber_loss, targets=["score"], min_rows=3))
    assert make_problem(Recipe(train=TrainSpec(loss="huber")), sample("score")).loss == "huber"
    assert (min_batch_rows("huber"), min_batch_rows("mse"), min_batch_rows("log_variance")) == (3, 1, 2)
    for name in ("huber", "hubber"):
        with pytest.raises(
            SpecError, match=f"train.loss = '{name}' does not fit classification.*; use one of: cross_en"
        ):
            make_problem(Recipe(train=TrainSpec(loss=name)), sample("class"))
    registered("plain", Loss(functional.cross_entropy, targets=["class"]))
    with pytest.raises(SpecError, match="the loss 'plain' takes no weights of classes"):
        make_problem(Recipe(train=TrainSpec(loss="plain", class_weights="balanced")), sample("class"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda prediction, target: (prediction - target) ** 2, r"must return a tensor of one number .* shape \[4\]"),
        (lambda prediction, target: 0.5, "must return a tensor of one number for a batch, got float"),
        (lambda prediction, target: (prediction.detach() - target).abs().mean(), "the loss 'odd' has no gradient"),
    ],
)
def test_what_is_no_loss_is_refused(function, message, registered):
    registered("odd", Loss(function, targets=["score"]))
    with pytest.raises(PluginError, match=message):
        LOSSES["odd"](torch.rand(2, 4, requires_grad=True), torch.rand(2, 4))


def test_a_loss_that_fails_is_named_with_its_line(registered):
    registered("broken", Loss(lambda logits, target: logits @ target, targets=["class"]))
    with pytest.raises(PluginError, match=r"the loss 'broken' fails \(RuntimeError: .*, in .*test_own_losses.py:\d+\)"):
        LOSSES["broken"](torch.zeros(1, 8, 3, requires_grad=True), torch.zeros(1, 8, dtype=torch.int64))
