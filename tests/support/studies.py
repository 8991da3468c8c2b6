"""Sessions of studies that leave the folder of a real one, also where nothing is trained."""

from pathlib import Path

from permafrost.data.progress import NoProgress, Progress
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.study import write_study
from permafrost.probes.results.outcomes import StudyResult
from permafrost.probes.runs.write import RunWriter
from permafrost.probes.search import session
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
    again: bool = False,
) -> StudyResult:
    """Run a session of a study whose metric is spearman, of no corpus, and write its folder."""
    writer = RunWriter(runs, name, recipe, "study")
    with session.searched(recipe, name, runs, make_evaluate, storage, trials, workers, progress, again) as search:
        if search.elsewhere:
            raise search.elsewhere
        about = {"metric": "spearman"} | dict(search.settings)
        return write_study(search.folder, search.trial_log, recipe, writer, about, progress or NoProgress())
