"""Ablation: the same probe on subsets of its layers, with several seeds, and controls for comparison.

Every distinct subset is trained once, whichever kinds name it. Metrics are means over seeds, or of the seeds' mean
prediction (``train.average``), with a bootstrap 95 % interval over rows, and a paired test against the last layer
alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from permafrost.data.progress import Progress
from permafrost.data.spec import assign, parse, plain
from permafrost.probes.config.ablation import subsets
from permafrost.probes.config.load import check_frozen
from permafrost.probes.config.names import PROBE, RANDOM_TARGETS
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.experiment import Experiment
from permafrost.probes.experiments.subsets import SubsetTrainer
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.tasks.rows import shuffle_targets
from permafrost.probes.variants.record import latent_stores
from permafrost.probes.variants.workspace import Workspace


def run_ablation(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider
) -> RunResult:
    """Ablate a recipe and write a run folder ``ablate-<recipe>-<n>``."""
    recipe = replace(recipe, variants=())
    check_frozen(recipe)
    with Experiment(f"ablate-{name}", recipe, runs, progress, provider, "ablation") as experiment:
        problems = experiment.prepare({name: recipe})
        rows = ablate(PROBE, recipe, experiment.workspace, recipe.ablation.kinds, recipe.ablation.backbones)
        stores = latent_stores({name: recipe}, experiment.workspace)
        return experiment.finish(rows, problems, stores, {"seeds": list(recipe.train.seeds)})


def ablate(
    task: str, recipe: Recipe, workspace: Workspace, kinds: Sequence[str], backbones: Sequence[str] = ()
) -> list[MetricRow]:
    """Train and measure subsets of layers, the controls of ``recipe.ablation``, and further backbones.

    Args:
        task: name of the recipe's task.
        recipe: of one task; its latents are in the workspace.
        kinds: kinds of subsets, besides all layers and each layer alone.
    """
    trained = SubsetTrainer(task, recipe, workspace)
    further = [kind for kind in kinds if kind not in ("single", "greedy")]
    wanted = [subset for kind in ("all", "single", *further) for subset in subsets(kind, trained.columns)]
    trained.train(wanted, "subsets of layers")
    if "greedy" in kinds:
        wanted += trained.select_greedily(recipe.ablation.greedy)
    rows = [row for subset in wanted for row in trained.rows(subset, trained)]
    if "random_targets" in recipe.ablation.controls:
        memorised = [subset for subset in wanted if subset.kind in ("all", "single")]
        rows += [row for subset in memorised for row in trained.rows(subset, trained, ["train"])]
    for control in recipe.ablation.controls:
        rows += _control_rows(control, trained)
    for backbone in backbones:
        rows += _backbone_rows(backbone, trained)
    return rows


def _control_rows(control: str, trained: SubsetTrainer) -> Iterator[MetricRow]:
    """Train and measure all layers, and each alone, on an untrained backbone or on shuffled targets."""
    recipe, workspace, problem = trained.recipe, trained.workspace, trained.problem
    reference, splits = (trained, ()) if control == "untrained" else (None, ("train",))
    if control == "untrained":
        recipe = _with_setting(recipe, "plan.init", "random")
        workspace.prepare([recipe])
        trainer = SubsetTrainer(trained.task, recipe, workspace, control)
    else:
        shuffled = replace(problem, corpus=shuffle_targets(problem.task, problem.corpus, recipe.train.seeds[0]))
        trainer = SubsetTrainer(trained.task, recipe, workspace, RANDOM_TARGETS, shuffled)
    wanted = [*subsets("all", trainer.columns), *subsets("single", trainer.columns)]
    trainer.train(wanted, f"control: {trainer.control}")
    for subset in wanted:
        yield from trainer.rows(subset, reference, splits)


def _backbone_rows(name: str, trained: SubsetTrainer) -> Iterator[MetricRow]:
    """Train and measure all layers, and the last layer alone, of another backbone."""
    recipe = _with_setting(trained.recipe, "plan.backbone", name)
    trained.workspace.prepare([recipe])
    trainer = SubsetTrainer(trained.task, recipe, trained.workspace)
    wanted = [*subsets("all", trainer.columns), trainer.last_layer]
    trainer.train(wanted, f"backbone {name}")
    for subset in wanted:
        yield from trainer.rows(subset, trained)


def _with_setting(recipe: Recipe, key: str, value: str) -> Recipe:
    tree = plain(recipe)
    assign(tree, key, value)
    return parse(Recipe, tree, f"ablation: {key} = {value}")
