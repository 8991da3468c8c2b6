"""Commands that train: how to run one, what it has committed, and whether it ends as an undisturbed one."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from permafrost.probes.reports import report
from permafrost.probes.training.checkpoint import Checkpoint
from permafrost.probes.training.step import StepRunner
from tests.faults.process import Injection
from tests.faults.workspace import Workspace
from tests.support.bench import Bench

RESUMES = re.compile(r"resuming from step (\d+)")


@dataclass(frozen=True)
class Finished:
    """What a command that was run again has left."""

    lost: int
    """Texts and steps that were committed, and ran again."""

    wrong: int
    """Files that differ from those of an undisturbed command."""

    left: list[str] = field(default_factory=list)
    """Temporary files and checkpoints that are still there."""


class Committed(NamedTuple):
    """What is safe on the disk when a command is run again."""

    texts: int
    steps: int
    is_whole: bool
    """Whether nothing is left to do."""


class Command(ABC):
    """A command in a folder of its own."""

    name: str

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        """Make the folder, with a cache that knows what was proven of the backbone."""
        self.workspace, self.bench = workspace, Bench(folder / "bench", workspace.backbone)
        self.log = folder / "steps.txt"
        workspace.cache(self.bench.folder)
        self.log.touch()

    @abstractmethod
    def work(self) -> int:
        """Run it in this process; return the exit code."""

    @abstractmethod
    def committed(self) -> Committed:
        """Return what is committed now."""

    @abstractmethod
    def compared(self, before: Committed | None, said: str) -> Finished:
        """Compare what is there with what an undisturbed command leaves.

        Args:
            before: what was committed when it was run again; None if that is not to be compared.
            said: what the last process said.
        """

    @property
    @abstractmethod
    def unfinished(self) -> Path:
        """Folder of the checkpoints."""

    @property
    def runs(self) -> list[Path]:
        """Run folders that are complete, in the order of their numbers."""
        found = self.bench.runs.glob("[!.]*-[0-9]*") if self.bench.runs.exists() else []
        return sorted(path for path in found if (path / "record.json").exists())

    @cached_property
    def points(self) -> list[str]:
        """The calls of an undisturbed command that change files."""
        found: list[str] = json.loads(self.workspace.points(self.name).read_text())
        return found

    @property
    def reference(self) -> Path:
        """Folder of an undisturbed command."""
        return self.workspace.folder / self.name / "bench"

    def plant(self, injection: Injection | None = None, is_drawn: bool = True) -> None:
        """Log the steps of this process, and plant a fault.

        Args:
            is_drawn: whether the page of the run is drawn, which takes longer than the run.
        """
        watch(self.log)
        if not is_drawn:
            report.write_report = lambda folder: folder
        if injection:
            injection.plant()

    def left(self) -> list[str]:
        """Return what should not be there any more."""
        return [path.name for path in self.bench.folder.rglob("*") if path.name.endswith((".tmp", ".checkpoints"))]


class Run(Command):
    """``run`` of a small recipe, with a checkpoint after each step."""

    name = "run"

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        """Make the folder, and write the corpus."""
        super().__init__(workspace, folder)
        small = ("train.epochs=2", "train.batch_rows=16", "train.checkpoint_seconds=0", "variants=[]")
        self._settings = self.bench.of_pairs("corpus.target=score", "corpus.name=", *small)

    def work(self) -> int:
        """Run it in this process; return the exit code."""
        code, _, said = self.bench.command("run", "sts", settings=self._settings)
        print(said)
        return code

    @property
    def unfinished(self) -> Path:
        """Folder of the checkpoints."""
        return self.bench.runs / "unfinished"

    def committed(self) -> Committed:
        """Return the texts that are stored, and the steps of which a checkpoint was written."""
        texts = self.workspace.stored(self.bench.folder / "cache").result
        steps = self.log.read_text()
        with self.log.open("a") as log:
            log.write("|")
        return Committed(len(texts), steps[: steps.rfind("S") + 1].count("."), bool(self.runs))

    def compared(self, before: Committed | None, said: str) -> Finished:
        """Compare the tables and the probe, and count texts and steps that ran again."""
        (whole,) = self.reference.glob("runs/sts-1")
        names = ("metrics.csv", "predictions.csv", "probe.safetensors")
        wrong = sum((run / name).read_bytes() != (whole / name).read_bytes() for run in self.runs for name in names)
        lost = 0
        if before:
            record = json.loads((self.runs[-1] / "record.json").read_text())
            lost = max(0, before.texts + record["texts_run"] - record["texts_distinct"])
            if not before.is_whole:
                ran = self.log.read_text().rpartition("|")[2].count(".")
                undisturbed = (self.reference.parent / "steps.txt").read_text().count(".")
                lost += max(0, before.steps + ran - undisturbed)
        left = self.left() + (["unfinished"] if self.unfinished.exists() else [])
        return Finished(lost, wrong, left)


class Pretraining(Command):
    """``pretrain`` of a small language model, with a checkpoint after every second step."""

    name = "pretrain"

    def work(self) -> int:
        """Run it in this process; return the exit code."""
        from tests.end_to_end.test_pretrain import small

        settings = small(self.bench, "lines=true", "checkpoint_steps=2", "width=8", "inner=8")
        code, _, said = self.bench.command("pretrain", "gpt-small", settings=settings)
        print(said)
        return code

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.bench.folder / "cache" / "models" / "gpt-small"

    @property
    def unfinished(self) -> Path:
        """Folder of the checkpoints."""
        return self.model.with_name("gpt-small.checkpoints")

    def committed(self) -> Committed:
        """Return the steps that the newest complete checkpoint has."""
        steps = [int(path.parent.name.rpartition("-")[2]) for path in self.unfinished.glob("checkpoint-*/whole.json")]
        return Committed(0, max(steps, default=0), self.model.exists())

    def compared(self, before: Committed | None, said: str) -> Finished:
        """Compare the weights and the losses, and count the steps that ran again."""
        weights = "cache/models/gpt-small/model.safetensors"
        wrong = int((self.bench.folder / weights).read_bytes() != (self.reference / weights).read_bytes())
        (whole,) = self.reference.glob("runs/gpt-small-pretraining-1")
        wrong += sum((run / "losses.csv").read_bytes() != (whole / "losses.csv").read_bytes() for run in self.runs)
        lost = 0
        if before and before.is_whole:
            lost = int("is there already" not in said)
        elif before:
            found = RESUMES.search(said)
            lost = max(0, before.steps - int(found[1] if found else 0))
        return Finished(lost, wrong, self.left() + ([] if self.runs else ["no run"]))


def watch(log: Path) -> None:
    """Log a dot for each training step of this process that has ended, and an S for each checkpoint."""

    def logged(mark: bytes, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = work(*arguments)
            with log.open("ab", buffering=0) as file:
                file.write(mark)
            return result

        return call

    Checkpoint.save = logged(b"S", Checkpoint.save)  # type: ignore[method-assign]
    StepRunner.run = logged(b".", StepRunner.run)  # type: ignore[method-assign]


COMMANDS: tuple[type[Command], ...] = (Run, Pretraining)
