"""Layer-wise probing: every task of a recipe on every layer of one backbone.

Each task is an ablation: every layer alone and all layers together, with the recipe's controls.
"""

import time
from pathlib import Path

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.load import check_frozen
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import ablate
from permafrost.probes.experiments.experiment import Experiment
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.variants.record import latent_stores


def run_layers(
    name: str, recipe: Recipe, runs: Path | Destination, progress: Progress, provider: LatentProvider
) -> RunResult:
    """Train every layer alone on every task and write a run folder.

    Raises:
        InputError: a recipe without tasks, or something in one of them is wrong.
    """
    if not recipe.tasks:
        raise SpecError(f"{name}: it has no [tasks] to train layers on.")
    check_frozen(recipe, 'set multitask.schedule, for example to "joint", to train the tasks on these blocks')
    with Experiment(name, recipe, runs, progress, provider, "layers") as experiment:
        tasks = recipe.task_recipes()
        problems = experiment.prepare({name: recipe}, joint=False)
        rows: list[MetricRow] = []
        costs = {}
        for task, task_recipe in tasks.items():
            started, problem = time.perf_counter(), problems[task]
            progress.note(f"{task}: every layer alone, on {problem.corpus.name}")
            task_rows = ablate(task, task_recipe, experiment.workspace, ("single",))
            rows += sorted(task_rows, key=lambda row: row.metric != problems[row.task].metric)
            costs[task] = {"seconds": time.perf_counter() - started}
        return experiment.finish(rows, problems, latent_stores(tasks, experiment.workspace), {"costs": costs})
