"""TODO: probes/results/metric_row.py."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


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


def as_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """The long table, whole numbers kept whole."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    return frame.astype({"layer": "Int64", "seed": "Int64"})


def in_unit(score: NDArray[Any], corpus_range: tuple[float, float]) -> NDArray[np.float64]:
    """Scores in 0..1 to the corpus's unit."""
    low, high = corpus_range
    return score * (high - low) + low


def where_of(variant: str, backbone: str, view: str, layer: int | None, task: str, split: str) -> dict[str, Any]:
    """What rows have in common that differ in metric and seed only."""
    return {"variant": variant, "backbone": backbone, "view": view, "layer": layer, "task": task, "split": split}
