"""Layers: every task of a recipe on every layer of one backbone, the picture of the probing literature.

Each task is an ablation of its own: every layer alone and all together, with controls beside them.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.ablation import AblationRow, ablate
from permafrost.probes.experiments.validation import check, check_fixed
from permafrost.probes.inputs.providers import LatentProvider, PlanLatents
from permafrost.probes.results.metric_row import MetricRow, as_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, write_run
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.workspace import Workspace

TRAINED = "probe"
"""The variant of what is no control."""


@dataclass(frozen=True)
class LayerRow:
    """One line of ``layers.csv``."""

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
    """What all trainings of the task took."""


def run_layers(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Train every layer alone on every task and leave a run folder.

    Raises:
        InputError: a recipe without tasks, or something in one of them is wrong.
    """
    started = time.perf_counter()
    workspace = Workspace(provider, progress)
    tasks = recipe.task_recipes()
    if not tasks:
        raise SpecError(f"{name}: it has no [tasks] to train layers on.")
    check_fixed(recipe, 'set multitask.schedule, for example to "joint", to train the tasks on these blocks')
    metrics = {task: check(one, {task: one}, workspace.corpus(one.corpus)) for task, one in tasks.items()}
    workspace.prepare(tasks.values())
    rows: list[LayerRow] = []
    stores: dict[str, Mapping[str, PlanLatents]] = {}
    for task, one in tasks.items():
        progress.note(f"{task}: every layer alone, on {one.corpus.name or one.corpus.path}")
        rows += sorted(_task_rows(task, one, workspace), key=lambda row: row.metric != metrics[row.task])
        stores[task] = workspace.sources(one, one.corpus)
    corpora = [workspace.corpus(one.corpus) for one in tasks.values()]
    texts_run = sum(one.texts_run for one in workspace.stored.values())
    texts, distinct = sum(one.sentences for one in corpora), sum(len(one.texts) for one in corpora)
    record = make_record(corpora[0], [], stores) | {
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(tasks), "rows": {}},
        "texts": texts,
        "texts_distinct": distinct,
        "texts_run": texts_run,
        "metrics": metrics,
        "seconds": {"all": time.perf_counter() - started},
    }
    long = list(_metric_rows(rows, recipe.plan.backbone))
    tables = {"layers": pd.DataFrame([asdict(row) for row in rows]).astype({"layer": "Int64"})}
    path = write_run(runs, name, RunContents(recipe=recipe, record=record, tables=tables | {"metrics": as_frame(long)}))
    seconds = time.perf_counter() - started
    return RunResult(
        path=path,
        seconds=seconds,
        texts=texts,
        texts_distinct=distinct,
        texts_run=texts_run,
        selected="",
        parameters={},
        backbone_parameters={},
        metrics=[asdict(row) for row in long],
    )


def _task_rows(task: str, recipe: Recipe, workspace: Workspace) -> list[LayerRow]:
    began = time.perf_counter()
    corpus = workspace.corpus(recipe.corpus)
    spec = replace(recipe.ablation, kinds=("single",), backbones=())
    found = ablate(replace(recipe, ablation=spec), workspace, corpus)
    seconds = time.perf_counter() - began
    return [_row(task, corpus.name, one, seconds) for one in found]


def _row(task: str, corpus: str, one: AblationRow, seconds: float) -> LayerRow:
    layer = int(one.name) if one.kind == "single" else None
    figure = (one.split, one.metric, one.value, one.low, one.high, one.n, one.parameters)
    return LayerRow(task, corpus, layer, one.control, *figure, seconds)


def _metric_rows(rows: list[LayerRow], backbone: str) -> Iterator[MetricRow]:
    for one in rows:
        yield MetricRow(
            variant=one.control or TRAINED,
            backbone=backbone,
            view="",
            layer=one.layer,
            task=one.task,
            split=one.split,
            metric=one.metric,
            value=one.value,
            low=one.low,
            high=one.high,
            n=one.n,
            seed=None,
        )
