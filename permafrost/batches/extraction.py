"""Extraction of a batch: what all its runs need of a store is extracted in one pass, so that no text runs twice."""

from collections.abc import Iterable, Sequence

from permafrost.batches.plan import LoadedItem
from permafrost.data.errors import PermafrostError
from permafrost.data.progress import Progress
from permafrost.data.spec import fingerprint
from permafrost.extract.extraction import extract_together
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.variants.latent_workspace import LatentRequest, LatentWorkspace, requests_of
from permafrost.stage_one import with_pretrained_backbone


def extract_batch(items: Iterable[LoadedItem], workspace: LatentWorkspace, progress: Progress) -> int:
    """Extract the latents of all runs that are not stored; return the number of texts that ran.

    The runs are always all of the batch, done or not, so that a batch that was killed runs the same packs of texts.
    What cannot be extracted is noted and left to the runs that need it: they end with the error.
    """
    groups: dict[str, list[LatentRequest]] = {}
    for item in items:
        try:
            recipe = with_pretrained_backbone(item.recipe_name, item.recipe, None, progress)
            requests = [request for each in _task_recipes(recipe) for request in requests_of(each)]
            for request in requests:
                workspace.corpus(request.corpus)
        except PermafrostError as error:
            progress.note(f"{item.item.name}: {error}")
            continue
        for request in requests:
            groups.setdefault(fingerprint([request.plan.same_store, request.extract]), []).append(request)
    return sum(_extract(requests, workspace, progress) for requests in groups.values())


def _task_recipes(recipe: Recipe) -> list[Recipe]:
    if recipe.similarity.texts:  # a comparison extracts its few sentences itself
        return []
    return [task for variant in recipe.variant_recipes().values() for task in variant.task_recipes().values()]


def _extract(requests: Sequence[LatentRequest], workspace: LatentWorkspace, progress: Progress) -> int:
    backbone, distinct = requests[0].plan.backbone, {fingerprint([each.corpus, each.plan]): each for each in requests}
    try:
        wanted = [(request.plan, workspace.corpus(request.corpus).texts) for request in distinct.values()]
        run = extract_together(wanted, requests[0].extract, progress)
    except PermafrostError as error:
        progress.note(f"stage one of the batch, {backbone}: {error}")
        return 0
    texts = len({text for _, texts in wanted for text in texts})
    progress.note(f"stage one of the batch, {backbone}: {run:,} of {texts:,} texts run")
    return run
