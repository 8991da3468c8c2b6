"""fit(): the one training loop, in three storeys: epochs, batches, one step.

It trains members side by side: probes of several seeds or layers, or the layers of an autoencoder. Nothing crosses
from one to another: each has its own gradient norm, best epoch and early stop, and so ends as it would have alone.
Or it trains one member on several tasks, whose losses meet in what they share.
Same data, seed and machine give the same weights, to the last bit, on CPU; killed and resumed or not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from permafrost.data.progress import Eta, Progress, Silent
from permafrost.data.spec import SpecError
from permafrost.probes.balancing.cosine import EVERY_STEPS, agreement
from permafrost.probes.config.train import TrainSpec
from permafrost.probes.models.layerwise import SeededRandom
from permafrost.probes.training.batches import Batches
from permafrost.probes.training.best_state import BestState, History, alike
from permafrost.probes.training.checkpoint import Checkpoint, CheckpointError
from permafrost.probes.training.log import Log
from permafrost.probes.training.parameter_groups import ParameterGroups
from permafrost.probes.training.peak_memory import Peak
from permafrost.probes.training.problem import TrainingProblem, check

MEASURED_SECONDS = 5.0
"""After how long the expected time is said."""

KEPT_SECONDS = 5.0
"""How long a training takes that is kept when it is done, for the run that may be killed in another."""

AfterEpoch = Callable[[int, float], None]
"""Told the epoch, from 0, and the first member's validation metric; what it raises ends the training."""


@dataclass(frozen=True)
class FitResult:
    """A training that is done."""

    histories: Mapping[str, list[History]]
    """Task -> how it went, member by member."""

    log: Log
    seconds: float
    """What it took, before a kill too."""

    restore: Callable[[str], None]
    """Put the best weights of a task in their places; those of what it shares too."""


def fit(
    problem: TrainingProblem,
    spec: TrainSpec,
    seeds: Sequence[int],
    progress: Progress | None = None,
    name: str = "training",
    after_epoch: AfterEpoch | None = None,
    checkpoint: Checkpoint | None = None,
    peak: Peak | None = None,
) -> FitResult:
    """Train every member in place; of one task, leave each at its best epoch.

    Args:
        seeds: of each member; it draws the order of its rows.
        checkpoint: where the training is kept while it lasts, and goes on from where it is there.
        peak: what measures its memory; it is told what was measured before a kill.

    Raises:
        SpecError: nothing to train, a component that does not exist, fewer training rows than the loss needs, or a loss
            that is not finite.
        CheckpointError: the checkpoint is of another training.
    """
    check(problem)
    progress = progress or Silent()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds[0])
        training = _Training(problem, spec, seeds, name, peak)
        if checkpoint and (state := checkpoint.load()) is not None:
            try:
                training.load_state_dict(state)
            except Exception as error:  # of another version, or made by hand
                raise CheckpointError(
                    f"{checkpoint.path} does not fit this training ({type(error).__name__}); remove it to begin anew."
                ) from error
            where = f"after {training.epoch} epochs and {training.step} steps"
            progress.note(f"{name}: {'going on' if training.learning else 'it ended before,'} {where}")
        if training.learning:
            training.run(progress, name, after_epoch, checkpoint)
        training.optimizer.zero_grad()  # gradients are as large as what is kept
    bests = training.bests
    for best in bests.values():
        best.restore()
    for module in problem.modules.values():
        module.eval()
    return FitResult(
        {task: training.fitted(task) for task in problem.objectives},
        training.log,
        training.seconds,
        lambda task: bests[task if task in bests else ""].restore(),
    )


