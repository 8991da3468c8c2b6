"""A run of several tasks that learn together: stage one, every variant, what they come to, a run folder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.run import read_all, train_all
from permafrost.probes.experiments.validation import check_multitask
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.metrics.bootstrap import paired
from permafrost.probes.results.metric_row import MetricRow, as_frame
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.runs.write import RunContents, TaskContents, write_run
from permafrost.probes.tasks.registry import scorer_of
from permafrost.probes.training.resume import Unfinished
from permafrost.probes.variants.multitask import MultitaskVariant, train_multitask
from permafrost.probes.variants.record import make_record
from permafrost.probes.variants.tables import all_rows, breakdown_table, confusion_table, prediction_table
from permafrost.probes.variants.trained_variant import TrainedVariant
from permafrost.probes.variants.workspace import Workspace


@dataclass(frozen=True)
class VariantRow:
    """One line of ``variants.csv``: what a variant cost."""

    variant: str
    trained: int
    """Numbers that one seed learnt."""

    parameters: int
    """Numbers of the backbone and of every head."""

    saved: int
    """How many more numbers would have been learnt with blocks for every task of its own."""

    seconds: float
    """Of training, all seeds."""

    memory: int
    """Bytes, as :attr:`probes.together.MultitaskVariant.memory` has them."""


@dataclass(frozen=True)
class ComparisonRow:
    """One line of ``comparisons.csv``: a variant against another on the same rows of a task, by a paired bootstrap."""

    task: str
    split: str
    metric: str
    variant: str
    against: str
    difference: float
    """By how much ``variant`` is above ``against``, in the metric's own unit: of shares 0.01 is a point."""

    low: float
    high: float
    """Ends of the 95 % interval of the difference."""

    p: float
    """Two-sided, of there being no difference."""

    n: int
    """Rows that both answered."""


def run_multitask(name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider) -> RunResult:
    """Train every variant's tasks together and leave a run folder.

    Raises:
        InputError: something in the recipe, a corpus or the backbone is wrong.
        MachineError: the machine failed; the message says what is safe.
    """
    started = time.perf_counter()
    variants = recipe.variant_recipes()
    workspace = Workspace(provider, progress, unfinished=Unfinished.of(runs, name, recipe, progress))
    metrics: dict[str, str] = {}
    for variant, one in variants.items():
        metrics = check_multitask(variant, one, workspace) | metrics
    corpora = _corpora(variants, workspace)
    unread = read_all(workspace, {variant: list(one.task_recipes().values()) for variant, one in variants.items()})
    train = partial(train_multitask, workspace=workspace)
    found, refused = train_all(train, variants, unread, progress, release)
    corpora = {task: corpus for task, corpus in corpora.items() if any(task in one.tasks for one in found)}
    selected = choose(found)
    progress.note("measuring every variant, with intervals")
    rows = [row for task, corpus in corpora.items() for row in _rows(task, found, corpus, metrics[task])]
    texts_run = sum(one.texts_run for one in workspace.stored.values())
    record = _record(name, recipe, found, corpora) | {
        "metrics": metrics,
        "texts_run": texts_run,
        "selected": selected.variant,
        "refused": refused,
        "seconds": {"training": sum(one.seconds for one in found), "all": time.perf_counter() - started},
    }
    outcome = RunContents(
        recipe=recipe,
        record=record,
        tables=_tables(rows, found, corpora, metrics),
        tasks=_outcomes(selected, found, corpora, workspace),
    )
    path = write_run(runs, name, outcome)
    assert workspace.unfinished
    workspace.unfinished.remove()
    return RunResult(
        path=path,
        seconds=time.perf_counter() - started,
        texts=sum(one.sentences for one in corpora.values()),
        texts_distinct=sum(len(one.texts) for one in corpora.values()),
        texts_run=texts_run,
        selected=selected.variant,
        parameters={one.variant: one.trained for one in found},
        backbone_parameters={one.variant: one.of_backbone for one in found},
        metrics=[asdict(row) for row in rows],
        variants=[asdict(row) for row in _variant_rows(found)],
    )


def _corpora(variants: Mapping[str, Recipe], workspace: Workspace) -> dict[str, Corpus]:
    """Task -> its corpus, the same in all variants that have the task."""
    specs: dict[str, CorpusSpec] = {}
    for variant, recipe in variants.items():
        for task, one in recipe.task_recipes().items():
            if specs.setdefault(task, one.corpus) != one.corpus:
                raise SpecError(
                    f"variant '{variant}': the corpus of '{task}' is not that of the variants before, and they are "
                    f"compared on the same rows; leave tasks.{task}.corpus out."
                )
    return {task: workspace.corpus(spec) for task, spec in specs.items()}


def release(found: list[MultitaskVariant]) -> list[MultitaskVariant]:
    """The variants, of which the best so far alone keeps its blocks of the backbone: they fill memory."""
    best = choose(found)
    return [
        one if one is best else replace(one, tasks={name: task.without_blocks() for name, task in one.tasks.items()})
        for one in found
    ]


