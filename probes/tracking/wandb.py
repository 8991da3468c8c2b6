"""Weights & Biases: a run for each training and one of the run as a whole, in one group.

Project, mode and folder are those of its environment (WANDB_PROJECT, WANDB_MODE, WANDB_DIR); without WANDB_PROJECT the
project is ``permafrost``.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permafrost.data.atomic import write_atomically
from permafrost.data.spec import fingerprint
from permafrost.probes.tracking.series import WHOLE, Series, Status, TrackedRun, Values

PROJECT = "permafrost"

STEPS = "wandb.json"
"""File of the last step of each series, for the process that continues the run: offline runs cannot be asked."""

EXIT_CODES = {"finished": 0, "failed": 1, "killed": 130}


class WeightsAndBiases:
    """Runs of a project, in a group of the name of the run folder."""

    def __init__(self, run: TrackedRun) -> None:
        self._run, self._runs = run, dict[str, Any]()
        self._path = run.folder / STEPS
        self._last: dict[str, int] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def begin(self, series: Series) -> None:
        """Begin a run; one that an earlier process began is continued."""
        if series.name in self._runs:
            return
        import wandb

        self._runs[series.name] = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=f"{self._run.token}{fingerprint(series.name)[:8]}",
            name=series.name or self._run.name,
            group=f"{self._run.name}-{self._run.token[:6]}",
            job_type=self._run.kind if series.name == WHOLE else "training",
            config=dict(series.parameters) | dict(series.tags),
            tags=[series.tags["backbone"][-64:]] if series.tags.get("backbone") else None,
            allow_val_change=True,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, name: str, step: int, values: Values) -> None:
        """Log metrics after an epoch."""
        if self._last.get(name, 0) < step:
            self._runs[name].log({"epoch": step} | dict(values), step=step)
            self._last[name] = step
            write_atomically(self._path, json.dumps(self._last).encode())

    def settle(self, path: Path) -> None:
        """Give the run the name of its folder."""
        self._runs[WHOLE].name = path.name

    def finish(self, name: str, values: Values, tags: Mapping[str, str], status: Status) -> None:
        """End a run, with its final metrics in its summary."""
        run = self._runs.pop(name)
        run.summary.update(dict(values))
        run.config.update(dict(tags), allow_val_change=True)
        run.finish(exit_code=EXIT_CODES[status])
