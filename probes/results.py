"""Results: the long metrics table, how training went, and the rows that the screen shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data.corpus import HELD_OUT, Corpus
from probes.best import Fitted
from probes.ensemble import Ensemble
from probes.inputs import only_layer, view_name
from probes.metrics import CORRELATIONS, measure, p_value
from probes.scoring import Scorer, scorer_of
from probes.tables import UNTRAINED
from probes.tasks import task_of


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
    task, scorer = task_of(corpus), scorer_of(corpus, split)
    where = where_of(one.variant, backbones(one), view_name(one.columns), only_layer(one.columns), task.name, split)
    found: list[MetricRow] = []
    for seed, said in zip(one.seeds, one.said[split], strict=True):
        answers = scorer.answers(said)
        found += figures(where, task.metrics, [answers], scorer, seed)
        found += p_values(where, task.metrics, answers, scorer.rows.targets, seed)
    voices = one.voices(split)
    found += figures(where, task.metrics, [scorer.answers(said) for said in voices], scorer, None)
    if corpus.score_range:
        unit = corpus.score_range
        scores = [in_unit(line(said), unit) for line, said in zip(one.calibrations, voices, strict=True)]
        if error := measure("mae", scores, in_unit(scorer.rows.targets, unit)):
            found.append(MetricRow(**where, metric="mae", **asdict(error), seed=None))
    return found


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


def epochs_table(found: Sequence[Ensemble]) -> pd.DataFrame:
    """Validation figures by epoch, 0 before training, of every variant and seed whose blocks learn."""
    return pd.DataFrame(
        [
            {"variant": one.variant, "seed": seed} | line
            for one in found
            for seed, log in zip(one.seeds, one.logs, strict=False)
            for line in log.figures
        ]
    )


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


def backbones(one: Ensemble) -> str:
    """The backbones that a variant reads, joined."""
    return "+".join(dict.fromkeys(one.recipe.captured(column.plan).backbone for column in one.columns))


def where_of(variant: str, backbone: str, view: str, layer: int | None, task: str, split: str) -> dict[str, Any]:
    """What rows have in common that differ in metric and seed only."""
    return {"variant": variant, "backbone": backbone, "view": view, "layer": layer, "task": task, "split": split}


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


def headline(
    rows: Sequence[Mapping[str, Any]], parameters: Mapping[str, int], backbones: Mapping[str, int]
) -> tuple[list[str], list[list[Any]]]:
    """What the screen shows: heads, and a line per variant with its mean over seeds, interval and size.

    Of the untrained reference only the layer of each view is shown that is best on the split that chooses. Where a part
    of train chooses, validation is shown beside test.

    Args:
        parameters: variant -> numbers that it learnt.
        backbones: variant -> numbers of the frozen backbones under it.
    """
    selection = HELD_OUT if any(row["split"] == HELD_OUT for row in rows) else "validation"
    splits = list(dict.fromkeys([*(["validation"] if selection == HELD_OUT else []), scored_in(rows)]))
    shown = [row for row in rows if row["split"] in splits and row["seed"] is None and not row["metric"].endswith("_p")]
    metrics = list(dict.fromkeys(row["metric"] for row in shown))
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        of, chooses = (row["variant"], row["view"]), row["split"] == selection and row["metric"] == metrics[0]
        if chooses and row["variant"].startswith(UNTRAINED) and row["value"] > best.get(of, {"value": -2})["value"]:
            best[of] = row
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in shown:
        of = (row["variant"], row["view"])
        if of not in best or row["layer"] == best[of]["layer"]:
            place = (row["split"],) if len(splits) > 1 else ()
            lines.setdefault((*of, row["layer"], *place), {})[row["metric"]] = with_interval(row)
    heads = [f"on {' and '.join(splits)}", "view", "layer", *(["split"] if len(splits) > 1 else []), *metrics]
    return [*heads, "learnt", "of backbone"], [
        [*key, *(_cell(cells, metric) for metric in metrics), *_size(key[0], parameters, backbones)]
        for key, cells in lines.items()
    ]


def scored_in(rows: Sequence[Mapping[str, Any]]) -> str:
    """The split that the screen shows: test where it was measured, else validation."""
    return "test" if any(row["split"] == "test" for row in rows) else "validation"


def with_interval(row: Mapping[str, Any]) -> str:
    """``0.8418 [0.821, 0.861]``."""
    interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if row["low"] is not None else ""
    return f"{row['value']:.4f}{interval}"


def _cell(cells: Mapping[str, str], metric: str) -> str:
    return cells.get(metric, "undefined: constant" if metric in CORRELATIONS else "")


def _size(variant: str, parameters: Mapping[str, int], backbones: Mapping[str, int]) -> tuple[str, str]:
    if variant not in parameters:
        return "", ""
    share = f"{parameters[variant] / backbones[variant]:.1%}" if backbones.get(variant) else ""
    return f"{parameters[variant]:,}", share
