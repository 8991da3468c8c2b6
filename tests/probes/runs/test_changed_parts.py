"""What a run, a checkpoint and a study say of parts from outside changes with the code of the part."""

from pathlib import Path

import pytest
from torch import nn
from torch.nn import functional

from permafrost.data.plugins import Head, Loss
from permafrost.data.spec import flatten_settings, plain
from permafrost.probes.config.probe import ProbeSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.results.run_folder import RunError
from permafrost.probes.runs.load import _check_head
from permafrost.probes.search.trials import study_identity
from permafrost.probes.training.checkpoint import CheckpointError
from permafrost.probes.training.resume import UnfinishedTrainings


class Wide(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


def test_a_training_resumes_with_the_same_loss_only(registered, tmp_path):
    recipe = Recipe(train=TrainSpec(loss="own"))

    def checkpoint():
        return UnfinishedTrainings(tmp_path).checkpoint_for("probe", recipe, [0], {}, {})

    registered("own", Loss(functional.huber_loss, targets=["score"]))
    checkpoint().save({"epoch": 1})
    assert checkpoint().load() == {"epoch": 1}
    of_study = study_identity(recipe)
    registered("own", Loss(functional.l1_loss, targets=["score"]))
    assert study_identity(recipe) != of_study
    with pytest.raises(CheckpointError, match=r"of another training .*loss own = "):
        checkpoint().load()


def test_weights_are_read_by_the_head_that_they_were_trained_in_only(registered):
    registered("own", Head(nn.Linear, targets=["class"]))
    recipe = Recipe(probe=ProbeSpec(head="own"))
    recorded = origins_of(flatten_settings(plain(recipe)))
    _check_head(Path("run"), "own", recorded)
    registered("own", Head(Wide, targets=["class"]))
    with pytest.raises(RunError, match="run: the head 'own' has changed since the run was trained"):
        _check_head(Path("run"), "own", recorded)
