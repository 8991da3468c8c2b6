"""A run of several tasks that learn together: stage one, every variant, what they come to, a run folder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data.corpus import Corpus
from data.errors import InputError
from data.progress import Progress
from data.spec import SpecError
from probes.breakdown import breakdown_table
from probes.conduct import Conductor, StageOne
from probes.ensemble import Ensemble
from probes.metrics import paired
from probes.predicted import prediction_table
from probes.recipe import Recipe
from probes.record import make_record
from probes.references import all_rows
from probes.results import MetricRow, as_frame
from probes.run_recipe import Done
from probes.runs import Outcome, TaskOutcome, write_run
from probes.scoring import scorer_of
from probes.tasks import task_of
from probes.together import Together, check_together, train_together
from probes.unfinished import Unfinished


@dataclass(frozen=True)
class VariantRow:
    """One line of ``variants.csv``."""

    variant: str
    trained: int
    parameters: int
    saved: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class ComparisonRow:
    """One line of ``comparisons.csv``: a variant against another on the same rows of a task."""

    task: str
    split: str
    metric: str
    variant: str
    against: str
    difference: float
    low: float
    high: float
    p: float
    n: int


def run_together(name: str, recipe: Recipe, runs: Path, progress: Progress, stage_one: StageOne) -> Done:
    """Train every variant's tasks together and leave a run folder.

    Raises:
        InputError: something in the recipe, a corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    variants = recipe.expanded()
    conductor = Conductor(stage_one, progress, unfinished=Unfinished.of(runs, name, recipe, progress))
    metrics: dict[str, str] = {}
    for variant, one in variants.items():
        metrics = check_together(variant, one, conductor) | metrics
    posed = [task for one in variants.values() for task in one.posed().values()]
    conductor.prepare(posed)
    corpora = {task: conductor.corpus(one.corpus) for task, one in recipe.posed().items()}
    found, refused = train_all(conductor, variants)
    selected = choose(found, len(corpora))
    progress.note("measuring every variant, with intervals")
    rows = [row for task, corpus in corpora.items() for row in _rows(task, found, corpus)]
    texts_run = sum(one.texts_run for one in conductor.stored.values())
    record = _record(name, recipe, found, conductor) | {
        "metrics": metrics,
        "texts_run": texts_run,
        "selected": selected.variant,
        "refused": refused,
        "seconds": {"training": sum(one.seconds for one in found), "all": time.perf_counter() - started},
    }
    outcome = Outcome(recipe, record, _tables(rows, found, corpora), tasks=_outcomes(selected, corpora, conductor))
    path = write_run(runs, name, outcome)
    assert conductor.unfinished
    conductor.unfinished.remove()
    return Done(
        path,
        time.perf_counter() - started,
        sum(one.sentences for one in corpora.values()),
        sum(len(one.texts) for one in corpora.values()),
        texts_run,
        selected.variant,
        {one.variant: one.trained for one in found},
        {one.variant: one.parameters for one in found},
        [asdict(row) for row in rows],
        [asdict(row) for row in _variant_rows(found)],
    )


def train_all(conductor: Conductor, variants: Mapping[str, Recipe]) -> tuple[list[Together], dict[str, str]]:
    """Every variant, trained; and why those that cannot be are not: one must not cost a run the others."""
    found: list[Together] = []
    refused: dict[str, InputError] = {}
    for variant, recipe in variants.items():
        try:
            found.append(train_together(variant, recipe, conductor))
        except SpecError as error:
            refused[variant] = error
            conductor.progress.note(f"{variant} is left out: {error}")
    if not found:
        raise next(iter(refused.values()))
    return found, {variant: str(why) for variant, why in refused.items()}


def choose(found: Sequence[Together], tasks: int) -> Together:
    """Of the variants with most of the tasks, the one with the best mean of their validation metrics."""
    most = max(len(one.tasks) for one in found)
    return max((one for one in found if len(one.tasks) == min(most, tasks)), key=lambda one: one.value)


def _rows(task: str, found: Sequence[Together], corpus: Corpus) -> list[MetricRow]:
    mine = [one.tasks[task] for one in found if task in one.tasks]
    return [replace(row, task=task) for row in all_rows(mine, corpus)]


