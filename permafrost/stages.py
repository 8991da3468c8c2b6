"""Junction of the two stages: experiments and predictions of stage two, given what they run of stage one.

Importing this loads torch, so :mod:`permafrost.api` does so once a recipe has been checked.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from permafrost.data.errors import CorpusError
from permafrost.data.machine import check_device_here
from permafrost.data.progress import EventsOnly, Progress, Receive
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import check_same_latents
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.identity import backbone_digests
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
from permafrost.probes.variants.workspace import Workspace, device_of
from permafrost.stage_one import PROVIDER

ELSEWHERE = "If the backbone of the run lies elsewhere now, name its place by --backbone (in Python, backbone=)."
"""What to do about a backbone that is not found."""


def make_extractor(run: LoadedRun, plan_name: str, loaded: Backbone | None) -> Extractor:
    """Return an extractor for new texts of a finished run.

    Args:
        loaded: the backbone of the run if it is in memory already.
    """
    plan, spec = run.capture_plan(plan_name), run.recipe.extraction
    if run.backbone_folder:
        return Extractor(plan, spec, loaded)
    try:
        return matching_extractor(plan, spec, run.identities[plan_name], str(run.path), loaded)
    except BackboneError as error:
        raise BackboneError(f"{run.path}: {error} {ELSEWHERE}") from error


def make_evaluate(recipe: Recipe, folder: Path, receive: Receive) -> Evaluate:
    """Return the function with which a worker of a study evaluates a trial; latents are shared in ``folder``."""
    return partial(evaluate_recipe, Workspace(PROVIDER, EventsOnly(receive), SharedInputs(folder)))


def train_probes(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider = PROVIDER
) -> RunResult:
    """Train and evaluate every variant of a recipe, or every layer alone if it trains its tasks separately."""
    experiment = run_layers if recipe.tasks and recipe.multitask.schedule == "separate" else run_recipe
    return experiment(name, recipe, runs, progress, provider)


def with_device(run: LoadedRun, device: str) -> LoadedRun:
    """Return a run that predicts on a device; if it is empty, on that of its recipe, or "auto" if there is none here.

    Raises:
        SpecError: this machine has no such device.
    """
    recipe = run.recipe
    own = "auto" if device else _device_here(recipe.extract.device)
    recipe = replace(recipe, device=device or _device_here(recipe.device), extract=replace(recipe.extract, device=own))
    return replace(run, recipe=recipe, probe=run.probe.to(device_of(recipe)))


def _device_here(name: str) -> str:
    try:
        check_device_here(name)
    except SpecError:
        return "auto"
    return name


def with_backbone(run: LoadedRun, backbone: str) -> LoadedRun:
    """Return a run whose backbone is read from another place; an empty place changes nothing.

    Of a run that reads several backbones, that with the same weights and tokenizer is read from there.

    Raises:
        SpecError: the run has its fine-tuned backbone in its own folder.
        CorpusError: the run reads no backbone with these weights and this tokenizer.
    """
    if not backbone:
        return run
    if run.backbone_folder:
        raise SpecError(f"{run.path} has its fine-tuned backbone in its own folder; leave --backbone out.")
    place: dict[str, Any] = {"backbone": backbone, "revision": ""}
    recipe, errors = run.recipe, list[CorpusError]()
    for name in run.identities:
        moved = _with_place(recipe, name, place)
        try:
            check_backbone(replace(run, recipe=moved), [name])
        except CorpusError as error:
            errors.append(error)
            continue
        recipe = moved
    if len(errors) == len(run.identities):
        raise errors[0]
    return replace(run, recipe=recipe)


def _with_place(recipe: Recipe, plan: str, place: dict[str, Any]) -> Recipe:
    """Return a recipe with another place of a plan's backbone."""
    if not plan:
        return replace(recipe, plan=replace(recipe.plan, **place))
    return replace(recipe, plans=recipe.plans | {plan: recipe.plans[plan] | place})


def check_backbone(run: LoadedRun, plans: Iterable[str] | None = None) -> None:
    """Check that the backbones found on this machine are those of a run; none is loaded.

    Args:
        plans: names of the plans whose backbones are checked; None checks those of all.

    Raises:
        BackboneError: one cannot be found.
        CorpusError: one has other weights or another tokenizer.
    """
    if run.backbone_folder:
        return
    for name in run.identities if plans is None else plans:
        plan, identity = run.recipe.capture_plan(name), run.identities[name]
        try:
            found: dict[str, Any] = dict(backbone_digests(plan, run.recipe.extract))
        except BackboneError as error:
            raise BackboneError(f"{run.path}: {error} {ELSEWHERE}") from error
        check_same_latents(replace(identity, **found), identity, str(run.path), plan.backbone)
