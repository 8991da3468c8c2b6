"""Junction of the two stages: experiments and predictions of stage two, given what they run of stage one.

Importing this loads torch, so :mod:`permafrost.api` does so once a recipe has been checked.
"""

from functools import partial
from pathlib import Path

from permafrost.data.progress import NoProgress, Progress
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.load import Backbone
from permafrost.extract.extractor import Extractor, matching_extractor
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.layers import run_layers
from permafrost.probes.experiments.run import run_recipe
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.inputs.shared_memory import SharedInputs
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.search.trials import Evaluate
from permafrost.probes.variants.train_variant import evaluate_recipe
from permafrost.probes.variants.workspace import Workspace
from permafrost.stage_one import PROVIDER

ELSEWHERE = "If the backbone of the run lies elsewhere now, name its place by --backbone (in Python, backbone=)."
"""What to do about a backbone that is not found."""


def make_extractor(run: LoadedRun, plan_name: str, loaded: Backbone | None) -> Extractor:
    """Return an extractor for new texts of a finished run.

    Args:
        loaded: the backbone of the run if it is in memory already.
    """
    plan, spec = run.capture_plan(plan_name), run.recipe.extract
    if run.backbone_folder:
        return Extractor(plan, spec, loaded)
    try:
        return matching_extractor(plan, spec, run.identities[plan_name], str(run.path), loaded)
    except BackboneError as error:
        raise BackboneError(f"{run.path}: {error} {ELSEWHERE}") from error


def make_evaluate(recipe: Recipe, folder: Path) -> Evaluate:
    """Return the function with which a worker of a study evaluates a trial; latents are shared in ``folder``."""
    return partial(evaluate_recipe, Workspace(PROVIDER, NoProgress(), SharedInputs(folder)))


def train_probes(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider = PROVIDER
) -> RunResult:
    """Train and evaluate every variant of a recipe, or every layer alone if it trains its tasks separately."""
    experiment = run_layers if recipe.tasks and recipe.multitask.schedule == "separate" else run_recipe
    return experiment(name, recipe, runs, progress, provider)
