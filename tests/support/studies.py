"""Sessions of studies that leave the folder of a real one, also where nothing is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.progress import NoProgress, Progress
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.study import write_study
from permafrost.probes.results.outcomes import StudyResult
from permafrost.probes.runs.write import RunWriter
from permafrost.probes.search import session
from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import MakeEvaluate


def search(
    recipe: Recipe,
    name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None = None,
    trials: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> StudyResult:
    """Run a session of a study whose metric is spearman, of no corpus, and write its folder."""
    writer = RunWriter(runs, name, recipe, "study")

    def write(folder: Path, trial_log: TrialLog, settings: Mapping[str, Any]) -> StudyResult:
        about = {"metric": "spearman"} | dict(settings)
        return write_study(folder, trial_log, recipe, writer, about, progress or NoProgress())

    return session.search(recipe, name, runs, make_evaluate, write, storage, trials, workers, progress)