class _Training:
    """A training under way; all that its future depends on is in :meth:`state`."""

    def __init__(
        self, problem: TrainingProblem, spec: TrainSpec, seeds: Sequence[int], name: str, peak: Peak | None = None
    ) -> None:
        self.learner, self.spec, self.seeds, self.name, self.peak = problem, spec, seeds, name, peak
        self.components = ParameterGroups(problem, spec)
        balancing = problem.balancer.groups() if problem.balancer else []
        groups = [*self.components.groups(), *({**group, "peak": group["lr"]} for group in balancing)]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.batches = Batches(problem, seeds)
        self.total = spec.epochs * self.batches.steps
        named = problem.named()
        self.bests = {
            task: BestState({part: (named[part], problem.member_of[part]) for part in parts}, len(seeds), spec.patience)
            for task, parts in self._kept().items()
        }
        self.shared = [part for name, part in named.items() if name.split(".")[0] in problem.shared]
        self.log = Log()
        self.watched = len(problem.objectives) > 1 or bool(problem.shared)
        """Whether it is long enough to be told of epoch by epoch, and from before its first."""
        self.began = time.perf_counter()
        self.epoch, self.step, self.learning = 0, 0, True
        self.kept = False
        """Whether there is a checkpoint of it."""
        self.steps: list[dict[str, Any]] = []
        """``losses, weights, cosines`` of the steps of this epoch."""
        self.drawn = self.batches.state_dict()
        self.lowered = spec.compute_dtype == "bfloat16" or (spec.compute_dtype == "auto" and _native_bfloat16())

    @property
    def seconds(self) -> float:
        """What it has taken so far."""
        return time.perf_counter() - self.began

    def _kept(self) -> dict[str, list[str]]:
        """Task -> parameters of its best state; "" where all tasks have one."""
        problem = self.learner
        if len(problem.objectives) > 1 and not problem.private:
            return {"": list(problem.named())}
        return {task: problem.read_by(task) for task in problem.objectives}

    def run(self, progress: Progress, name: str, after_epoch: AfterEpoch | None, checkpoint: Checkpoint | None) -> None:
        """All epochs that are left."""
        if not self.log.figures and self.watched:
            self._measure(0)
            progress.note(f"{name}, before it: {self.log.line(0)}")
        done = self.epoch * self.batches.steps + self.step
        expected = Eta(progress, self.total - done, MEASURED_SECONDS, name)
        with progress.bar(name, self.total) as advance:
            advance(done)
            while self.learning and self.epoch < self.spec.epochs:
                value = self._epoch([advance, expected.advance], progress, checkpoint)
                if after_epoch:
                    after_epoch(self.epoch - 1, value)
        if checkpoint and (self.kept or self.seconds > min(KEPT_SECONDS, self.spec.checkpoint_seconds)):
            checkpoint.save(self.outcome())

    def _save(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(self.state_dict())
        self.kept = True

    def _epoch(
        self, watchers: Sequence[Callable[[int], None]], progress: Progress, checkpoint: Checkpoint | None
    ) -> float:
        """One epoch, or what is left of it; returns the first member's validation metric of the first task."""
        if not self.step:
            self.drawn = self.batches.state_dict()
            for component in self.components.begin(self.epoch):
                self.log.frozen.append({"epoch": self.epoch, "component": component})
                progress.note(f"{self.name}: {component} is frozen after {self.epoch} epochs")
            self.components.remember()
        self.components.settle()
        for batch in self._steps_left():
            self._step(batch)
            self.step += 1
            for watcher in watchers:
                watcher(1)
            if checkpoint and checkpoint.due():
                self._save(checkpoint)
        self._check_weights()
        values = self._measure(self.epoch + 1)
        losses = self._summed(values)
        if set(self.bests) == {""}:
            means = [np.mean(list(some.values()), axis=0) for some in (losses, values)]
            self.learning = self.bests[""].after(self.epoch, *means)
        else:
            going = [best.after(self.epoch, losses[task], values[task]) for task, best in self.bests.items()]
            self.learning = any(going)
        self.learning &= self.components.learning
        self.epoch, self.step, self.steps = self.epoch + 1, 0, []
        if self.watched:
            progress.note(f"{self.name}, epoch {self.epoch} of {self.spec.epochs}: {self.log.line(self.epoch)}")
        return float(next(iter(values.values()))[0])

    def _steps_left(self) -> Iterator[dict[str, NDArray[np.int64]]]:
        return islice(self.batches.epoch(), self.step, None) if self.components.learning else iter(())

    def _step(self, batch: Mapping[str, NDArray[np.int64]]) -> None:
        at = self.epoch * self.batches.steps + self.step
        with torch.autocast("cpu", torch.bfloat16, enabled=self.lowered):
            losses = {task: self.learner.objectives[task].loss(rows) for task, rows in batch.items()}
        for task, loss in losses.items():
            self._check(task, loss, at)
        rate = _rate(at, self.total, self.spec.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimizer.zero_grad()
        weights, cosines = self._backward(losses)
        clip_by_member(self.learner, self.spec.clip, len(self.seeds))
        self.optimizer.step()
        numbers = {task: loss.detach().float().numpy().reshape(-1) for task, loss in losses.items()}
        self.steps.append({"losses": numbers, "weights": weights, "cosines": cosines})

    def _backward(self, losses: Mapping[str, Tensor]) -> tuple[dict[str, float], list[list[Any]]]:
        """Gradients of a step; the weight of each task, and the cosine of each two."""
        if not any(loss.requires_grad for loss in losses.values()):
            return dict.fromkeys(losses, 0.0), []  # tasks of which all is frozen
        if self.learner.balancer is None:
            torch.stack([loss.sum() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
            return dict.fromkeys(losses, 1.0), []
        shared = [part for part in self.shared if part.requires_grad]
        measured = not self.learner.balancer.compares and self.step % EVERY_STEPS == 0
        cosines = agreement(losses, shared) if measured else {}
        balanced = self.learner.balancer.backward(losses, shared)
        return balanced.weights, [[*pair, cosine] for pair, cosine in (balanced.cosines or cosines).items()]

    def _check(self, task: str, loss: Tensor, at: int) -> None:
        if not torch.isfinite(loss).all():
            wrong = loss[~torch.isfinite(loss)].reshape(-1)[0].item()
            of = f"{task}: " if len(self.learner.objectives) > 1 else ""
            raise SpecError(
                f"{of}the training loss became {wrong} in step {at + 1} of {self.total}; lower train.learning_rate, "
                "train.rates or train.mixer_learning_rate"
                + (', or set train.compute_dtype = "float32".' if self.lowered else ".")
            )

    def _check_weights(self) -> None:
        """A last step of an epoch shows in no loss."""
        for name, part in self.learner.named().items():
            if not torch.isfinite(part).all():
                raise SpecError(
                    f"the weights of {name} became NaN or infinite in epoch {self.epoch + 1}; lower "
                    "train.learning_rate or train.rates."
                )

    def _measure(self, epoch: int) -> dict[str, NDArray[np.floating]]:
        """Task -> its metric that chooses, ``[member]``; all of them go to the log."""
        for module in self.learner.modules.values():
            module.eval()
        chosen = {}
        with torch.inference_mode():
            for task, objective in self.learner.objectives.items():
                found = objective.validate()
                chosen[task] = next(iter(found.values()))
                self.log.figures.extend(
                    {"task": task, "epoch": epoch, "metric": metric, "value": float(values[0])}
                    for metric, values in found.items()
                )
        return chosen

    def _summed(self, values: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
        """Task -> mean loss of the epoch, ``[member]``; nan where it had no step. The log is told both."""
        found: dict[str, NDArray[np.floating]] = {}
        for task in self.learner.objectives:
            mine = [step for step in self.steps if task in step["losses"]]
            nothing = np.full(len(self.seeds), np.nan)
            found[task] = np.mean([step["losses"][task] for step in mine], axis=0) if mine else nothing
            weight = float(np.mean([step["weights"][task] for step in mine])) if mine else None
            numbers = {"loss": float(found[task][0]), "value": float(values[task][0]), "weight": weight}
            self.log.losses.append({"task": task, "epoch": self.epoch + 1} | numbers)
        pairs: dict[tuple[str, str], list[float]] = {}
        for step in self.steps:
            for first, second, cosine in step["cosines"]:
                pairs.setdefault((first, second), []).append(cosine)
        for (first, second), cosines in pairs.items():
            shares = {"cosine": float(np.mean(cosines)), "conflict": float(np.mean(np.array(cosines) < 0))}
            self.log.conflicts.append({"epoch": self.epoch + 1, "first": first, "second": second} | shares)
        return found

    def fitted(self, task: str) -> list[History]:
        """How a task went, member by member; where all tasks have one best epoch, by the task's own figures."""
        if task in self.bests:
            return self.bests[task].histories()
        (shared,) = self.bests[""].histories()
        lines = [line for line in self.log.losses if line["task"] == task]
        losses, values = (tuple(line[name] for line in lines) for name in ("loss", "value"))
        best = values[shared.best_epoch] if shared.best_epoch >= 0 else shared.best_value
        return [History(shared.best_epoch, best, losses, values)]

    def outcome(self) -> dict[str, Any]:
        """What is left of a training that is done."""
        return {
            "seconds": self.seconds,
            "memory": self.peak.bytes if self.peak else 0,
            "epoch": self.epoch,
            "step": self.step,
            "learning": False,
            "bests": {task or "all": best.state_dict() for task, best in self.bests.items()},
            "log": {name: getattr(self.log, name) for name in ("figures", "losses", "conflicts", "frozen")},
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the training depends on."""
        balancer = self.learner.balancer
        return self.outcome() | {
            "learning": self.learning,
            "steps": self.steps,
            "drawn": self.drawn,
            "weights": {name: part.detach() for name, part in self.learner.named().items()},
            "optimizer": {str(place): values for place, values in self.optimizer.state_dict()["state"].items()},
            "components": self.components.state_dict(),
            "balancer": dict(balancer.state_dict()) if balancer else {},
            "generators": [one.get_state() for one in self._generators()],
            "torch": torch.get_rng_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as when :meth:`state`, or :meth:`outcome`, was asked."""
        self.began -= state["seconds"]
        if self.peak:
            self.peak.known = state["memory"]
        self.epoch, self.step, self.learning = state["epoch"], state["step"], state["learning"]
        for task, best in self.bests.items():
            best.load_state_dict(state["bests"][task or "all"])
        for name, lines in state["log"].items():
            getattr(self.log, name)[:] = lines
        if "optimizer" in state:
            self._go_on(state)

    def _go_on(self, state: Mapping[str, Any]) -> None:
        self.steps, self.kept = state["steps"], True
        self.drawn = state["drawn"]
        self.batches.load_state_dict(self.drawn)
        with torch.no_grad():
            for name, part in self.learner.named().items():
                part.copy_(alike(state["weights"][name], part))
        groups = self.optimizer.state_dict()["param_groups"]
        moments = {int(place): values for place, values in state["optimizer"].items()}
        parts = [part for group in self.optimizer.param_groups for part in group["params"]]
        for place, values in moments.items():
            for value in values.values():
                if value.dim():  # the count of steps has none
                    alike(value, parts[place])
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.components.load_state_dict(state["components"])
        if self.learner.balancer:
            self.learner.balancer.load_state_dict(state["balancer"])
        for one, saved in zip(self._generators(), state["generators"], strict=True):
            one.set_state(saved)
        torch.set_rng_state(state["torch"])

    def _generators(self) -> list[torch.Generator]:
        """What is random within the modules, each once."""
        found = {
            id(generator): generator
            for module in self.learner.modules.values()
            for one in module.modules()
            if isinstance(one, SeededRandom)
            for generator, _ in one.generators
        }
        return list(found.values())


def clip_by_member(problem: TrainingProblem, largest: float, members: int) -> None:
    """Scale each member's gradient down to a norm of ``largest``, over all its parameters and no other's."""
    parts = [(part, owner) for part, owner in problem.parts() if part.grad is not None]
    squares = torch.zeros(members)
    for part, owner in parts:
        assert part.grad is not None
        squares.index_add_(0, owner, part.grad.reshape(len(part), -1).square().sum(1))
    factors = (largest / (squares.sqrt() + 1e-6)).clamp(max=1)
    for part, owner in parts:
        assert part.grad is not None
        if (mine := factors[owner]).min() < 1:
            part.grad.mul_(mine.view(-1, *[1] * (part.dim() - 1)))


def _native_bfloat16() -> bool:
    flags = torch.cpu.get_capabilities()
    return bool(flags.get("amx_bf16") or flags.get("avx512_bf16"))


def _rate(step: int, total: int, warmup: float) -> float:
    """Of the peak rate: it rises to it over the warm-up, then falls to 0 in a straight line."""
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else (total - step) / max(1, total - rising)
