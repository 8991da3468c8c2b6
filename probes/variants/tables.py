"""Breakdown: what a variant is worth on groups of rows: each class, each type of entity, each question word, patterns.

Every figure is the mean over voices, with a bootstrap interval over rows.
"""
# MERGED DOCS:
# """Confusion: how often a variant takes a row, or a word, of one class for one of another."""
# """What a variant says of every row of a split, as a table: a line a row, or a line a word."""
# """Untrained references: what can be said of rows without a probe.
#
# Scores: the raw cosine of every layer. Classes: the commonest. Tags: the commonest of each word. Answers: the sentence
# of the context that shares most words with the question.
# """
# """Results: the long metrics table, how training went, and the rows that the screen shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from permafrost.data.corpora.corpus import Corpus
from permafrost.data.store.plan import CapturePlan
from permafrost.probes.config.columns import Column, only_layer, view_name
from permafrost.probes.config.names import CORRELATIONS, UNTRAINED
from permafrost.probes.inputs.latents import ProbeInputs
from permafrost.probes.metrics.bootstrap import measure, p_value
from permafrost.probes.metrics.projection import project
from permafrost.probes.results.metric_row import MetricRow, in_unit, where_of
from permafrost.probes.tasks.base import Scorer
from permafrost.probes.tasks.registry import PARTS, SAID, UNTRAINED_ANSWERS, row_labels, scorer_of, task_of
from permafrost.probes.training.best_state import History
from permafrost.probes.variants.trained_variant import TrainedVariant

BREAKDOWN_COLUMNS = ["variant", "split", "kind", "group", "metric", "value", "low", "high", "n"]


