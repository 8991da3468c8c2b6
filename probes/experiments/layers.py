"""Layer-wise probing: every task of a recipe on every layer of one backbone.

Each task is an ablation: every layer alone and all layers together, with the recipe's controls.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.load import check_frozen
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import ablate
from permafrost.probes.experiments.subset_metrics import AblationRow
from permafrost.probes.experiments.validation import check_variants
from permafrost.probes.inputs.providers import LatentProvider, PlanLatents
from permafrost.probes.results.metric_row import MetricRow, metrics_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.workspace import Workspace

TRAINED = "probe"
"""Variant name of the rows that are no control."""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One row of ``layers.csv``."""

    task: str
    corpus: str
    layer: int | None
    """Empty for all layers together."""

    control: str
    """Empty, ``untrained`` or ``random targets``."""

    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    parameters: int
    seconds: float
    """Duration of all trainings of the task."""


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
    rows: list[LayerRow] = []
    stores: dict[str, Mapping[str, PlanLatents]] = {}
    for task, task_recipe in tasks.items():
        progress.note(f"{task}: every layer alone, on {task_recipe.corpus.name or task_recipe.corpus.path}")
        rows += sorted(_task_rows(task, task_recipe, workspace), key=lambda row: row.metric != metrics[row.task])
        stores[task] = workspace.plan_latents(task_recipe, task_recipe.corpus)
    corpora = [workspace.corpus(task_recipe.corpus) for task_recipe in tasks.values()]
    texts_run = sum(latents.texts_run for latents in workspace.stored.values())
    texts = sum(corpus.text_count for corpus in corpora)
    texts_distinct = sum(len(corpus.texts) for corpus in corpora)
    record = make_record(corpora[0], [], stores) | {
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(tasks), "rows": {}},
        "texts": texts,
        "texts_distinct": texts_distinct,
        "texts_run": texts_run,
        "metrics": metrics,
        "seconds": {"all": time.perf_counter() - started},
    }
    metric_rows = [_metric_row(row, recipe.plan.backbone) for row in rows]
    layers = pd.DataFrame([asdict(row) for row in rows]).astype({"layer": "Int64"})
    tables = {"layers": layers, "metrics": metrics_frame(metric_rows)}
    return RunResult(
        path=write_run(runs, name, RunContents(recipe=recipe, record=record, tables=tables)),
        seconds=time.perf_counter() - started,
        texts=texts,
        texts_distinct=texts_distinct,
        texts_run=texts_run,
        selected="",
        parameters={},
        backbone_parameters={},
        metrics=[asdict(row) for row in metric_rows],
    )


def _task_rows(task: str, recipe: Recipe, workspace: Workspace) -> list[LayerRow]:
    started = time.perf_counter()
    corpus = workspace.corpus(recipe.corpus)
    spec = replace(recipe.ablation, kinds=("single",), backbones=())
    rows = ablate(replace(recipe, ablation=spec), workspace, corpus)
    seconds = time.perf_counter() - started
    return [_layer_row(task, corpus.name, row, seconds) for row in rows]


def _layer_row(task: str, corpus: str, row: AblationRow, seconds: float) -> LayerRow:
    return LayerRow(
        task=task,
        corpus=corpus,
        layer=int(row.name) if row.kind == "single" else None,
        control=row.control,
        split=row.split,
        metric=row.metric,
        value=row.value,
        low=row.low,
        high=row.high,
        n=row.n,
        parameters=row.parameters,
        seconds=seconds,
    )


def _metric_row(row: LayerRow, backbone: str) -> MetricRow:
    return MetricRow(
        variant=row.control or TRAINED,
        backbone=backbone,
        view="",
        layer=row.layer,
        task=row.task,
        split=row.split,
        metric=row.metric,
        value=row.value,
        low=row.low,
        high=row.high,
        n=row.n,
        seed=None,
    )
