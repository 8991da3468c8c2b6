"""TODO: probes/experiments/validation.py."""

from collections.abc import Mapping, Sequence

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.spec import SpecError, nearest
from permafrost.probes.balancing.weighting import check_balancer
from permafrost.probes.config.columns import parse_input
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.tasks.registry import ONE_BY_ONE, check_probe, head_of, loss_and_metric, task_of, texts_per_row
from permafrost.probes.training.parameter_groups import BACKBONE
from permafrost.probes.variants.workspace import Workspace


def check_fixed(recipe: Recipe, way_out: str = "'run' the recipe") -> None:
    """Raise a :class:`SpecError` where a recipe has blocks learn, and what is to be compared are layers as they are."""
    if recipe.finetune.learns:
        raise SpecError(
            f"finetune.cut = {recipe.finetune.cut}: the layers of blocks that learn are no fixed inputs, and cannot be "
            f'compared; set finetune.cut = "frozen", or {way_out}.'
        )


def check_names(recipe: Recipe, components: Sequence[str]) -> None:
    """Raise a :class:`SpecError` where a rate is given to what there is not, or it is to be frozen."""
    for table, names in (("rates", recipe.train.rates), ("freeze", recipe.train.freeze)):
        for name in names:
            if name.split(".")[0] not in components:
                raise SpecError(f"train.{table} names the component '{name}'. {nearest(name, components)}")


def check_finetuning(variant: str, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` where a recipe asks of blocks that learn what they cannot do."""
    if not recipe.finetune.learns:
        return
    finetuned_view(recipe)
    if recipe.finetune.frozen_layers and recipe.probe.mixer == "last":
        raise SpecError(
            f'{variant}: finetune.frozen_layers has the probe read several layers, and probe.mixer = "last" reads one; set it to '
            "softmax or concat, or leave finetune.frozen_layers out."
        )
    cut = f"{variant}: finetune.cut = {recipe.finetune.cut}"
    if recipe.train.average:
        raise SpecError(f"{cut}: seeds that answer together would need a backbone each; leave train.average out.")
    if recipe.pretraining.task != "none":
        raise SpecError(f"{cut}: [pretraining] reads cached latents, and these change as blocks learn; leave it out.")
    if recipe.plan.rewording and recipe.finetune.cut != "none":
        raise SpecError(f"{cut}: tokens are cached as they are, and plan.rewording changes texts; leave it out.")


def check(
    recipe: Recipe, variants: Mapping[str, Recipe], corpus: Corpus, components: Sequence[str] = (PROBE, BACKBONE)
) -> str:
    """Whether every variant fits the corpus's task, before stage one; returns the metric that chooses.

    Args:
        components: those whose parts the recipe may name.
    """
    task = task_of(corpus)
    for name, variant in variants.items():
        check_names(variant, components)
        loss_and_metric(variant, task)
        spec = variant.probe
        views = sorted({parse_input(one).view for one in spec.inputs} or set(variant.plan.views))
        try:
            check_probe(spec, corpus.kind, texts_per_row(corpus), views)
        except SpecError as error:
            raise SpecError(f"{name}: {error}") from None
        check_finetuning(name, variant)
        if variant.pretraining.task != "none" and head_of(spec, corpus.kind, texts_per_row(corpus)) in ONE_BY_ONE:
            raise SpecError(f"{name}: pretraining is of whole texts, and {task.name} reads every token; leave it out.")
        if spec.encoder == "none" and variant.pretraining.task != "none":
            raise SpecError(
                f"{name}: pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp."
            )
    return loss_and_metric(recipe, task)[1]


ONE_TRUNK = ("backbone", "revision", "init", "init_seed", "tokenizer", "template", "final_norm")
"""What of a plan the blocks of one backbone have in common."""

OF_A_TASK = ("loss", "metric", "batch_rows")
"""What of [train] tasks that are trained together may differ in."""

ALL_SHARED = (BACKBONE, f"{BACKBONE}.blocks")
"""Components that are all that tasks share, by name."""


def check_multitask(variant: str, recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    """Whether a variant's tasks can be trained together, before stage one; returns the metric of each.

    Raises:
        SpecError: tasks whose latents cannot come from the same blocks, or a task that does not fit its corpus.
    """
    if recipe.multitask.schedule == "separate":
        raise SpecError(
            f'{variant}: multitask.schedule = "separate" trains no task together; leave it out of the variant.'
        )
    task_recipes = recipe.task_recipes()
    metrics = {}
    for name, task in task_recipes.items():
        _check_train(name, task, recipe)
        corpus = workspace.corpus(task.corpus)
        metrics[name] = check(task, {f"{variant}, {name}": task}, corpus, (BACKBONE, *recipe.tasks))
        if task.train.average:
            raise SpecError(f"{variant}: tasks that are trained together are answered by the best seed, not by all.")
        if task.pretraining.task != "none":
            raise SpecError(f"{variant}: tasks that are trained together know no [pretraining]; leave it out.")
    if len(task_recipes) > 1:
        _check_balancer(variant, recipe)
    if not recipe.finetune.learns:
        return metrics
    first, one = next(iter(task_recipes.items()))
    for name, task in task_recipes.items():
        for key in ONE_TRUNK:
            mine, theirs = getattr(one.plan, key), getattr(task.plan, key)
            if mine != theirs:
                raise SpecError(
                    f"{variant}: the views of '{first}' and '{name}' cannot come from the same blocks: plan.{key} is "
                    f"{mine!r} there and {theirs!r} here."
                )
    return metrics


def _check_balancer(variant: str, recipe: Recipe) -> None:
    joint = recipe.multitask.schedule == "joint"
    try:
        check_balancer(recipe.balancing, list(recipe.task_recipes()), _shares(recipe), joint, recipe.tasks)
    except SpecError as error:
        raise SpecError(f"{variant}: {error}") from None


def _shares(recipe: Recipe) -> bool:
    """Whether anything that is shared learns."""
    return recipe.finetune.learns and not any(recipe.train.freeze.get(one) == 0 for one in ALL_SHARED)


def _check_train(name: str, task: Recipe, recipe: Recipe) -> None:
    """Raise a :class:`SpecError` where a task would be trained otherwise than the tasks it is trained with."""
    for key, value in vars(task.train).items():
        if key not in OF_A_TASK and value != getattr(recipe.train, key):
            raise SpecError(
                f"[tasks.{name}]: train.{key} is of all tasks that are trained together; set it in [train]. A task may "
                f"set {', '.join(OF_A_TASK)}."
            )