def breakdown_table(one: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """A line a split but train, group and metric; empty for scores, which have no groups."""
    lines: list[dict[str, Any]] = []
    for split in corpus.splits:
        if split != "train" and corpus.kind in PARTS:
            scorer = scorer_of(corpus, split)
            answers = [scorer.decode(said) for said in one.outputs(split)]
            for part in PARTS[corpus.kind]:
                lines += [
                    {"variant": one.variant, "split": split, "kind": kind, "group": group, "metric": metric}
                    | asdict(measured)
                    for kind, group, metric, measured in part(scorer, answers, corpus)
                ]
    return pd.DataFrame(lines, columns=BREAKDOWN_COLUMNS)


CONFUSION_COLUMNS = ["variant", "target", "label", "n"]


def confusion_table(one: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """A line a pair of classes that occurs on the scored split: the true one, the one that is said, and how often.

    Of several seeds the first one counts. Empty for scores and answers, which have no classes.
    """
    if corpus.kind not in ("class", "tags"):
        return pd.DataFrame(columns=CONFUSION_COLUMNS)
    scorer, names = scorer_of(corpus, corpus.scored), np.array(corpus.labels)
    marks = scorer.rows.spans
    true = scorer.rows.targets if marks is None else marks.codes
    said = scorer.decode(one.outputs(corpus.scored)[0])
    pairs = pd.DataFrame({"target": names[true.astype(np.int64)], "label": names[said.astype(np.int64)]})
    counts = pairs.value_counts(sort=False).rename("n").reset_index()
    return counts.assign(variant=one.variant)[CONFUSION_COLUMNS]


def prediction_table(one: TrainedVariant, corpus: Corpus, split: str) -> pd.DataFrame:
    """What a variant says of a split, once for every seed; once for all where they answer together."""
    scorer = scorer_of(corpus, split)
    frames = []
    for place, said in enumerate(one.outputs(split)):
        seed = pd.NA if one.average else one.seeds[place]
        calibration = one.calibrations[place] if one.calibrations else None
        frame = pd.DataFrame(SAID[corpus.kind](said, scorer, corpus, calibration))
        frames.append(frame.assign(seed=pd.array([seed] * len(frame), "Int64")))
    return pd.concat(frames, ignore_index=True)


def all_rows(found: Sequence[TrainedVariant], corpus: Corpus) -> list[MetricRow]:
    """The long table: every variant on all splits but train, and on every split the untrained reference."""
    lines = [row for split in corpus.splits for row in untrained_rows(found, corpus, split)]
    scored = [split for split in corpus.splits if split != "train"]
    return lines + [row for split in scored for one in found for row in measured_rows(one, corpus, split)]


def untrained_rows(found: Sequence[TrainedVariant], corpus: Corpus, split: str) -> list[MetricRow]:
    """The reference without training on one split."""
    if corpus.kind == "score":
        return list(_cosine_rows(found, corpus, split))
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = where_of(UNTRAINED, backbones(found[0]), "", None, task.name, split)
    return figures(where, task.metrics, [UNTRAINED_ANSWERS[corpus.kind](corpus, scorer.rows)], scorer, None)


def _cosine_rows(found: Sequence[TrainedVariant], corpus: Corpus, split: str) -> list[MetricRow]:
    """Where a variant means another capture by the same name, its reference carries the name of that variant."""
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    lines: list[MetricRow] = []
    known: dict[str, list[CapturePlan]] = {}
    done: set[tuple[Column, CapturePlan]] = set()
    for one in found:
        for column, cosine in zip(one.columns, one.untrained.get(split, ()), strict=False):
            plan = replace(one.recipe.capture_plan(column.plan), views=("mean",), layers="all")
            plans = known.setdefault(column.plan, [])
            if plan not in plans:
                plans.append(plan)
            if (column, plan) not in done:
                done.add((column, plan))
                name = UNTRAINED if plan == plans[0] else f"{UNTRAINED} ({one.variant})"
                where = where_of(name, plan.backbone, view_name([column]), column.layer, task.name, split)
                lines += figures(where, task.metrics, [cosine], scorer, None)
                lines += p_values(where, task.metrics, cosine, scorer.rows.targets, None)
    return lines


def measured_rows(one: TrainedVariant, corpus: Corpus, split: str) -> list[MetricRow]:
    """A variant on one split: every seed, and a row that sums them up."""
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = where_of(one.variant, backbones(one), view_name(one.columns), only_layer(one.columns), task.name, split)
    found: list[MetricRow] = []
    for seed, said in zip(one.seeds, one.predictions[split], strict=True):
        answers = scorer.decode(said)
        found += figures(where, task.metrics, [answers], scorer, seed)
        found += p_values(where, task.metrics, answers, scorer.rows.targets, seed)
    voices = one.outputs(split)
    found += figures(where, task.metrics, [scorer.decode(said) for said in voices], scorer, None)
    if corpus.score_range:
        unit = corpus.score_range
        scores = [in_unit(line(said), unit) for line, said in zip(one.calibrations, voices, strict=True)]
        if error := measure("mae", scores, in_unit(scorer.rows.targets, unit)):
            found.append(MetricRow(**where, metric="mae", **asdict(error), seed=None))
    return found


def training_table(found: Sequence[TrainedVariant]) -> pd.DataFrame:
    """Loss and validation metric by epoch, of every variant, seed and phase."""
    lines: list[dict[str, Any]] = []
    for one in found:
        for seed, fitted, pretrained in zip(one.seeds, one.histories, one.pretrained, strict=True):
            phases = [("training", [fitted])] + ([("pretraining", pretrained.histories)] if pretrained else [])
            for phase, layers in phases:
                lines += [
                    {"variant": one.variant, "seed": seed, "phase": phase, "epoch": epoch + 1} | _epoch(layers, epoch)
                    for epoch in range(max(len(layer.losses) for layer in layers))
                ]
    return pd.DataFrame(lines)


def _epoch(layers: Sequence[History], epoch: int) -> dict[str, float]:
    """Mean over the layers that still learnt."""
    learning = [layer for layer in layers if epoch < len(layer.losses)]
    return {
        "loss": float(np.mean([layer.losses[epoch] for layer in learning])),
        "value": float(np.mean([layer.values[epoch] for layer in learning])),
    }


def epochs_table(found: Sequence[TrainedVariant]) -> pd.DataFrame:
    """Validation figures by epoch, 0 before training, of every variant and seed whose blocks learn."""
    return pd.DataFrame(
        [
            {"variant": one.variant, "seed": seed} | line
            for one in found
            for seed, log in zip(one.seeds, one.logs, strict=False)
            for line in log.figures
        ]
    )


def autoencoder_table(found: Sequence[TrainedVariant]) -> pd.DataFrame:
    """How well each layer was rebuilt: of every variant and seed whose encoder is a pretrained autoencoder's."""
    return pd.DataFrame(
        [
            {"variant": one.variant, "seed": seed} | asdict(layer)
            for one in found
            for seed, pretrained in zip(one.seeds, one.pretrained, strict=True)
            if pretrained
            for layer in pretrained.layers
        ]
    )


def backbones(one: TrainedVariant) -> str:
    """The backbones that a variant reads, joined."""
    return "+".join(dict.fromkeys(one.recipe.capture_plan(column.plan).backbone for column in one.columns))


def figures(
    where: Mapping[str, Any], metrics: Sequence[str], answers: Sequence[NDArray[Any]], scorer: Scorer, seed: int | None
) -> list[MetricRow]:
    """A line for every metric that exists, of one answer or the mean of several."""
    found = {metric: scorer.resampled(metric, answers) for metric in metrics}
    return [MetricRow(**where, metric=name, **asdict(m.measured()), seed=seed) for name, m in found.items() if m]


def p_values(
    where: Mapping[str, Any], metrics: Sequence[str], prediction: NDArray[Any], target: NDArray[Any], seed: int | None
) -> list[MetricRow]:
    """A line for every correlation: the p-value of there being none."""
    found = {metric: p_value(metric, prediction, target) for metric in metrics if metric in CORRELATIONS}
    return [
        MetricRow(**where, metric=f"{name}_p", value=p, low=None, high=None, n=len(target), seed=seed)
        for name, p in found.items()
        if p is not None
    ]


SHOWN_TEXTS = 500
"""Texts in the 3-D figures of the latents."""


def latent_table(inputs: ProbeInputs, one: TrainedVariant, corpus: Corpus) -> pd.DataFrame:
    """Three coordinates of some texts of validation, in the first, middle and last layer that a variant reads."""
    rows = corpus.split("validation")
    taken = rows.texts[: SHOWN_TEXTS // rows.texts.shape[1]]
    texts = taken.reshape(-1)
    labels = np.repeat(row_labels(corpus, rows.select(np.arange(len(taken)))), rows.texts.shape[1])
    frames = []
    for layer in sorted({0, len(one.columns) // 2, len(one.columns) - 1}):
        column = one.columns[layer]
        points = project(inputs.pooled(layer, texts)[:, : inputs.widths[layer]].numpy())
        said = {"label": [labels[at] for at in points.index], "text": [corpus.texts[texts[at]] for at in points.index]}
        frames.append(points.assign(plan=column.plan, view=column.view, layer=column.layer, **said))
    return pd.concat(frames, ignore_index=True)
