"""Rows of ``metrics.csv``: trained variants and their untrained references, on every split, with intervals.

Untrained references predict without a probe. Scores: the cosine similarity of every layer. Other tasks: see
:attr:`permafrost.probes.tasks.base.Task.reference`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from permafrost.data.plan.plan import CapturePlan
from permafrost.probes.config.columns import Column, single_layer, view_name
from permafrost.probes.config.names import PROBE, UNTRAINED
from permafrost.probes.metrics.bootstrap import correlation_p_value, estimate_metric, paired_difference
from permafrost.probes.metrics.metrics import CORRELATIONS, mean_absolute_error
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.tasks.base import Decoded
from permafrost.probes.tasks.registry import Problem
from permafrost.probes.tasks.scores import to_corpus_range
from permafrost.probes.variants.trained_variant import TrainedTask, TrainedVariant

Where = Mapping[str, Any]
"""Columns that the rows of all metrics and seeds of one variant and split have in common."""


def all_rows(variants: Sequence[TrainedVariant], problems: Mapping[str, Problem]) -> list[MetricRow]:
    """Return the rows of a run, task by task, then what every variant costs.

    Of a task: the untrained references on every split, then every variant on all splits but train. If the recipe has
    several tasks, the rows of a task's selection metric come first, and those that compare variants last.

    Args:
        problems: task -> its problem.
    """
    rows: list[MetricRow] = []
    for task, problem in problems.items():
        trained = [variant.tasks[task] for variant in variants if task in variant.tasks]
        task_rows = _task_rows(trained, problem)
        if task != PROBE:
            task_rows = [replace(row, task=task) for row in task_rows]
            task_rows.sort(key=lambda row: row.metric != problem.metric)
            task_rows += comparison_rows(task, problem, variants)
        rows += task_rows
    return rows + [row for variant in variants for row in count_rows(variant)]


def _task_rows(trained: Sequence[TrainedTask], problem: Problem) -> list[MetricRow]:
    corpus = problem.corpus
    rows = [row for split in corpus.splits for row in untrained_rows(trained, problem, split)]
    measured = [split for split in corpus.splits if split != "train"]
    return rows + [row for split in measured for variant in trained for row in variant_rows(variant, split)]


def untrained_rows(trained: Sequence[TrainedTask], problem: Problem, split: str) -> list[MetricRow]:
    """Return the rows of the untrained references of some variants on one split."""
    reference = problem.task.untrained(problem.corpus, problem.scorer(split).rows)
    if reference is None:
        return list(cosine_rows(trained, problem, split))
    return reference_rows(trained[0], split, reference)


def reference_rows(variant: TrainedTask, split: str, reference: NDArray[Any]) -> list[MetricRow]:
    """Return the rows of an untrained reference that learns from the training rows alone."""
    where = _where(variant.problem, split, UNTRAINED, backbones(variant))
    return list(metric_rows(where, variant.problem, [reference], None))


def cosine_rows(trained: Sequence[TrainedTask], problem: Problem, split: str) -> Iterator[MetricRow]:
    """Yield the rows of the cosine of every layer that some variants read."""
    for reference in cosine_references(trained):
        where = _where(problem, split, untrained_name(reference.of), reference.backbone) | {
            "view": view_name([reference.column]),
            "layer": reference.column.layer,
        }
        cosine = reference.cosines[split]
        yield from metric_rows(where, problem, [cosine], None)
        yield from p_value_rows(where, problem, cosine, None)


@dataclass(frozen=True, eq=False, kw_only=True)
class CosineReference:
    """The untrained reference of scores: the cosine similarity of one layer that a variant reads."""

    of: str
    """Name of the variant if it uses the name of a plan for another capture than the variants before; else empty."""

    variant: TrainedTask
    column: Column
    backbone: str
    cosines: Mapping[str, NDArray[np.float32]]
    """Split -> ``[row]``."""


def cosine_references(trained: Sequence[TrainedTask]) -> Iterator[CosineReference]:
    """Yield the cosine similarity of every layer that a variant reads, each once."""
    plans_by_name: dict[str, list[CapturePlan]] = {}
    done: set[tuple[Column, CapturePlan]] = set()
    for variant in trained:
        for index, column in enumerate(variant.columns if variant.untrained_cosines else ()):
            plan = replace(variant.recipe.capture_plan(column.plan), views=("mean",), layers="all")
            plans = plans_by_name.setdefault(column.plan, [])
            if plan not in plans:
                plans.append(plan)
            if (column, plan) not in done:
                done.add((column, plan))
                yield CosineReference(
                    of="" if plan == plans[0] else variant.variant,
                    variant=variant,
                    column=column,
                    backbone=plan.backbone,
                    cosines={split: cosines[index] for split, cosines in variant.untrained_cosines.items()},
                )


def untrained_name(*further: str) -> str:
    """Return the name of an untrained reference in the tables: ``raw``, or ``raw (further, ...)``."""
    named = ", ".join(filter(None, further))
    return f"{UNTRAINED} ({named})" if named else UNTRAINED


def variant_rows(variant: TrainedTask, split: str) -> list[MetricRow]:
    """Return the rows of one task of a variant on one split: of every seed, and of all seeds."""
    problem, columns = variant.problem, variant.columns
    scorer = problem.scorer(split)
    where = _where(problem, split, variant.variant, backbones(variant)) | {
        "view": view_name(columns),
        "layer": single_layer(columns),
    }
    rows: list[MetricRow] = []
    for index, (seed, prediction) in enumerate(zip(variant.seeds, variant.predictions[split], strict=True)):
        calibration = variant.calibrations[0 if variant.average else index]
        decoded = scorer.decode(prediction, calibration)
        rows += metric_rows(where, problem, [decoded], seed)
        rows += p_value_rows(where, problem, decoded, seed)
    rows += metric_rows(where, problem, variant.decoded(split), None)
    return rows + list(_error_rows(where, variant, split))


def _error_rows(where: Where, variant: TrainedTask, split: str) -> Iterator[MetricRow]:
    """Yield the mean absolute error of calibrated scores, in the unit of the corpus."""
    unit, rows = variant.problem.corpus.score_range, variant.problem.scorer(split).rows
    if unit:
        pairs = zip(variant.calibrations, variant.outputs(split), strict=True)
        scores = [to_corpus_range(calibration(output), unit) for calibration, output in pairs]  # type: ignore[operator,misc]
        if error := estimate_metric(mean_absolute_error, scores, to_corpus_range(rows.targets, unit)):
            yield MetricRow(**where, metric="mae", **asdict(error), seed=None)


def comparison_rows(task: str, problem: Problem, variants: Sequence[TrainedVariant]) -> Iterator[MetricRow]:
    """Yield the difference of every variant to its baselines, by the selection metric of a task on its scored split."""
    split, scorer = problem.corpus.test_split, problem.scorer(problem.corpus.test_split)
    with_task = [variant for variant in variants if task in variant.tasks]
    resampled = {
        variant.variant: scorer.resampled(problem.metric, variant.tasks[task].decoded(split)) for variant in with_task
    }
    for variant in with_task:
        for baseline in baselines(variant, with_task):
            first, second = resampled[baseline.variant], resampled[variant.variant]
            if first and second and (difference := paired_difference(first, second)):
                where = _where(problem, split, variant.variant, backbones(variant.tasks[task])) | {"task": task}
                yield MetricRow(
                    **where,
                    against=baseline.variant,
                    metric=problem.metric,
                    **asdict(difference),
                    seed=None,
                )


def baselines(variant: TrainedVariant, variants: Sequence[TrainedVariant]) -> list[TrainedVariant]:
    """Return the variants that a variant is compared with.

    They are those that train one task alone, and those that differ in nothing but weighing all tasks equally; if there
    are none, the first variant.
    """
    single_task = [other for other in variants if len(other.tasks) == 1]
    equal_weights = [
        other
        for other in variants
        if other.recipe.balancing.balancer == "equal"
        and replace(variant.recipe, balancing=other.recipe.balancing) == other.recipe
    ]
    others = [other for other in (*single_task, *equal_weights) if other is not variant]
    return others or [other for other in variants[:1] if other is not variant]


def count_rows(variant: TrainedVariant) -> Iterator[MetricRow]:
    """Yield what a variant costs, in numbers of parameters."""
    counts = {
        "trained_parameters": variant.trained_parameters,
        "parameters": variant.parameters,
        "saved_parameters": variant.saved_parameters,
    }
    backbone = "+".join(dict.fromkeys(backbones(task) for task in variant.tasks.values()))
    for metric, value in counts.items():
        yield MetricRow(variant=variant.variant, backbone=backbone, metric=metric, value=float(value))


def metric_rows(where: Where, problem: Problem, decoded: Decoded, seed: int | None) -> Iterator[MetricRow]:
    """Yield a row for every metric that is defined: of one seed's decoded predictions, or the mean over several."""
    scorer = problem.scorer(where["split"])
    for metric in problem.metrics:
        if resampled := scorer.resampled(metric, decoded):
            yield MetricRow(**where, metric=metric, **asdict(resampled.estimate()), seed=seed)


def p_value_rows(where: Where, problem: Problem, decoded: NDArray[Any], seed: int | None) -> Iterator[MetricRow]:
    """Yield a row for every correlation that is defined: its p-value against no correlation."""
    target = problem.scorer(where["split"]).rows.targets
    for name in problem.metrics:
        metric = problem.task.metrics[name]
        if metric in CORRELATIONS:
            value = correlation_p_value(metric, decoded, target)
            if value is not None:
                yield MetricRow(**where, metric=f"{name}_p", value=value, n=len(target), seed=seed)


def _where(problem: Problem, split: str, variant: str, backbone: str) -> dict[str, Any]:
    return {
        "variant": variant,
        "backbone": backbone,
        "corpus": problem.corpus.name,
        "task": problem.task.name,
        "split": split,
    }


def backbones(variant: TrainedTask) -> str:
    """Return the names of the backbones that a variant reads, joined by +."""
    return "+".join(dict.fromkeys(variant.recipe.capture_plan(column.plan).backbone for column in variant.columns))
