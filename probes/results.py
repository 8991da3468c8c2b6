"""Results: the long metrics table, predictions row by row, and the rows that the screen shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.corpus import Corpus, Rows
from data.plan import CapturePlan
from probes.ensemble import Ensemble
from probes.experiment import answers, task_of
from probes.inputs import Column, only_layer, view_name
from probes.metrics import CORRELATIONS, measure, p_value
from probes.tables import UNTRAINED
from probes.train import Fitted


@dataclass(frozen=True)
class MetricRow:
    """One line of ``metrics.csv``."""

    variant: str
    backbone: str
    view: str
    layer: int | None
    """Empty where the figure belongs to several layers."""

    task: str
    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    seed: int | None
    """Empty on the row that sums the seeds up."""


COLUMNS = list(MetricRow.__dataclass_fields__)


def measured_rows(one: Ensemble, corpus: Corpus, split: str) -> list[MetricRow]:
    """A variant on one split: every seed, and a row that sums them up."""
    task, target = task_of(corpus), corpus.split(split).targets
    where = _where(one.variant, _backbones(one), view_name(one.columns), only_layer(one.columns), task.name, split)
    found: list[MetricRow] = []
    for seed, raw in zip(one.seeds, one.said[split], strict=True):
        prediction = answers(raw[None])[0]
        found += _rows(where, task.metrics, [prediction], target, seed)
        found += _p_values(where, task.metrics, prediction, target, seed)
    voices = one.voices(split)
    found += _rows(where, task.metrics, [answers(raw[None])[0] for raw in voices], target, None)
    if corpus.score_range:
        unit = corpus.score_range
        scores = [in_unit(line(raw), unit) for line, raw in zip(one.calibrations, voices, strict=True)]
        found += _rows(where, ("mae",), scores, in_unit(target, unit), None)
    return found


def untrained_rows(found: Sequence[Ensemble], corpus: Corpus, split: str) -> list[MetricRow]:
    """The reference without training: raw cosine of every layer that a variant reads, or the majority class.

    Where a variant means another capture by the same name, its reference carries the name of that variant.
    """
    task, rows = task_of(corpus), corpus.split(split)
    if not corpus.score_range:
        majority = int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax())
        where = _where(UNTRAINED, _backbones(found[0]), "", None, task.name, split)
        return _rows(where, task.metrics, [np.full(len(rows), majority)], rows.targets, None)
    lines: list[MetricRow] = []
    known: dict[str, list[CapturePlan]] = {}
    done: set[tuple[Column, CapturePlan]] = set()
    for one in found:
        for column, cosine in zip(one.columns, one.untrained[split], strict=True):
            plan = replace(one.recipe.captured(column.plan), views=("mean",), layers="all")
            plans = known.setdefault(column.plan, [])
            if plan not in plans:
                plans.append(plan)
            if (column, plan) not in done:
                done.add((column, plan))
                name = UNTRAINED if plan == plans[0] else f"{UNTRAINED} ({one.variant})"
                where = _where(name, plan.backbone, view_name([column]), column.layer, task.name, split)
                lines += _rows(where, task.metrics, [cosine], rows.targets, None)
                lines += _p_values(where, task.metrics, cosine, rows.targets, None)
    return lines


def prediction_table(one: Ensemble, corpus: Corpus, split: str) -> pd.DataFrame:
    """What a variant says of every row of a split, a line each for every seed; for all where they answer together."""
    rows = corpus.split(split)
    frames = []
    for place, raw in enumerate(one.voices(split)):
        seed = pd.NA if one.average else one.seeds[place]
        said = _said(one, place, raw, rows, corpus)
        frames.append(pd.DataFrame(_texts(corpus, rows) | said).assign(seed=pd.array([seed] * len(rows), "Int64")))
    return pd.concat(frames, ignore_index=True)


def training_table(found: Sequence[Ensemble]) -> pd.DataFrame:
    """Loss and validation metric by epoch, of every variant, seed and phase."""
    lines: list[dict[str, Any]] = []
    for one in found:
        for seed, fitted, pretrained in zip(one.seeds, one.fitted, one.pretrained, strict=True):
            phases = [("training", [fitted])] + ([("pretraining", pretrained.fitted)] if pretrained else [])
            for phase, layers in phases:
                lines += [
                    {"variant": one.variant, "seed": seed, "phase": phase, "epoch": epoch + 1} | _epoch(layers, epoch)
                    for epoch in range(max(len(layer.losses) for layer in layers))
                ]
    return pd.DataFrame(lines)


def _epoch(layers: Sequence[Fitted], epoch: int) -> dict[str, float]:
    """Mean over the layers that still learnt."""
    learning = [layer for layer in layers if epoch < len(layer.losses)]
    return {
        "loss": float(np.mean([layer.losses[epoch] for layer in learning])),
        "value": float(np.mean([layer.values[epoch] for layer in learning])),
    }


def autoencoder_table(found: Sequence[Ensemble]) -> pd.DataFrame:
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


def as_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """The long table, whole numbers kept whole."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    return frame.astype({"layer": "Int64", "seed": "Int64"})


