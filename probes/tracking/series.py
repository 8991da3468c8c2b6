"""Series that trackers keep: one of the run as a whole, and one of each training in it; and the protocol of a tracker.

Series are named by the columns of metrics.csv that name a training: ``linear-seed0``, ``single 3-seed1``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

WHOLE = ""
"""Name of the series of the run as a whole."""

Parameter = str | int | float | bool

Status = Literal["finished", "failed", "killed"]
"""How a series ends; one that was killed is continued if the same command is run again."""

Values = Mapping[str, float]
"""Name of a metric, ``validation/spearman``, -> value."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One training, or the run as a whole, as trackers show it."""

    name: str
    parameters: Mapping[str, Parameter]
    """Dotted key of the resolved recipe -> value; and the columns that name the training."""

    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """The run that a tracker follows."""

    name: str
    """Name of the run folder; without its number, if it gets one, until it is written."""

    kind: str
    """What ran: run, multitask, layers, ablation or study."""

    token: str
    """What the run is found by when another process continues it."""

    folder: Path
    """Folder of what trackers keep while the run trains."""

    recipe: str
    """The resolved recipe as TOML."""


class Tracker(Protocol):
    """An experiment tracker that follows one run.

    A step that a series has already is not logged again, so that a resumed run may repeat what it has told.
    """

    def begin(self, series: Series) -> None:
        """Begin a series, or continue it."""

    def log(self, name: str, step: int, values: Values) -> None:
        """Log metrics of a series that has begun after an epoch, counted from 1."""

    def settle(self, path: Path) -> None:
        """Learn the run folder, once it is written."""

    def finish(self, name: str, values: Values, tags: Mapping[str, str], status: Status) -> None:
        """End a series that has begun, with its final metrics."""


def series_name(columns: Mapping[str, Any], backbone: str) -> str:
    """Return the name of the series of a training.

    Args:
        columns: columns of metrics.csv that name it, or ``trial``, the number of a trial.
        backbone: that of the recipe, which no name mentions.
    """
    if "trial" in columns:
        return f"trial-{columns['trial']}"
    other = columns.get("backbone", backbone)
    parts = [columns.get("task"), columns.get("control"), other if other != backbone else "", columns.get("phase")]
    parts += [columns.get("subset") or columns["variant"]]
    seed = [] if columns.get("seed") is None else [f"seed{columns['seed']}"]
    return "-".join([*map(str, filter(None, parts)), *seed])