def _record(name: str, recipe: Recipe, found: Sequence[Together], conductor: Conductor) -> dict[str, Any]:
    every = [one for some in found for one in some.tasks.values()]
    first = conductor.corpus(every[0].recipe.corpus)
    corpora = {id(one): one for one in (conductor.corpus(task.corpus) for task in recipe.posed().values())}
    return make_record(first, [], {}) | {
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(one.name for one in corpora.values()), "rows": {}},
        "texts": sum(one.sentences for one in corpora.values()),
        "texts_distinct": sum(len(one.texts) for one in corpora.values()),
        "parameters": {one.variant: one.trained for one in found},
    }


def _tables(
    rows: Sequence[MetricRow], found: Sequence[Together], corpora: Mapping[str, Corpus]
) -> dict[str, pd.DataFrame]:
    return {
        "metrics": as_frame(rows),
        "variants": pd.DataFrame([asdict(row) for row in _variant_rows(found)]),
        "training": pd.DataFrame(list(_losses(found))),
        "epochs": pd.DataFrame(list(logged(found, "figures"))),
        "conflicts": pd.DataFrame(list(logged(found, "conflicts"))),
        "frozen": pd.DataFrame(list(logged(found, "frozen"))),
        "comparisons": pd.DataFrame([asdict(row) for row in _comparisons(found, corpora)]),
    }


def _variant_rows(found: Sequence[Together]) -> list[VariantRow]:
    return [VariantRow(one.variant, one.trained, one.parameters, one.saved, one.seconds, one.memory) for one in found]


def _losses(found: Sequence[Together]) -> Iterator[dict[str, Any]]:
    """Loss, chosen metric and weight of every epoch."""
    for one in found:
        for seed, log in one.logs.items():
            place = one.recipe.train.seeds.index(seed)
            for line in log.losses:
                values = one.tasks[line["task"]].fitted[place].values
                value = values[line["epoch"] - 1] if line["epoch"] <= len(values) else None
                yield {"variant": one.variant, "seed": seed, "phase": "training", "value": value} | line


def logged(found: Sequence[Together], what: str) -> Iterator[dict[str, Any]]:
    """Lines of the logs, each with its variant and seed."""
    for one in found:
        for seed, log in one.logs.items():
            yield from ({"variant": one.variant, "seed": seed} | line for line in getattr(log, what))


def _comparisons(found: Sequence[Together], corpora: Mapping[str, Corpus]) -> Iterator[ComparisonRow]:
    """Every variant against the one that learns the task alone, where there is one, else against the first."""
    for task, corpus in corpora.items():
        mine = [one for one in found if task in one.tasks]
        if not mine:
            continue
        reference = next((one for one in mine if len(one.tasks) == 1), mine[0])
        scorer, kind = scorer_of(corpus, corpus.scored), task_of(corpus)
        for metric in kind.metrics:
            figures = {
                one.variant: scorer.resampled(metric, _answers(one.tasks[task], corpus)) for one in mine
            }  # fmt: skip
            base = figures[reference.variant]
            for one in mine:
                figure = figures[one.variant]
                if one is reference or figure is None or base is None:
                    continue
                if difference := paired(base, figure):
                    found_in = (task, corpus.scored, metric, one.variant, reference.variant)
                    size = (difference.difference, difference.low, difference.high, difference.p)
                    yield ComparisonRow(*found_in, *size, figure.n)


def _answers(one: Ensemble, corpus: Corpus) -> list[Any]:
    scorer = scorer_of(corpus, corpus.scored)
    return [scorer.answers(said) for said in one.voices(corpus.scored)]


def _outcomes(selected: Together, corpora: Mapping[str, Corpus], conductor: Conductor) -> dict[str, TaskOutcome]:
    """What the chosen variant leaves of each task."""
    return {
        task: TaskOutcome(
            one,
            corpora[task],
            {
                "predictions": prediction_table(one, corpora[task], corpora[task].scored),
                "breakdown": breakdown_table(one, corpora[task]),
            },
            conductor.sources(one.recipe, one.recipe.corpus),
        )
        for task, one in selected.tasks.items()
    }
