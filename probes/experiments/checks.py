"""Checks of recipes before extraction: whether probes, losses and fine-tuning fit the tasks of the corpora.

Everything here raises a :class:`SpecError` that names the setting, before any text is run.
"""

from collections.abc import Mapping, Sequence

from permafrost.data.spec import SpecError, nearest
from permafrost.probes.balancing.weighting import check_balancer
from permafrost.probes.config.columns import parse_input
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe, finetuned_view
from permafrost.probes.tasks.registry import Problem, check_probe
from permafrost.probes.training.parameter_groups import BACKBONE
from permafrost.probes.variants.workspace import Workspace

SHARED_PLAN_KEYS = (
    "backbone",
    "revision",
    "adapter",
    "init",
    "init_seed",
    "tokenizer",
    "template",
    "system",
    "add_special_tokens",
    "final_norm",
)
"""Keys of ``[plan]`` that must be equal for tasks that share fine-tuned blocks."""

TASK_TRAIN_KEYS = ("loss", "class_weights", "metric", "batch_rows")
"""Keys of ``[train]`` that may differ between tasks that are trained together."""

SHARED_COMPONENTS = (BACKBONE, f"{BACKBONE}.blocks")
"""Names of the components that contain everything that tasks share."""


def resolve_problems(variants: Mapping[str, Recipe], workspace: Workspace, joint: bool = True) -> dict[str, Problem]:
    """Check every variant, and return task -> its problem, whose corpus and metric all variants share.

    Args:
        joint: whether the tasks of a variant are trained together; else one after another, each as a recipe of its own.

    Raises:
        SpecError: a variant does not fit its corpora, its tasks cannot be trained together, or variants have different
            corpora for a task.
    """
    problems: dict[str, Problem] = {}
    for variant, recipe in variants.items():
        together = joint and bool(recipe.tasks)
        components = (BACKBONE, *(recipe.tasks if together else (PROBE,)))
        for task, task_recipe in recipe.task_recipes().items():
            problem = workspace.problem(task_recipe)
            label = f"{variant}, {task}" if together else task if recipe.tasks else variant
            check_task(label, task_recipe, problem, components)
            if problems.setdefault(task, problem).corpus is not problem.corpus:
                raise SpecError(
                    f"variant '{variant}': the corpus of '{task}' is not that of the variants before, and they are "
                    f"compared on the same rows; leave tasks.{task}.corpus out."
                )
        if together:
            _check_multitask(variant, recipe)
    return problems


def check_task(label: str, recipe: Recipe, problem: Problem, components: Sequence[str]) -> None:
    """Check that a recipe of one task fits the task of its corpus.

    Args:
        label: begins the messages.
        components: names that ``train.rates`` and ``train.freeze`` may begin with.
    """
    _check_components(recipe, components)
    spec, pretrains = recipe.probe, recipe.pretraining.task != "none"
    views = sorted({parse_input(source).view for source in spec.inputs} or set(recipe.plan.views))
    try:
        check_probe(spec, problem, views)
    except SpecError as error:
        raise SpecError(f"{label}: {error}") from None
    _check_finetuning(label, recipe)
    if pretrains and problem.task.reads_tokens:
        raise SpecError(
            f"{label}: pretraining works on whole texts, but {problem.task.name} reads single tokens; leave it out."
        )
    if pretrains and spec.encoder == "none":
        raise SpecError(
            f"{label}: pretraining needs an encoder with weights; set probe.encoder to linear, lowrank or mlp."
        )


def _check_multitask(variant: str, recipe: Recipe) -> None:
    """Check that a variant's tasks can be trained together: their latents can come from the same blocks."""
    if recipe.multitask.schedule == "separate":
        raise SpecError(
            f'{variant}: multitask.schedule = "separate" trains tasks separately; leave it out of the variant.'
        )
    task_recipes = recipe.task_recipes()
    for name, task_recipe in task_recipes.items():
        _check_task_train(name, task_recipe, recipe)
        if task_recipe.train.average:
            raise SpecError(
                f"{variant}: tasks that are trained together are predicted by the best seed; leave train.average out."
            )
        if task_recipe.pretraining.task != "none":
            raise SpecError(f"{variant}: tasks that are trained together do not support [pretraining]; leave it out.")
    if len(task_recipes) > 1:
        _check_balancer(variant, recipe)
    if recipe.finetune.trains_backbone:
        _check_shared_plan(variant, task_recipes)


def _check_components(recipe: Recipe, components: Sequence[str]) -> None:
    """Check that ``train.rates`` and ``train.freeze`` name components that exist."""
    for table, names in (("rates", recipe.train.rates), ("freeze", recipe.train.freeze)):
        for name in names:
            if name.split(".")[0] not in components:
                raise SpecError(f"train.{table} names the component '{name}'. {nearest(name, components)}")


def _check_finetuning(variant: str, recipe: Recipe) -> None:
    """Check that the settings of a recipe are possible with fine-tuned blocks, if it has any."""
    if not recipe.finetune.trains_backbone:
        return
    finetuned_view(recipe)
    if recipe.finetune.frozen_layers and recipe.probe.mixer == "last":
        raise SpecError(
            f'{variant}: finetune.frozen_layers has the probe read several layers, and probe.mixer = "last" reads one; '
            "set it to softmax or concat, or leave finetune.frozen_layers out."
        )
    cut = f"{variant}: finetune.cut = {recipe.finetune.cut}"
    if recipe.train.average:
        raise SpecError(f"{cut}: train.average would need one backbone per seed; leave it out.")
    if recipe.pretraining.task != "none":
        raise SpecError(f"{cut}: [pretraining] reads cached latents, and these change as blocks learn; leave it out.")
    if recipe.plan.rewording and recipe.finetune.cut != "none":
        raise SpecError(f"{cut}: tokens are cached as they are, and plan.rewording changes texts; leave it out.")


def _check_task_train(name: str, task_recipe: Recipe, recipe: Recipe) -> None:
    """Check that a task sets no key of ``[train]`` that all tasks share."""
    for key, value in vars(task_recipe.train).items():
        if key not in TASK_TRAIN_KEYS and value != getattr(recipe.train, key):
            raise SpecError(
                f"[tasks.{name}]: train.{key} is of all tasks that are trained together; set it in [train]. A task may "
                f"set {', '.join(TASK_TRAIN_KEYS)}."
            )


def _check_balancer(variant: str, recipe: Recipe) -> None:
    frozen = any(recipe.train.freeze.get(component) == 0 for component in SHARED_COMPONENTS)
    shares = recipe.finetune.trains_backbone and not frozen
    joint = recipe.multitask.schedule == "joint"
    try:
        check_balancer(recipe.balancing, list(recipe.task_recipes()), shares, joint, recipe.tasks)
    except SpecError as error:
        raise SpecError(f"{variant}: {error}") from None


def _check_shared_plan(variant: str, task_recipes: Mapping[str, Recipe]) -> None:
    """Check that the plans of tasks that share fine-tuned blocks are of one backbone."""
    first, first_recipe = next(iter(task_recipes.items()))
    for name, task_recipe in task_recipes.items():
        for key in SHARED_PLAN_KEYS:
            expected, value = getattr(first_recipe.plan, key), getattr(task_recipe.plan, key)
            if value != expected:
                raise SpecError(
                    f"{variant}: the views of '{first}' and '{name}' cannot come from the same blocks: plan.{key} is "
                    f"{expected!r} there and {value!r} here."
                )
