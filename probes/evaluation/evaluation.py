"""What is evaluated and what comes out: a task of a run, the data sets it is evaluated on, and its figures on one."""

from collections.abc import Sequence
from dataclasses import dataclass

from permafrost.data.plan.plan import ExtractSpec
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.evaluation.corpus import EvaluationData
from permafrost.probes.evaluation.labels import LabelMap
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.variants.trained_variant import TrainedTask


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedRun:
    """One task of a finished run, to be evaluated."""

    name: str
    """Name of the run in the tables."""

    task: str
    """Name of the task; "probe" if the run has one."""

    run: LoadedRun
    selected: str
    """Name of the run's chosen variant."""

    metric: str
    """The run's selection metric."""

    data: Sequence[EvaluationData]
    """Data sets that it is evaluated on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """One task of a run on one data set, measured."""

    evaluated: EvaluatedRun
    data: EvaluationData
    recipe: Recipe
    """Recipe by which the texts are read."""

    predicted: TrainedTask
    rows: Sequence[MetricRow]
    """Of the untrained reference, and of the run."""

    @property
    def problem(self) -> Problem:
        """Corpus, task and metric."""
        return self.predicted.problem

    @property
    def split(self) -> str:
        """The split that was evaluated."""
        return self.problem.corpus.test_split


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What holds for all runs and data of an evaluation."""

    extract: ExtractSpec | None = None
    """Where latents are cached, and how missing ones are extracted; None as the recipe of each run has it."""

    split: str = ""
    """Split to evaluate on; empty takes test, else validation, else the only one, or all rows of data without
    splits."""

    label_map: LabelMap
    """Label of the data -> label of a run; empty leaves it out."""
