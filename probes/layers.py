"""Layers: every task of a recipe on every layer of one backbone, the picture of the probing literature.

Each task is an ablation of its own: every layer alone and all together, with controls beside them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data.progress import Progress
from data.spec import SpecError
from probes.ablation import AblationRow, ablate
from probes.conduct import Conductor, StageOne, check, check_fixed
from probes.inputs import Stored
from probes.recipe import Recipe
from probes.record import make_record
from probes.results import MetricRow, as_frame, scored_in
from probes.run_recipe import Done
from probes.runs import Outcome, write_run
from probes.tables import RANDOM_TARGETS

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


def run_layers(name: str, recipe: Recipe, runs: Path, progress: Progress, stage_one: StageOne) -> Done:
    """Train every layer alone on every task and leave a run folder.

    Raises:
        InputError: a recipe without tasks, or something in one of them is wrong.
    """
    started = time.perf_counter()
    conductor = Conductor(stage_one, progress)
    tasks = recipe.posed()
    if not tasks:
        raise SpecError(f"{name}: it has no [tasks] to train layers on.")
    check_fixed(recipe, 'set together.batches, for example to "joint", to train the tasks on these blocks')
    metrics = {task: check(one, {task: one}, conductor.corpus(one.corpus)) for task, one in tasks.items()}
    conductor.prepare(tasks.values())
    rows: list[LayerRow] = []
    stores: dict[str, Mapping[str, Stored]] = {}
    for task, one in tasks.items():
        progress.note(f"{task}: every layer alone, on {one.corpus.name or one.corpus.path}")
        rows += sorted(_task_rows(task, one, conductor), key=lambda row: row.metric != metrics[row.task])
        stores[task] = conductor.sources(one, one.corpus)
    corpora = [conductor.corpus(one.corpus) for one in tasks.values()]
    texts_run = sum(one.texts_run for one in conductor.stored.values())
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
    path = write_run(runs, name, Outcome(recipe, record, tables | {"metrics": as_frame(long)}))
    seconds = time.perf_counter() - started
    return Done(path, seconds, texts, distinct, texts_run, "", {}, {}, [asdict(row) for row in long])


def _task_rows(task: str, recipe: Recipe, conductor: Conductor) -> list[LayerRow]:
    began = time.perf_counter()
    corpus = conductor.corpus(recipe.corpus)
    spec = replace(recipe.ablation, kinds=("single",), backbones=())
    found = ablate(replace(recipe, ablation=spec), conductor, corpus)
    seconds = time.perf_counter() - began
    return [_row(task, corpus.name, one, seconds) for one in found]


def _row(task: str, corpus: str, one: AblationRow, seconds: float) -> LayerRow:
    layer = int(one.name) if one.kind == "single" else None
    figure = (one.split, one.metric, one.value, one.low, one.high, one.n, one.parameters)
    return LayerRow(task, corpus, layer, one.control, *figure, seconds)


def _metric_rows(rows: list[LayerRow], backbone: str) -> Iterator[MetricRow]:
    for one in rows:
        where = (one.control or TRAINED, backbone, "", one.layer, one.task)
        yield MetricRow(*where, one.split, one.metric, one.value, one.low, one.high, one.n, None)


def headline(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: a line a task, a column a layer, its first metric on test, or else on validation.

    Args:
        rows: of ``metrics.csv``.
    """
    layers = sorted({row["layer"] for row in rows if row["layer"] is not None})
    metrics: dict[str, str] = {}
    for row in rows:
        metrics.setdefault(row["task"], row["metric"])
    lines: list[list[Any]] = []
    for task, metric in metrics.items():
        mine = [row for row in rows if row["task"] == task and row["metric"] == metric]
        split = scored_in(mine)
        for control in dict.fromkeys(row["variant"] for row in mine):
            on = "train" if control == RANDOM_TARGETS else split
            shown = {row["layer"]: row["value"] for row in mine if (row["variant"], row["split"]) == (control, on)}
            if shown:
                cells = [f"{shown[layer]:.3f}" if layer in shown else "" for layer in (*layers, None)]
                lines.append([task, metric, f"{control}, {on}", *cells])
    return ["task", "metric", "", *map(str, layers), "all"], lines
