"""The experiment: what every command that trains has in common, from the workspace to the run folder.

A command says what it trains and which rows and tables it writes; see :mod:`permafrost.probes.experiments.run`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd

from permafrost.data.atomic import temporary_path
from permafrost.data.corpora.records import CorpusError
from permafrost.data.errors import InputError
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.checks import resolve_problems
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.results.read_result import read_result
from permafrost.probes.runs.write import RunWriter, TaskContents
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.tracking.tracking import Tracking
from permafrost.probes.training.resume import UnfinishedTrainings
from permafrost.probes.variants.record import Stores, data_record, task_record
from permafrost.probes.variants.tables import skipped_table
from permafrost.probes.variants.workspace import Workspace

T = TypeVar("T")


class Experiment:
    """One command that trains: its workspace, its checkpoints and its run folder; a context manager.

    Its checkpoints are removed once the command ends, unless it was stopped or the machine failed: then the same
    command goes on from them.
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        runs: Path | Destination,
        progress: Progress,
        provider: LatentProvider,
        kind: str,
    ) -> None:
        """Create an experiment.

        Args:
            name: name of the run folder, without its number; a destination with a name of its own takes its place.
            runs: folder of run folders, or the folder of this run.
            kind: what the run folder is, a key of :data:`permafrost.probes.reports.report.PAGES`.
        """
        self.recipe = recipe
        self.writer = RunWriter(runs, name, recipe, kind)
        destination = Destination.of(runs)
        name = destination.name or name
        self._unfinished = UnfinishedTrainings.of(destination.runs, name, recipe, progress)
        self._tracking = Tracking(name, kind, recipe, self._tracking_folder, progress)
        self.progress = self._tracking.progress
        self.workspace = Workspace(provider, self.progress, unfinished=self._unfinished)
        self._stack, self._holds = ExitStack(), False
        self._left_out: dict[str, InputError] = {}
        self._training_started = time.perf_counter()

    def __enter__(self) -> Self:
        """Return the experiment; :meth:`prepare` takes hold of its checkpoints."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the checkpoints if the command has ended, or would end the same again."""
        self._tracking.__exit__(kind, error, trace)
        same_again = isinstance(error, SpecError | CorpusError) and not self._left_out
        if self._holds and (error is None or same_again):
            self._unfinished.remove()
        self._stack.__exit__(kind, error, trace)

    def prepare(self, variants: Mapping[str, Recipe], joint: bool = True) -> dict[str, Problem]:
        """Check every variant and get its latents; return task -> its problem.

        A variant whose latents cannot be got is left out later, if others remain.

        Args:
            joint: whether the tasks of a variant are trained together.

        Raises:
            InputError: a variant does not fit its corpus, or no variant can be read.
        """
        problems = resolve_problems(variants, self.workspace, joint)
        holds = self._stack.enter_context(self._unfinished.held())
        if not holds:
            self.workspace.unfinished = None
            self.progress.note(
                f"an equal run is under way in another process, which holds {self._unfinished.path}; this one goes on "
                "beside it, and keeps no checkpoints."
            )
        self._note_unmeasured(problems.values())
        task_recipes = {variant: list(recipe.task_recipes().values()) for variant, recipe in variants.items()}
        try:
            self.workspace.prepare([recipe for recipes in task_recipes.values() for recipe in recipes])
        except InputError:
            if len(variants) == 1:
                raise
            for variant, recipes in task_recipes.items():
                try:
                    self.workspace.prepare(recipes)
                except InputError as error:
                    self._left_out[variant] = error
            if len(self._left_out) == len(variants):
                raise next(iter(self._left_out.values())) from None
        self._holds = holds  # from here on an error of the recipe would come again
        self._tracking.start()
        self._training_started = time.perf_counter()
        return problems

    def _tracking_folder(self) -> Path:
        """Return the folder of what trackers keep until the run folder is there: that of the checkpoints, if held."""
        if self._holds:
            return self._unfinished.path
        return self._stack.enter_context(temporary_path(self._unfinished.path.parent))

    def _note_unmeasured(self, problems: Iterable[Problem]) -> None:
        """Say why a split will have no metric, or no correlation."""
        for corpus in {id(problem.corpus): problem.corpus for problem in problems}.values():
            for split, rows in corpus.splits.items():
                if split != "train" and len(rows) < 2:
                    self.progress.note(f"{corpus.name}: {split} has {len(rows)} row: no metric, which needs two")
                elif split != "train" and corpus.score_range and np.ptp(rows.targets) == 0:
                    self.progress.note(f"{corpus.name}: all scores of {split} are the same: no correlation")

    def train(
        self,
        variants: Mapping[str, Recipe],
        train: Callable[[str, Recipe, Workspace], T],
        keep: Callable[[list[T]], list[T]],
    ) -> tuple[list[T], dict[str, str]]:
        """Train every variant; return the trained ones, and variant -> reason of those that are left out.

        A variant that cannot be trained is left out, so that a run does not lose the others.

        Args:
            keep: applied to the variants trained so far after each training, to free memory.

        Raises:
            InputError: no variant can be trained.
        """
        trained: list[T] = []
        refused = dict(self._left_out)
        self._note_left_out(refused)
        for variant, recipe in variants.items():
            if variant not in refused:
                try:
                    trained = keep([*trained, train(variant, recipe, self.workspace)])
                except (SpecError, CorpusError) as error:
                    refused[variant] = error
        if not trained:
            raise next(iter(refused.values()))
        self._note_left_out({variant: reason for variant, reason in refused.items() if variant not in self._left_out})
        return trained, {variant: str(reason) for variant, reason in refused.items()}

    def _note_left_out(self, refused: Mapping[str, InputError]) -> None:
        for variant, reason in refused.items():
            self.progress.note(f"{variant} is left out: {reason}")

    def finish(
        self,
        rows: Sequence[MetricRow],
        problems: Mapping[str, Problem],
        stores: Stores,
        record: Mapping[str, Any],
        tables: Mapping[str, pd.DataFrame] | None = None,
        tasks: Mapping[str, TaskContents] | None = None,
    ) -> RunResult:
        """Write the run folder and return the result.

        Args:
            rows: of ``metrics.csv``.
            problems: task -> its problem.
            stores: the latents that were read.
            record: what the record says besides what every experiment has.
            tables: further tables by name.
            tasks: what predicts new texts, and its tables, by task.
        """
        corpora = [problem.corpus for problem in problems.values()]
        common = data_record(corpora, stores, self.workspace.stored.values())
        seconds = {"training": time.perf_counter() - self._training_started}
        metrics = {task: problem.metric for task, problem in problems.items()}
        selection = {"metric": metrics[PROBE]} if set(metrics) == {PROBE} else {"metrics": metrics}
        data = {"data": self.workspace.data_digests(self.recipe.corpora())}
        tasks_of = {"tasks": task_record(problems)}
        complete = common | selection | tasks_of | {"seconds": seconds} | data | dict(record)
        all_tables = {"metrics": metrics_frame(rows), "skipped": skipped_table(corpora)} | dict(tables or {})
        path = self.writer.write(complete, all_tables, tasks or {}, self._tracking.folders())
        self.progress.event("measured", run=str(path), selected=str(record.get("selected", "")), **selection)
        return read_result(path)
