"""fit(): the training loop, epoch by epoch, with early stopping and checkpoints.

It trains independent members in one program: probes of several seeds or layers, or the layers of an autoencoder. Each
has its own gradient norm, best epoch and early stop, and ends as it would alone. Or it trains one member on several
tasks that share components.
On the CPU, the same data, seed and machine give the same weights to the last bit, resumed after a kill or not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from permafrost.data.errors import CheckpointError
from permafrost.data.progress import Eta, NoProgress, Progress
from permafrost.probes.balancing.gradients import EVERY_STEPS
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.generators import forked_generators
from permafrost.probes.training.best_state import BestStates, History
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.log import StepRecord, TrainingLog, epoch_facts, on_cpu
from permafrost.probes.training.peak_memory import PeakMemory
from permafrost.probes.training.problem import Batches, TrainingProblem, check_problem, read_ahead
from permafrost.probes.training.step import StepRunner

AfterEpoch = Callable[[int, float], None]
"""Called with the epoch, from 0, and the selection metric of the first member; an exception that it raises ends the
training."""

MemberColumns = Mapping[str, Any]
"""Columns of metrics.csv that name a member of a training: variant, seed, subset, ..., or phase of a pretraining."""


@dataclass(frozen=True)
class FitResult:
    """Result of a training."""

    histories: Mapping[str, list[History]]
    """Task -> history of each member."""

    log: TrainingLog
    seconds: float
    """Duration, including the time before a kill."""

    restore: Callable[[str], None]
    """Called with a task, copies the best weights of the task, shared components included, to the parameters."""


def fit(
    problem: TrainingProblem,
    spec: TrainSpec,
    seeds: Sequence[int],
    progress: Progress | None = None,
    name: str = "training",
    after_epoch: AfterEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    peak: PeakMemory | None = None,
    members: Sequence[MemberColumns] = (),
) -> FitResult:
    """Train every member in place; with one task, leave each member at its best epoch.

    Args:
        seeds: ``[member]``, seeds of the order of rows.
        name: name of the training in progress notes.
        checkpoint: file of the training's state; the training resumes from it if it exists.
        peak: measures the memory; gets the peak from before a kill.
        members: ``[member]``, for the events of the training; several with the same columns are parts of one.

    Raises:
        SpecError: nothing to train, a component that does not exist, fewer training rows than the loss needs, or a loss
            that is not finite.
        CheckpointError: the checkpoint is of another training.
    """
    check_problem(problem)
    progress = progress or NoProgress()
    with forked_generators(problem.device):
        torch.manual_seed(seeds[0])
        training = _Training(problem, spec, seeds, name, peak)
        about = {"training": name, "members": [dict(member) for member in members]}
        if checkpoint and (state := checkpoint.load()) is not None:
            try:
                training.load_state_dict(state)
            except Exception as error:  # of another version, or made by hand
                raise CheckpointError(
                    f"{checkpoint.path} does not fit this training ({type(error).__name__}); remove it to start over."
                ) from error
            where = f"after {training.epoch} epochs and {training.step} steps"
            progress.note(f"{name}: {'resuming' if training.learning else 'already finished,'} {where}")
            progress.event("resumed", **about, epoch=training.epoch)
        if training.learning:
            training.run(progress, after_epoch, checkpoint, about)
            progress.event("trained", training=name, epochs=training.epoch, seconds=round(training.seconds, 3))
        training.runner.optimizer.zero_grad()  # gradients are as large as the weights
    training.best.restore()
    for module in problem.modules.values():
        module.eval()
    histories = {task: training.best.histories(task, training.log) for task in problem.objectives}
    return FitResult(histories, training.log, training.seconds, training.best.restore)


class _Training:
    """Training in progress; :meth:`state_dict` holds everything that the rest of it depends on."""

    def __init__(
        self, problem: TrainingProblem, spec: TrainSpec, seeds: Sequence[int], name: str, peak: PeakMemory | None
    ) -> None:
        self.problem, self.spec, self.name, self.peak = problem, spec, name, peak
        self.runner = StepRunner(problem, spec, len(seeds))
        self.batches = Batches(problem, seeds)
        self.total = spec.epochs * self.batches.steps
        self.best = BestStates(problem, len(seeds), spec.patience)
        self.log = TrainingLog()
        self.reports_epochs = len(problem.objectives) > 1 or bool(problem.shared)
        """Whether every epoch is reported, and the metrics before the first."""
        self.started = time.perf_counter()
        self.epoch, self.step, self.learning = 0, 0, True
        self.records: list[StepRecord] = []
        """Records of the steps of this epoch."""
        self.batches_state = self.batches.state_dict()
        """State of the batches at the start of this epoch."""

    @property
    def seconds(self) -> float:
        """Duration so far."""
        return time.perf_counter() - self.started

    def run(
        self,
        progress: Progress,
        after_epoch: AfterEpoch | None,
        checkpoint: Checkpoint | None,
        about: Mapping[str, Any],
    ) -> None:
        """Train the remaining epochs; ``about`` names the training in its events."""
        if not self.log.figures and self.reports_epochs:
            self._validate(0)
            progress.note(f"{self.name}, before it: {self.log.describe(0)}")
        done = self.epoch * self.batches.steps + self.step
        eta = Eta(progress, self.total - done, label=self.name)
        with progress.bar(self.name, self.total) as advance:
            advance(done)
            while self.learning and self.epoch < self.spec.epochs:
                value, facts = self._run_epoch([advance, eta.advance], progress, checkpoint)
                progress.event("epoch", **about, epoch=self.epoch, epochs=self.spec.epochs, **facts)
                if after_epoch:
                    after_epoch(self.epoch - 1, value)
        if checkpoint:
            checkpoint.save(self.result_state())  # should another training of the command be killed

    def _run_epoch(
        self, listeners: Sequence[Callable[[int], None]], progress: Progress, checkpoint: Checkpoint | None
    ) -> tuple[float, dict[str, Any]]:
        """Train the rest of an epoch; return the selection metric of the first member and task, and all numbers."""
        groups = self.runner.groups
        if not self.step:
            self.batches_state = self.batches.state_dict()
            for component in groups.freeze_due(self.epoch):
                self.log.frozen.append({"epoch": self.epoch, "component": component})
                progress.note(f"{self.name}: {component} is frozen after {self.epoch} epochs")
            groups.remember_weights()
        groups.set_modes()
        rest = islice(self.batches.epoch(), self.step, None) if groups.any_trainable else iter(())
        with closing(read_ahead(rest, self.problem.objectives)) as batches:
            for batch in batches:
                index = self.epoch * self.batches.steps + self.step
                self.records.append(self.runner.run(batch, index, self.total, self.step % EVERY_STEPS == 0))
                self.step += 1
                for listener in listeners:
                    listener(1)
                if checkpoint and checkpoint.due():
                    checkpoint.save(self.state_dict())
        self.records = on_cpu(self.records)
        self.runner.check_losses(self.records, self.epoch * self.batches.steps, self.total)
        self.runner.check_weights(self.epoch)
        metrics, stopped = self._validate(self.epoch + 1), self.best.stopped
        values = {task: next(iter(by_name.values())) for task, by_name in metrics.items()}
        losses = self.log.add_losses(self.epoch + 1, self.records, values)
        self.log.add_conflicts(self.epoch + 1, self.records)
        self.learning = self.best.update(self.epoch, losses, values) and groups.any_trainable
        self.epoch, self.step, self.records = self.epoch + 1, 0, []
        if self.reports_epochs:
            epoch = f"epoch {self.epoch} of {self.spec.epochs}"
            progress.note(f"{self.name}, {epoch}: {self.log.describe(self.epoch)}")
        facts = epoch_facts(losses, metrics, stopped) | {"learning_rate": self.runner.learning_rates()}
        return float(next(iter(values.values()))[0]), facts

    def _validate(self, epoch: int) -> dict[str, Mapping[str, NDArray[np.floating]]]:
        """Log all validation metrics, and return them."""
        for module in self.problem.modules.values():
            module.eval()
        metrics = {}
        with torch.inference_mode():
            for task, objective in self.problem.objectives.items():
                metrics[task] = objective.validate()
                self.log.add_metrics(task, epoch, metrics[task])
        return metrics

    def result_state(self) -> dict[str, Any]:
        """Return the state of a finished training."""
        return {
            "seconds": self.seconds,
            "memory": self.peak.bytes if self.peak else 0,
            "epoch": self.epoch,
            "step": self.step,
            "learning": False,
            "bests": self.best.state_dict(),
            "log": self.log.state_dict(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state of an unfinished training."""
        self.records = on_cpu(self.records)
        unfinished = {"learning": self.learning, "steps": self.records, "drawn": self.batches_state}
        return self.result_state() | unfinished | self.runner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of :meth:`state_dict` or :meth:`result_state`."""
        self.started -= state["seconds"]
        if self.peak:
            self.peak.previous_bytes = state["memory"]
        self.epoch, self.step, self.learning = state["epoch"], state["step"], state["learning"]
        self.best.load_state_dict(state["bests"])
        self.log.load_state_dict(state["log"])
        if "optimizer" in state:  # unfinished
            self.records = state["steps"]
            self.batches_state = state["drawn"]
            self.batches.load_state_dict(self.batches_state)
            self.runner.load_state_dict(state)
