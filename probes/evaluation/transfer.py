"""The transfer matrix: several runs on several data sets, their metrics side by side, and paired tests."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import combinations

from permafrost.probes.config.names import PROBE, UNTRAINED
from permafrost.probes.evaluation.evaluation import Evaluation
from permafrost.probes.metrics.bootstrap import paired_difference
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.variants.metric_rows import backbones, untrained_name


def pair_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a distinct name of each evaluation, of letters, digits and signs that a folder may have."""
    return [
        f"{number}-{re.sub(r'[^A-Za-z0-9]+', '-', f'{each.evaluated.name}-on-{each.data.name}')[:50].strip('-')}"
        for number, each in enumerate(evaluations, 1)
    ]


def matrix_rows(evaluations: Sequence[Evaluation]) -> list[MetricRow]:
    """Return the rows of ``metrics.csv`` of several evaluations.

    A row has the name of its run as variant, and its data as corpus; then come the differences between runs on the same
    data.
    """
    measured = [_of_run(row, each) for each in evaluations for row in each.rows]
    return measured + list(difference_rows(evaluations))


def _of_run(row: MetricRow, each: Evaluation) -> MetricRow:
    run = each.evaluated
    is_reference = row.variant.startswith(UNTRAINED) and row.variant != run.selected
    variant = untrained_name(run.name) if is_reference else run.name
    return replace(row, variant=variant, corpus=each.data.name, task=_task(each))


def _task(each: Evaluation) -> str:
    return "" if each.evaluated.task == PROBE else each.evaluated.task


def difference_rows(evaluations: Sequence[Evaluation]) -> Iterator[MetricRow]:
    """Yield the difference of the selection metric between every two runs on the same rows of the same data."""
    for first, second in combinations(evaluations, 2):
        metric = second.problem.metric
        if first.data.name != second.data.name or metric != first.problem.metric or not _same_rows(first, second):
            continue
        base, other = (
            each.problem.scorer(each.split).resampled(metric, each.predicted.decoded(each.split))
            for each in (first, second)
        )
        if base and other and (difference := paired_difference(base, other)):
            yield MetricRow(
                variant=second.evaluated.name,
                against=first.evaluated.name,
                backbone=backbones(second.predicted),
                corpus=second.data.name,
                task=_task(second),
                split=second.split,
                metric=metric,
                **asdict(difference),
                seed=None,
            )


def _same_rows(first: Evaluation, second: Evaluation) -> bool:
    """Return whether two evaluations are of the same texts with the same targets, in the same order."""
    rows = []
    for each in (first, second):
        corpus, split_rows = each.problem.corpus, each.problem.scorer(each.split).rows
        texts = [tuple(corpus.texts[text] for text in texts) for texts in split_rows.texts.tolist()]
        rows.append((corpus.kind, each.split, texts, each.problem.task.row_labels(corpus, split_rows)))
    return rows[0] == rows[1]
