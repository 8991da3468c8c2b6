"""Rows of ``metrics.csv``: trained variants and their untrained references, on every split, with intervals.

Untrained references predict without a probe. Scores: the cosine similarity of every layer. Classes: the commonest
class. Tags: the commonest tag of each word. Answers: the sentence of the context that shares most words with the
question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.store.plan import CapturePlan
from permafrost.probes.config.columns import Column, single_layer, view_name
from permafrost.probes.config.names import CORRELATIONS, UNTRAINED
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.bootstrap import correlation_p_value, estimate_metric
from permafrost.probes.results.metric_row import TRAINED_PARAMETERS, MetricRow, to_corpus_range
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import UNTRAINED_PREDICTIONS, scorer_of, task_of
from permafrost.probes.variants.trained_variant import TrainedVariant


def all_rows(variants: Sequence[TrainedVariant], corpus: Corpus) -> list[MetricRow]:
    """Return the rows of the untrained references on every split, then of every variant on all splits but train."""
    rows = [row for split in corpus.splits for row in untrained_rows(variants, corpus, split)]
    measured = [split for split in corpus.splits if split != "train"]
    return rows + [row for split in measured for variant in variants for row in variant_rows(variant, corpus, split)]


def untrained_rows(variants: Sequence[TrainedVariant], corpus: Corpus, split: str) -> list[MetricRow]:
    """Return the rows of the untrained references of some variants on one split."""
    if corpus.kind == "score":
        return _cosine_rows(variants, corpus, split)
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = {
        "variant": UNTRAINED,
        "backbone": backbones(variants[0].recipe, variants[0].columns),
        "corpus": corpus.name,
        "task": task.name,
        "split": split,
    }
    return metric_rows(where, task.metrics, [UNTRAINED_PREDICTIONS[corpus.kind](corpus, scorer.rows)], scorer, None)


def _cosine_rows(variants: Sequence[TrainedVariant], corpus: Corpus, split: str) -> list[MetricRow]:
    """Return the rows of the cosine similarity of every layer that a variant reads, each once.

    If a variant uses the name of a plan for another capture than the variants before, its reference is named after it.
    """
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    rows: list[MetricRow] = []
    plans_by_name: dict[str, list[CapturePlan]] = {}
    done: set[tuple[Column, CapturePlan]] = set()
    for variant in variants:
        for column, cosine in zip(variant.columns, variant.untrained_cosines.get(split, ()), strict=False):
            plan = replace(variant.recipe.capture_plan(column.plan), views=("mean",), layers="all")
            plans = plans_by_name.setdefault(column.plan, [])
            if plan not in plans:
                plans.append(plan)
            if (column, plan) not in done:
                done.add((column, plan))
                name = UNTRAINED if plan == plans[0] else f"{UNTRAINED} ({variant.variant})"
                where = {
                    "variant": name,
                    "backbone": plan.backbone,
                    "view": view_name([column]),
                    "layer": column.layer,
                    "corpus": corpus.name,
                    "task": task.name,
                    "split": split,
                }
                rows += metric_rows(where, task.metrics, [cosine], scorer, None)
                rows += p_value_rows(where, task.metrics, cosine, scorer.rows.targets, None)
    return rows


def variant_rows(variant: TrainedVariant, corpus: Corpus, split: str) -> list[MetricRow]:
    """Return the rows of a variant on one split: of every seed, and of all seeds."""
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = inputs_of(variant) | {"corpus": corpus.name, "task": task.name, "split": split}
    rows: list[MetricRow] = []
    for seed, prediction in zip(variant.seeds, variant.predictions[split], strict=True):
        answers = scorer.decode(prediction)
        rows += metric_rows(where, task.metrics, [answers], scorer, seed)
        rows += p_value_rows(where, task.metrics, answers, scorer.rows.targets, seed)
    outputs = variant.outputs(split)
    rows += metric_rows(where, task.metrics, [scorer.decode(output) for output in outputs], scorer, None)
    if corpus.score_range:
        unit = corpus.score_range
        calibrated = zip(variant.calibrations, outputs, strict=True)
        scores = [to_corpus_range(calibration(output), unit) for calibration, output in calibrated]
        if error := estimate_metric("mae", scores, to_corpus_range(scorer.rows.targets, unit)):
            rows.append(MetricRow(**where, metric="mae", **asdict(error), seed=None))
    return rows


def metric_rows(
    where: Mapping[str, Any], metrics: Sequence[str], answers: Sequence[NDArray[Any]], scorer: Scorer, seed: int | None
) -> list[MetricRow]:
    """Return a row for every metric that is defined: of one seed's answers, or the mean over several.

    Args:
        where: fields that the rows have in common.
    """
    resampled = {metric: scorer.resampled(metric, answers) for metric in metrics}
    return [
        MetricRow(**where, metric=metric, **asdict(figure.estimate()), seed=seed)
        for metric, figure in resampled.items()
        if figure
    ]


def p_value_rows(
    where: Mapping[str, Any], metrics: Sequence[str], prediction: NDArray[Any], target: NDArray[Any], seed: int | None
) -> list[MetricRow]:
    """Return a row for every correlation that is defined: its p-value against no correlation."""
    values = {metric: correlation_p_value(metric, prediction, target) for metric in metrics if metric in CORRELATIONS}
    return [
        MetricRow(**where, metric=f"{metric}_p", value=value, low=None, high=None, n=len(target), seed=seed)
        for metric, value in values.items()
        if value is not None
    ]


def parameter_rows(variants: Sequence[TrainedVariant]) -> list[MetricRow]:
    """Return a row per variant with its number of trained parameters."""
    return [
        MetricRow(**inputs_of(variant), metric=TRAINED_PARAMETERS, value=variant.parameters) for variant in variants
    ]


def inputs_of(variant: TrainedVariant) -> dict[str, Any]:
    """Return the fields of rows that say which inputs a variant reads."""
    columns = variant.columns
    return {
        "variant": variant.variant,
        "backbone": backbones(variant.recipe, columns),
        "view": view_name(columns),
        "layer": single_layer(columns),
    }


def backbones(recipe: Recipe, columns: Sequence[Column]) -> str:
    """Return the names of the backbones of some columns, joined by +."""
    return "+".join(dict.fromkeys(recipe.capture_plan(column.plan).backbone for column in columns))
