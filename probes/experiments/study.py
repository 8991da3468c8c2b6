"""A study from beginning to end: stage one, the search, its report, and the best trial trained again over seeds."""

from pathlib import Path

from permafrost.data.progress import Progress
from permafrost.probes.config.load import load_recipe
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.experiments.validation import check
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.outcomes import RunResult, StudyResult
from permafrost.probes.search.session import search
from permafrost.probes.search.trials import MakeEvaluate, check_space
from permafrost.probes.variants.workspace import Workspace


def run_study(
    of: str,
    recipe: Recipe,
    name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None,
    trials: int | None,
    workers: int,
    progress: Progress,
    provider: LatentProvider,
) -> tuple[StudyResult, RunResult]:
    """Search a recipe's space, then train the best trial again; arguments as of :func:`probes.session.search`.

    Args:
        of: the recipe's name.
        provider: where the latents come from, for the search and for the training after it.
    """
    check_space(recipe)
    workspace = Workspace(provider, progress)
    metric = check(recipe, {of: recipe}, workspace.corpus(recipe.corpus))
    workspace.prepare([recipe])
    found = search(recipe, name, runs, make_evaluate, storage, trials, workers, progress, {"metric": metric})
    write_report(found.folder)
    progress.note(f"best of {found.trials:,} trials: number {found.number}, {found.value:.4f}; training it again")
    return found, run_recipe(f"{name}-best", load_recipe(str(found.recipe))[1], runs, progress, provider)
