"""Layer-wise probing: every task of a recipe on every layer of one backbone.

Each task is an ablation: every layer alone and all layers together, with the recipe's controls.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.load import check_frozen
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import ablate
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.providers import LatentProvider, PlanLatents
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.workspace import Workspace


def run_layers(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Train every layer alone on every task and write a run folder.

    Raises:
        InputError: a recipe without tasks, or something in one of them is wrong.
    """
    started = time.perf_counter()
    workspace = Workspace(provider, progress)
    tasks = recipe.task_recipes()
    if not tasks:
        raise SpecError(f"{name}: it has no [tasks] to train layers on.")
    check_frozen(recipe, 'set multitask.schedule, for example to "joint", to train the tasks on these blocks')
    metrics = {
        task: check_variants(task_recipe, {task: task_recipe}, workspace.corpus(task_recipe.corpus))
        for task, task_recipe in tasks.items()
    }
    workspace.prepare(tasks.values())
    rows: list[MetricRow] = []
    costs: dict[str, dict[str, float]] = {}
    stores: dict[str, Mapping[str, PlanLatents]] = {}
    for task, task_recipe in tasks.items():
        progress.note(f"{task}: every layer alone, on {task_recipe.corpus.name or task_recipe.corpus.path}")
        task_started = time.perf_counter()
        spec = replace(task_recipe.ablation, kinds=("single",), backbones=())
        task_rows = ablate(replace(task_recipe, ablation=spec), workspace, workspace.corpus(task_recipe.corpus))
        task_rows = [replace(row, task=task) for row in task_rows]
        rows += sorted(task_rows, key=lambda row: row.metric != metrics[row.task])
        costs[task] = {"seconds": time.perf_counter() - task_started}
        stores[task] = workspace.plan_latents(task_recipe, task_recipe.corpus)
    corpora = [workspace.corpus(task_recipe.corpus) for task_recipe in tasks.values()]
    texts_run = sum(latents.texts_run for latents in workspace.stored.values())
    texts = sum(corpus.text_count for corpus in corpora)
    texts_distinct = sum(len(corpus.texts) for corpus in corpora)
    record = make_record(corpora[0], [], stores) | {
        "experiment": "layers",
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(tasks), "rows": {}},
        "texts": texts,
        "texts_distinct": texts_distinct,
        "texts_run": texts_run,
        "metrics": metrics,
        "costs": costs,
        "seconds": {"all": time.perf_counter() - started},
    }
    tables = {"metrics": metrics_frame(rows)}
    return RunResult(
        path=write_run(runs, name, RunContents(recipe=recipe, record=record, tables=tables)),
        seconds=time.perf_counter() - started,
        texts=texts,
        texts_distinct=texts_distinct,
        texts_run=texts_run,
        selected="",
        parameters={},
        backbone_parameters={},
        metrics=[asdict(row) for row in rows],
    )