def in_unit(score: NDArray[Any], corpus_range: tuple[float, float]) -> NDArray[np.float64]:
    """Scores in 0..1 to the corpus's unit."""
    low, high = corpus_range
    return score * (high - low) + low


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[row, class]`` logits to probabilities."""
    values: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits), 1).numpy()
    return values


def _texts(corpus: Corpus, rows: Rows) -> dict[str, Any]:
    names = ["sentence"] if rows.sides.shape[1] == 1 else ["sentence1", "sentence2"]
    return {name: [corpus.texts[i] for i in column] for name, column in zip(names, rows.sides.T, strict=True)}


def _said(one: Ensemble, place: int, raw: NDArray[np.float32], rows: Rows, corpus: Corpus) -> dict[str, Any]:
    if corpus.score_range:
        unit = corpus.score_range
        score = in_unit(one.calibrations[place](raw), unit)
        return {"target": in_unit(rows.targets, unit), "score": score, "raw": raw}
    said = probabilities(raw)
    names = np.array(corpus.labels)
    columns = {f"probability_{label}": said[:, code] for code, label in enumerate(corpus.labels)}
    return {"target": names[rows.targets.astype(np.int64)], "label": names[raw.argmax(1)]} | columns


def _backbones(one: Ensemble) -> str:
    return "+".join(dict.fromkeys(one.recipe.captured(column.plan).backbone for column in one.columns))


def _where(variant: str, backbone: str, view: str, layer: int | None, task: str, split: str) -> dict[str, Any]:
    """What rows have in common that differ in metric and seed only."""
    return {"variant": variant, "backbone": backbone, "view": view, "layer": layer, "task": task, "split": split}


def _rows(
    where: Mapping[str, Any],
    metrics: Sequence[str],
    predictions: Sequence[NDArray[Any]],
    target: NDArray[Any],
    seed: int | None,
) -> list[MetricRow]:
    found = {metric: measure(metric, predictions, target) for metric in metrics}
    return [MetricRow(**where, metric=name, **asdict(m), seed=seed) for name, m in found.items() if m]


def _p_values(
    where: Mapping[str, Any], metrics: Sequence[str], prediction: NDArray[Any], target: NDArray[Any], seed: int | None
) -> list[MetricRow]:
    found = {metric: p_value(metric, prediction, target) for metric in metrics if metric in CORRELATIONS}
    return [
        MetricRow(**where, metric=f"{name}_p", value=p, low=None, high=None, n=len(target), seed=seed)
        for name, p in found.items()
        if p is not None
    ]


def all_rows(found: Sequence[Ensemble], corpus: Corpus) -> list[MetricRow]:
    """The long table: validation and test of every variant, and of every split the untrained reference."""
    lines = [row for split in corpus.splits for row in untrained_rows(found, corpus, split)]
    scored = [split for split in corpus.splits if split != "train"]
    return lines + [row for split in scored for one in found for row in measured_rows(one, corpus, split)]


def headline(
    rows: Sequence[Mapping[str, Any]], parameters: Mapping[str, int], backbones: Mapping[str, int]
) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: heads, and a line per variant with its mean over seeds, interval and size.

    Of the untrained reference only the layer of each view is shown that is best on validation.

    Args:
        parameters: variant -> numbers that it learnt.
        backbones: variant -> numbers of the frozen backbones under it.
    """
    split = "test" if any(row["split"] == "test" for row in rows) else "validation"
    shown = [row for row in rows if row["split"] == split and row["seed"] is None and not row["metric"].endswith("_p")]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        of, chooses = (row["variant"], row["view"]), row["split"] == "validation" and row["metric"] == metrics[0]
        if chooses and row["variant"].startswith(UNTRAINED) and row["value"] > best.get(of, {"value": -2})["value"]:
            best[of] = row
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in shown:
        of = (row["variant"], row["view"])
        if of not in best or row["layer"] == best[of]["layer"]:
            lines.setdefault((*of, row["layer"]), {})[row["metric"]] = _with_interval(row)
    return [f"on {split}", "view", "layer", *metrics, "learnt", "of backbone"], [
        [*key, *(_cell(cells, metric) for metric in metrics), *_size(key[0], parameters, backbones)]
        for key, cells in lines.items()
    ]


def _cell(cells: Mapping[str, str], metric: str) -> str:
    return cells.get(metric, "undefined: constant" if metric in CORRELATIONS else "")


def _size(variant: str, parameters: Mapping[str, int], backbones: Mapping[str, int]) -> tuple[str, str]:
    if variant not in parameters:
        return "", ""
    share = f"{parameters[variant] / backbones[variant]:.1%}" if backbones.get(variant) else ""
    return f"{parameters[variant]:,}", share


def _with_interval(row: Mapping[str, Any]) -> str:
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""
    return f"{row['value']:.4f}{interval}"
