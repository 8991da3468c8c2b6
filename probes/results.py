"""Results: the long metrics table, predictions row by row, and the rows that the screen shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from data.corpus import Corpus, Rows
from probes.experiment import Inputs, Trained, answers, raw_cosines, raw_predictions, task_of
from probes.metrics import measure, p_value
from probes.recipe import UNTRAINED


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


def measured_rows(trained: Sequence[Trained], corpus: Corpus, split: str) -> list[MetricRow]:
    """Every variant and seed on one split, and a row per variant that sums its seeds up."""
    task, rows = task_of(corpus), corpus.split(split)
    found: list[MetricRow] = []
    for variant in dict.fromkeys(one.variant for one in trained):
        members = [one for one in trained if one.variant == variant]
        inputs, backbone = members[0].inputs, members[0].recipe.plan.backbone
        with torch.inference_mode():
            raw = [raw_predictions(one.probe, one.inputs, rows) for one in members]
        said = [answers(values) for values in raw]
        table = _Table(variant, backbone, inputs.view, inputs.layer, task.name, split)
        for one, prediction in zip(members, said, strict=True):
            found += table.rows(task.metrics, [prediction], rows.targets, one.seed)
            found += table.p_values(task.metrics, prediction, rows.targets, one.seed)
        found += table.rows(task.metrics, said, rows.targets, None)
        if corpus.score_range:
            unit = corpus.score_range
            both = zip(members, raw, strict=True)
            scores = [in_unit(one.calibration(values), unit) for one, values in both if one.calibration]
            found += table.rows(("mae",), scores, in_unit(rows.targets, unit), None)
    return found


def untrained_rows(inputs: Inputs, name: str, backbone: str, corpus: Corpus, split: str) -> list[MetricRow]:
    """The reference without training: raw cosine of every layer and view, or the majority class."""
    task, rows = task_of(corpus), corpus.split(split)
    if not corpus.score_range:
        majority = int(np.bincount(corpus.split("train").targets.astype(np.int64)).argmax())
        said = np.full(len(rows), majority)
        return _Table(name, backbone, "", None, task.name, split).rows(task.metrics, [said], rows.targets, None)
    found: list[MetricRow] = []
    for (view, layer), cosines in zip(inputs.columns, raw_cosines(inputs, rows), strict=True):
        table = _Table(name, backbone, view, layer, task.name, split)
        found += table.rows(task.metrics, [cosines], rows.targets, None)
        found += table.p_values(task.metrics, cosines, rows.targets, None)
    return found


def prediction_table(trained: Sequence[Trained], selected: str, corpus: Corpus, split: str) -> pd.DataFrame:
    """What the selected variant says of every row of a split, one line a row and seed."""
    rows = corpus.split(split)
    frames = []
    for one in trained:
        if one.variant == selected:
            with torch.inference_mode():
                raw = raw_predictions(one.probe, one.inputs, rows)
            frames.append(pd.DataFrame(_texts(corpus, rows) | _said(one, raw, rows, corpus) | {"seed": one.seed}))
    return pd.concat(frames, ignore_index=True)


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


def _said(one: Trained, raw: NDArray[np.float32], rows: Rows, corpus: Corpus) -> dict[str, Any]:
    if one.calibration and corpus.score_range:
        unit = corpus.score_range
        return {"target": in_unit(rows.targets, unit), "score": in_unit(one.calibration(raw), unit), "raw": raw}
    said = probabilities(raw)
    names = np.array(corpus.labels)
    columns = {f"probability_{label}": said[:, code] for code, label in enumerate(corpus.labels)}
    return {"target": names[rows.targets.astype(np.int64)], "label": names[answers(raw)]} | columns


@dataclass(frozen=True)
class _Table:
    """Rows that share all but metric and seed."""

    variant: str
    backbone: str
    view: str
    layer: int | None
    task: str
    split: str

    def rows(
        self, metrics: Sequence[str], predictions: Sequence[NDArray[Any]], target: NDArray[Any], seed: int | None
    ) -> list[MetricRow]:
        found = {metric: measure(metric, predictions, target) for metric in metrics}
        return [self._row(name, m.value, m.low, m.high, m.n, seed) for name, m in found.items() if m]

    def p_values(
        self, metrics: Sequence[str], prediction: NDArray[Any], target: NDArray[Any], seed: int | None
    ) -> list[MetricRow]:
        wanted = [metric for metric in metrics if metric in ("pearson", "spearman")]
        found = {f"{metric}_p": p_value(metric, prediction, target) for metric in wanted}
        return [self._row(name, p, None, None, len(target), seed) for name, p in found.items() if p is not None]

    def _row(
        self, metric: str, value: float, low: float | None, high: float | None, n: int, seed: int | None
    ) -> MetricRow:
        return MetricRow(
            self.variant, self.backbone, self.view, self.layer, self.task, self.split, metric, value, low, high, n, seed
        )


def all_rows(trained: Sequence[Trained], corpus: Corpus, split: str) -> list[MetricRow]:
    """The untrained reference of every distinct input, then every variant.

    Where variants differ in their plan, the reference of each further plan carries the name of its first variant.
    """
    found: dict[tuple[str, str, int | None, str], MetricRow] = {}
    for plan in dict.fromkeys(one.recipe.plan for one in trained):
        members = [one for one in trained if one.recipe.plan == plan]
        name = UNTRAINED if plan == trained[0].recipe.plan else f"{UNTRAINED} ({members[0].variant})"
        for inputs in {id(one.inputs): one.inputs for one in members}.values():
            for row in untrained_rows(inputs, name, plan.backbone, corpus, split):
                found[name, row.view, row.layer, row.metric] = row
    return [*found.values(), *measured_rows(trained, corpus, split)]


def headline(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[list[Any]]]:
    """What the screen shows: the split, the metrics, a line per variant with its mean over seeds and interval.

    Of the untrained reference only the last layer of each view is shown.
    """
    split = "test" if any(row["split"] == "test" for row in rows) else "validation"
    shown = [row for row in rows if row["split"] == split and row["seed"] is None and not row["metric"].endswith("_p")]
    last: dict[tuple[str, str], int] = {}
    for row in shown:
        if row["variant"].startswith(UNTRAINED) and row["layer"] is not None:
            of = (row["variant"], row["view"])
            last[of] = max(last.get(of, 0), row["layer"])
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in shown:
        if not row["variant"].startswith(UNTRAINED) or row["layer"] == last.get((row["variant"], row["view"])):
            key = (row["variant"], row["view"], row["layer"])
            lines.setdefault(key, {})[row["metric"]] = _with_interval(row)
    return split, metrics, [[*key, *(cells.get(metric) for metric in metrics)] for key, cells in lines.items()]


def _with_interval(row: Mapping[str, Any]) -> str:
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""
    return f"{row['value']:.4f}{interval}"
