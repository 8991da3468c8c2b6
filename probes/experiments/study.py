"""Study of a recipe: extraction, search, report of the search, and the best trial trained again with several seeds."""

from pathlib import Path

from permafrost.data.progress import Progress
from permafrost.probes.config.load import load_recipe
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.outcomes import RunResult, StudyResult
from permafrost.probes.search.session import search
from permafrost.probes.search.trials import MakeEvaluate, check_space
from permafrost.probes.variants.workspace import Workspace


def run_study(
    name: str,
    recipe: Recipe,
    study_name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None,
    trials: int | None,
    workers: int,
    progress: Progress,
    provider: LatentProvider,
) -> tuple[StudyResult, RunResult]:
    """Search a recipe's space, then train the best trial again.

    Args:
        name: name of the recipe.
        provider: of the latents, for the search and for the training after it.

    The other arguments are those of :func:`permafrost.probes.search.session.search`.
    """
    check_space(recipe)
    workspace = Workspace(provider, progress)
    metric = check_variants(recipe, {name: recipe}, workspace.corpus(recipe.corpus))
    workspace.prepare([recipe])
    study = search(recipe, study_name, runs, make_evaluate, storage, trials, workers, progress, {"metric": metric})
    write_report(study.folder)
    progress.note(f"best of {study.trials:,} trials: number {study.number}, {study.value:.4f}; training it again")
    _, best_recipe = load_recipe(str(study.recipe))
    return study, run_recipe(f"{study_name}-best", best_recipe, runs, progress, provider)
