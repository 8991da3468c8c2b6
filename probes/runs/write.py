"""Writing of run folders, which are complete or absent and never overwritten.

Files: recipe.toml, record.json, metrics.csv, predictions.csv, training.csv, probe.safetensors, figures/, report.html;
for multi-task runs also tasks/, and for fine-tuned backbones backbone/.

The record is written last, with a digest of every file that is read again; see
:mod:`permafrost.probes.results.run_folder`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from permafrost.data.digests import digests_of_files
from permafrost.data.spec import to_toml
from permafrost.probes.config.names import RECIPE
from permafrost.probes.config.recipe import Recipe, Variant
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.inputs.store_record import store_record
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.run_folder import FORMAT, write_record
from permafrost.probes.runs.load import BACKBONE_FOLDER, PROBE, TASKS_FOLDER
from permafrost.probes.tasks.fitted import FittedProbe


@dataclass(frozen=True, eq=False, kw_only=True)
class RunContents:
    """Contents of a run folder."""

    recipe: Recipe
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    """Table name -> table, written as ``<name>.csv`` unless it is empty."""

    selected: FittedProbe | None = None
    """Probe that predicts new texts; None if the run cannot predict."""

    tasks: Mapping[str, "TaskContents"] = field(default_factory=dict)
    """Contents of the tasks of a multi-task run; each is written as a run of its own in ``tasks/<name>``."""


@dataclass(frozen=True, eq=False)
class TaskContents:
    """Contents of the folder of one task of a multi-task run."""

    selected: FittedProbe
    tables: Mapping[str, pd.DataFrame]
    stored: Mapping[str, PlanLatents]
    """Plan name -> latents that the task was trained on."""


def write_run(runs: Path, name: str, contents: RunContents) -> Path:
    """Write a run folder under a temporary name and rename it to the next free ``<name>-<n>``; return its path."""
    runs.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=runs))
    try:
        temporary.chmod(0o755)
        (temporary / RECIPE).write_text(to_toml(contents.recipe), "utf-8")
        _write_tables(temporary, contents.tables)
        if contents.selected:
            _save_selected(temporary, contents.selected)
        _write_tasks(temporary, contents.tasks)
        write_record(temporary, contents.record)
        write_report(temporary)
        return _claim(runs, name, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        if len(table):
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def _write_tasks(folder: Path, tasks: Mapping[str, TaskContents]) -> None:
    """Write the folder of each task; a backbone that all tasks share is written once, in the run folder."""
    shared: dict[str, str] = {}
    for name, task in tasks.items():
        if task.selected.recipe.multitask.keep == "one":
            shared = shared or _save_backbone(folder / BACKBONE_FOLDER, task.selected)
        _write_task(folder / TASKS_FOLDER / name, task, shared)


def _write_task(folder: Path, task: TaskContents, shared: Mapping[str, str]) -> None:
    """Write one task as a run of its own; ``shared`` are the digests of a backbone in the run folder above."""
    folder.mkdir(parents=True)
    fitted = task.selected
    recipe = replace(fitted.recipe, variants=(Variant(fitted.variant),))
    stores = {fitted.variant: {name: store_record(stored) for name, stored in task.stored.items()}}
    (folder / RECIPE).write_text(to_toml(recipe), "utf-8")
    _write_tables(folder, task.tables)
    _save_selected(folder, fitted, shared)
    write_record(folder, {"stores": stores})


def _save_selected(folder: Path, fitted: FittedProbe, shared: Mapping[str, str] | None = None) -> None:
    """Save a fitted probe and its fine-tuned backbone; a backbone in the run folder above is not saved again."""
    digests = shared or _save_backbone(folder / BACKBONE_FOLDER, fitted)
    _save_probe(folder / PROBE, fitted, digests, bool(shared))


def _save_backbone(folder: Path, fitted: FittedProbe) -> dict[str, str]:
    """Save the fine-tuned backbone as a model folder and return the digests of its files; none if it stayed frozen."""
    if fitted.blocks is None:
        return {}
    blocks: Any = fitted.blocks()
    blocks.save(folder)
    return digests_of_files(folder, (path.name for path in folder.iterdir()))


def _save_probe(path: Path, fitted: FittedProbe, backbone_digests: Mapping[str, str], shared: bool) -> None:
    """Save a fitted probe with its description; ``shared`` if its backbone is in the run folder above."""
    probe = fitted.probe
    about = {
        "format": FORMAT,
        "variant": fitted.variant,
        "seeds": fitted.seeds,
        "members": len(probe.layout.members),
        "columns": fitted.columns,
        "widths": probe.layout.widths[: len(fitted.columns)],
        "sides": fitted.texts_per_row,
        "kind": fitted.kind,
        "labels": fitted.labels,
        "score_range": fitted.score_range,
        "backbone": backbone_digests,
        "shared": shared,
    }
    tensors = {name: tensor.contiguous() for name, tensor in probe.state_dict().items()}
    if fitted.calibration:
        tensors["calibration.x"] = torch.from_numpy(np.ascontiguousarray(fitted.calibration.x))
        tensors["calibration.y"] = torch.from_numpy(np.ascontiguousarray(fitted.calibration.y))
    save_file(tensors, path, {"about": json.dumps(about)})
    path.chmod(0o644)  # safetensors makes files that only their owner can read


def _claim(runs: Path, name: str, temporary: Path) -> Path:
    """Rename a temporary folder to the next free ``<name>-<n>`` and return its path."""
    number = 1
    while True:
        target = runs / f"{name}-{number}"
        try:
            target.mkdir()
        except FileExistsError:
            number += 1
            continue
        os.replace(temporary, target)  # onto the empty folder just claimed
        return target
