"""The log of a training: an epoch in words."""

import math

from permafrost.probes.training.log import TrainingLog


def log_of(*tasks: str) -> TrainingLog:
    log = TrainingLog()
    for task in tasks:
        log.figures.extend({"task": task, "epoch": epoch, "metric": "f1", "value": epoch / 4} for epoch in (0, 1))
        log.losses.append({"task": task, "epoch": 1, "loss": 0.5, "value": 0.25, "weight": 2.0})
    return log


def test_an_epoch_tells_the_loss_weight_and_figures_of_each_task():
    log = log_of("ner", "qa")
    assert log.describe(0) == "ner: f1 0.0000; qa: f1 0.0000"
    assert log.describe(1) == "ner: loss 0.5000, weight 2, f1 0.2500; qa: loss 0.5000, weight 2, f1 0.2500"


def test_a_task_that_is_alone_goes_without_its_name():
    assert log_of("probe").describe(1) == "loss 0.5000, weight 2, f1 0.2500"


def test_a_loss_that_is_none_is_not_told():
    log = log_of("probe")
    log.losses[0] |= {"loss": math.nan, "weight": None}
    assert log.describe(1) == "f1 0.2500"
