"""Backbones of finished runs on this machine: whether they are those of training, and where they lie now."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from permafrost.data.errors import CorpusError
from permafrost.data.spec import SpecError
from permafrost.data.store.identity import check_same_latents
from permafrost.extract.architecture.configuration import BackboneError
from permafrost.extract.backbones.identity import backbone_digests
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.stages import ELSEWHERE


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
