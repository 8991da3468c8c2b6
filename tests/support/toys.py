"""Trainings that cost nothing, for studies in this process and in others."""

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from permafrost.data.errors import MachineError
from permafrost.data.progress import Receive
from permafrost.data.spec import SpecError
from permafrost.probes.config.columns import Column
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import StudySpec
from permafrost.probes.inputs.latents import PooledInputs, ProbeInputs
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.search.trials import Evaluate, Evaluation
from permafrost.probes.training.loop import AfterEpoch

SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "train.weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1},
    "train.loss": ["mse", "log_variance"],
}


def searching(space: Any = None, **settings: Any) -> Recipe:
    """A recipe with a search space; few trials."""
    return Recipe(study=StudySpec(space=space or SPACE, **({"trials": 6} | settings)))


def hill(
    recipe: Recipe, folder: Path, receive: Receive, pause: float = 0, kill_at: int | None = None, lethal: float = 2
) -> Evaluate:
    """Best where the rate is 0.001 and there is no decay. Every training leaves a line in ``evaluated``.

    Args:
        pause: seconds an epoch takes.
        kill_at: the training, counted over all workers, whose process is killed after an epoch.
        lethal: weight decay from which every training is.
    """
    log = folder.parent / "evaluated"

    def evaluate(recipe: Recipe, after_epoch: AfterEpoch) -> Evaluation:
        with open(log, "a") as file:
            file.write(f"{recipe.train.learning_rate} {recipe.train.weight_decay} {recipe.train.loss} {os.getpid()}\n")
        number = len(log.read_text().splitlines())
        value = 1 - (math.log10(recipe.train.learning_rate) + 3) ** 2 - recipe.train.weight_decay
        for epoch in range(3):
            time.sleep(pause)
            after_epoch(epoch, value - 1 / (epoch + 1))
            if number == kill_at or recipe.train.weight_decay >= lethal:
                os.kill(os.getpid(), signal.SIGKILL)
        return Evaluation(value, {"unexplained": value / 2})

    return evaluate


def refusing(recipe: Recipe, folder: Path, receive: Receive) -> Evaluate:
    """Refuses some settings, has no number for others, and makes the rest the worse the more they decay."""

    def evaluate(recipe: Recipe, after_epoch: AfterEpoch) -> float:
        if recipe.train.weight_decay > 0.25:
            raise SpecError("weight_decay is too large for it.")
        return math.nan if recipe.train.weight_decay > 0.15 else 1 - recipe.train.weight_decay

    return evaluate


def broken(recipe: Recipe, folder: Path, receive: Receive) -> Evaluate:
    """Fails by the machine."""

    def evaluate(recipe: Recipe, after_epoch: AfterEpoch) -> float:
        raise MachineError("the disk is full.")

    return evaluate


def sharing(recipe: Recipe, folder: Path, receive: Receive) -> Evaluate:
    """Scores by shared inputs, of which making any leaves a line in ``made``."""

    inputs = SharedInputs(folder)

    def evaluate(recipe: Recipe, after_epoch: AfterEpoch) -> float:
        tokens = recipe.plan.max_tokens

        def make() -> ProbeInputs:
            with open(folder.parent / "made", "a") as file:
                file.write(f"{tokens}\n")
            time.sleep(0.3)
            return PooledInputs(
                values=torch.full((1, 5, 4), float(tokens)), columns=(Column("", "mean", 3),), widths=(4,)
            )

        time.sleep(0.1)
        return float(inputs(str(tokens), make).values.mean())

    return evaluate


def mapped(path: Path) -> bool:
    """Whether this process has a file in its memory map."""
    return str(path) in Path("/proc/self/maps").read_text()
