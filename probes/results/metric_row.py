"""Rows of ``metrics.csv``, the one long table of everything that a run measures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

TRAINED_PARAMETERS, PARAMETERS, SAVED_PARAMETERS = "trained_parameters", "parameters", "saved_parameters"
"""Metrics that are counts of a variant or a subset, for one seed: parameters that were trained; those of the backbone
and of every head; and how many more would be trained if each task had blocks of its own."""


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One row of ``metrics.csv``: a metric on a split, a difference between two metrics, or a count of parameters."""

    variant: str
    against: str = ""
    """Variant or subset that the value is compared with; empty if ``value`` is the metric itself. Else ``value`` is the
    difference, metric of the row minus metric of ``against``, on the same rows of the split."""

    backbone: str
    corpus: str = ""
    view: str = ""
    layer: int | None = None
    """None if several layers are read."""

    subset: str = ""
    """Subset of the layers or views that the probe reads: ``all``, ``view NAME``, or a kind with layers, for example
    ``single 3``, ``without layer 3``, ``prefix 0-3``, ``greedy 0,3``. Empty if it reads all that it was given."""

    control: str = ""
    """Empty, ``untrained`` or ``random targets``."""

    task: str = ""
    split: str = ""
    """Empty for counts of parameters."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    """Ends of the bootstrap 95 % interval; None if there is none."""

    p: float | None = None
    """Two-sided p-value of the paired bootstrap; only with ``against``."""

    n: int | None = None
    """Number of rows of the split; None for counts of parameters."""

    seed: int | None = None
    """None for the mean over seeds."""


COLUMNS = list(MetricRow.__dataclass_fields__)


def metrics_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """Return the rows as a table; ``layer``, ``n`` and ``seed`` are integers with missing values."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    return frame.astype({"layer": "Int64", "n": "Int64", "seed": "Int64"})