def choose(found: Sequence[MultitaskVariant]) -> MultitaskVariant:
    """Of the variants with most of the tasks, the one with the best mean of their validation metrics."""
    most = max(len(one.tasks) for one in found)
    return max((one for one in found if len(one.tasks) == most), key=lambda one: one.value)


def _rows(task: str, found: Sequence[MultitaskVariant], corpus: Corpus, metric: str) -> list[MetricRow]:
    """The figures of a task, those of the metric that chooses first."""
    mine = [one.tasks[task] for one in found if task in one.tasks]
    return sorted([replace(row, task=task) for row in all_rows(mine, corpus)], key=lambda row: row.metric != metric)


def _record(
    name: str, recipe: Recipe, found: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus]
) -> dict[str, Any]:
    distinct = {id(one): one for one in corpora.values()}.values()
    return make_record(next(iter(corpora.values())), [], {}) | {
        "name": name,
        "summary": recipe.summary,
        "corpus": {"name": ", ".join(one.name for one in distinct), "rows": {}},
        "texts": sum(one.sentences for one in distinct),
        "texts_distinct": sum(len(one.texts) for one in distinct),
        "parameters": {one.variant: one.trained for one in found},
    }


def _tables(
    rows: Sequence[MetricRow],
    found: Sequence[MultitaskVariant],
    corpora: Mapping[str, Corpus],
    metrics: Mapping[str, str],
) -> dict[str, pd.DataFrame]:
    return {
        "metrics": as_frame(rows),
        "variants": pd.DataFrame([asdict(row) for row in _variant_rows(found)]),
        "training": pd.DataFrame(list(_losses(found))),
        "epochs": pd.DataFrame(list(logged(found, "figures"))),
        "conflicts": pd.DataFrame(list(logged(found, "conflicts"))),
        "frozen": pd.DataFrame(list(logged(found, "frozen"))),
        "comparisons": pd.DataFrame([asdict(row) for row in _comparisons(found, corpora, metrics)]),
    }


def _variant_rows(found: Sequence[MultitaskVariant]) -> list[VariantRow]:
    return [VariantRow(one.variant, one.trained, one.parameters, one.saved, one.seconds, one.memory) for one in found]


def _losses(found: Sequence[MultitaskVariant]) -> Iterator[dict[str, Any]]:
    """Loss, chosen metric and weight of every epoch."""
    for line in logged(found, "losses"):
        yield {"phase": "training"} | line


def logged(found: Sequence[MultitaskVariant], what: str) -> Iterator[dict[str, Any]]:
    """Lines of the logs, each with its variant and seed."""
    for one in found:
        for seed, log in one.logs.items():
            yield from ({"variant": one.variant, "seed": seed} | line for line in getattr(log, what))


def _comparisons(
    found: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus], metrics: Mapping[str, str]
) -> Iterator[ComparisonRow]:
    """Every variant against its references, on the rows and by the metric of each task."""
    for task, corpus in corpora.items():
        mine = [one for one in found if task in one.tasks]
        scorer, metric = scorer_of(corpus, corpus.scored), metrics[task]
        figures = {one.variant: scorer.resampled(metric, _answers(one.tasks[task], corpus)) for one in mine}
        for one in mine:
            for reference in references(one, mine):
                first, second = figures[reference.variant], figures[one.variant]
                if first and second and (size := paired(first, second)):
                    found_in = (task, corpus.scored, metric, one.variant, reference.variant)
                    yield ComparisonRow(*found_in, size.difference, size.low, size.high, size.p, second.n)


def references(one: MultitaskVariant, others: Sequence[MultitaskVariant]) -> list[MultitaskVariant]:
    """What a variant is held against: the one that learns the task alone, and the one that weighs all tasks the same
    and is like it in all else; where there is neither, the first.
    """
    alone = [other for other in others if len(other.tasks) == 1]
    alike = [
        other
        for other in others
        if other.recipe.balancing.balancer == "equal"
        and replace(one.recipe, balancing=other.recipe.balancing) == other.recipe
    ]
    found = [other for other in (*alone, *alike) if other is not one]
    return found or [other for other in others[:1] if other is not one]


def _answers(one: TrainedVariant, corpus: Corpus) -> list[Any]:
    scorer = scorer_of(corpus, corpus.scored)
    return [scorer.decode(said) for said in one.outputs(corpus.scored)]


def _outcomes(
    selected: MultitaskVariant, found: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus], workspace: Workspace
) -> dict[str, TaskContents]:
    """What the chosen variant leaves of each task, and what every variant makes of its classes."""
    outcomes = {}
    for task, one in selected.tasks.items():
        corpus, every = corpora[task], [other.tasks[task] for other in found if task in other.tasks]
        tables = {
            "predictions": prediction_table(one, corpus, corpus.scored),
            "breakdown": pd.concat([breakdown_table(other, corpus) for other in every]),
            "confusion": pd.concat([confusion_table(other, corpus) for other in every]),
        }
        outcomes[task] = TaskContents(
            one.fitted_probe(corpus), tables, workspace.sources(one.recipe, one.recipe.corpus)
        )
    return outcomes
