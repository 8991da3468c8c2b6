"""Tables of a run of multitask variants: metrics, counts of parameters, paired comparisons and training curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.results.metric_row import (
    PARAMETERS,
    SAVED_PARAMETERS,
    TRAINED_PARAMETERS,
    MetricRow,
    metrics_frame,
)
from permafrost.probes.tasks.registry import scorer_of
from permafrost.probes.variants.metric_rows import all_rows, inputs_of
from permafrost.probes.variants.multitask import MultitaskVariant
from permafrost.probes.variants.trained_variant import TrainedVariant


def metric_rows(
    variants: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus], metrics: Mapping[str, str]
) -> list[MetricRow]:
    """Return the rows of ``metrics.csv`` task by task, those of the task's selection metric first.

    Args:
        corpora: task -> its corpus.
        metrics: task -> its selection metric.
    """
    rows: list[MetricRow] = []
    for task, corpus in corpora.items():
        trained = [variant.tasks[task] for variant in variants if task in variant.tasks]
        task_rows = [replace(row, task=task) for row in all_rows(trained, corpus)]
        rows += sorted(task_rows, key=lambda row: row.metric != metrics[row.task])
    return rows


def parameter_rows(variants: Sequence[MultitaskVariant]) -> list[MetricRow]:
    """Return the counts of parameters of each variant, which belong to no task."""
    return [
        MetricRow(
            variant=variant.variant,
            backbone="+".join(dict.fromkeys(inputs_of(task)["backbone"] for task in variant.tasks.values())),
            metric=count,
            value=getattr(variant, count),
        )
        for variant in variants
        for count in (TRAINED_PARAMETERS, PARAMETERS, SAVED_PARAMETERS)
    ]


def run_tables(rows: Sequence[MetricRow], variants: Sequence[MultitaskVariant]) -> dict[str, pd.DataFrame]:
    """Return the tables of the whole run by name; ``rows`` are those of ``metrics.csv``."""
    losses = [{"phase": "training"} | record for record in log_records(variants, "losses")]
    return {
        "metrics": metrics_frame(rows),
        "training": pd.DataFrame(losses),
        "epochs": pd.DataFrame(log_records(variants, "figures")),
        "conflicts": pd.DataFrame(log_records(variants, "conflicts")),
        "frozen": pd.DataFrame(log_records(variants, "frozen")),
    }


def log_records(
    variants: Sequence[MultitaskVariant], table: Literal["figures", "losses", "conflicts", "frozen"]
) -> list[dict[str, Any]]:
    """Return the records of one table of the variants' training logs, each with its variant and seed."""
    return [
        {"variant": variant.variant, "seed": seed} | record
        for variant in variants
        for seed, log in variant.logs.items()
        for record in getattr(log, table)
    ]


def comparison_rows(
    variants: Sequence[MultitaskVariant], corpora: Mapping[str, Corpus], metrics: Mapping[str, str]
) -> Iterator[MetricRow]:
    """Compare every variant with its baselines, by the selection metric of each task on its scored split."""
    for task, corpus in corpora.items():
        with_task = [variant for variant in variants if task in variant.tasks]
        scorer, metric = scorer_of(corpus, corpus.test_split), metrics[task]
        resampled = {
            variant.variant: scorer.resampled(metric, _answers(variant.tasks[task], corpus)) for variant in with_task
        }
        for variant in with_task:
            for baseline in baselines(variant, with_task):
                first, second = resampled[baseline.variant], resampled[variant.variant]
                if first and second and (comparison := paired_difference(first, second)):
                    yield MetricRow(
                        **inputs_of(variant.tasks[task]),
                        against=baseline.variant,
                        corpus=corpus.name,
                        task=task,
                        split=corpus.test_split,
                        metric=metric,
                        **asdict(comparison),
                    )


def baselines(variant: MultitaskVariant, variants: Sequence[MultitaskVariant]) -> list[MultitaskVariant]:
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


def _answers(variant: TrainedVariant, corpus: Corpus) -> list[NDArray[Any]]:
    scorer = scorer_of(corpus, corpus.test_split)
    return [scorer.decode(output) for output in variant.outputs(corpus.test_split)]
