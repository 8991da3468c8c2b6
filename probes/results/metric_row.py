"""Rows of ``metrics.csv``: one metric of a variant on a split, in long format."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One row of ``metrics.csv``."""

    variant: str
    backbone: str
    view: str
    layer: int | None
    """None if the variant reads several layers."""

    task: str
    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    """Ends of the bootstrap 95 % interval; None if there is none."""

    n: int
    """Number of rows of the split."""

    seed: int | None
    """None for the mean over seeds."""


COLUMNS = list(MetricRow.__dataclass_fields__)


def metrics_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """Return the rows as a table; ``layer`` and ``seed`` are integers with missing values."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    return frame.astype({"layer": "Int64", "seed": "Int64"})


def to_corpus_range(score: NDArray[Any], corpus_range: tuple[float, float]) -> NDArray[np.float64]:
    """Rescale scores from 0..1 to the corpus's range, ``(low, high)``."""
    low, high = corpus_range
    return score * (high - low) + low


def shared_columns(variant: str, backbone: str, view: str, layer: int | None, task: str, split: str) -> dict[str, Any]:
    """Return the columns that the rows of all metrics and seeds of a variant and split share."""
    return {"variant": variant, "backbone": backbone, "view": view, "layer": layer, "task": task, "split": split}
