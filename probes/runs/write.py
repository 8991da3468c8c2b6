"""The run folder: whole or absent, never overwritten.

recipe.toml  record.json  metrics.csv  predictions.csv  training.csv  probe.safetensors  figures/  report.html

The record comes last, with a digest of every file that is read again; see :mod:`probes.run_folder`.
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

from permafrost.data.digests import files_digests
from permafrost.data.spec import to_toml
from permafrost.probes.config.names import RECIPE
from permafrost.probes.config.recipe import Recipe, Variant
from permafrost.probes.inputs.providers import PlanLatents
from permafrost.probes.inputs.store_record import store_record
from permafrost.probes.reports.report import write_report
from permafrost.probes.results.run_folder import FORMAT, write_record
from permafrost.probes.runs.load import BACKBONE_FOLDER, PROBE, TASKS_FOLDER
from permafrost.probes.tasks.fitted import FittedProbe


@dataclass(frozen=True, eq=False)
class RunContents:
    """All that a run leaves behind."""

    recipe: Recipe
    record: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    """Name -> table, written as ``<name>.csv`` unless it is empty."""

    selected: FittedProbe | None = None
    """The variant that answers new texts; None for what is no run to predict with."""

    tasks: Mapping[str, "TaskContents"] = field(default_factory=dict)
    """Of tasks that learnt together: each is a run within the run, in ``tasks/<name>``."""


@dataclass(frozen=True, eq=False)
class TaskContents:
    """What a run leaves behind of one of several tasks."""

    selected: FittedProbe
    tables: Mapping[str, pd.DataFrame]
    stored: Mapping[str, PlanLatents]


def write_run(runs: Path, name: str, outcome: RunContents) -> Path:
    """Write the run under a temporary name, then give it the next free ``<recipe>-<n>``."""
    runs.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=runs))
    try:
        temporary.chmod(0o755)
        (temporary / RECIPE).write_text(to_toml(outcome.recipe), "utf-8")
        _write_tables(temporary, outcome.tables)
        if outcome.selected:
            _save_selected(temporary, outcome.selected)
        _write_tasks(temporary, outcome.tasks)
        write_record(temporary, outcome.record)
        write_report(temporary)
        return _claim(runs, name, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    for table, frame in tables.items():
        if len(frame):
            frame.to_csv(folder / f"{table}.csv", index=False, lineterminator="\n")


def _write_tasks(folder: Path, tasks: Mapping[str, TaskContents]) -> None:
    """What predicts each task; blocks of which all tasks kept one state are written once, for the whole run."""
    shared: dict[str, str] = {}
    for task, one in tasks.items():
        if one.selected.recipe.multitask.keep == "one":
            shared = shared or _save_blocks(folder / BACKBONE_FOLDER, one.selected)
        _write_task(folder / TASKS_FOLDER / task, one, shared)


def _write_task(folder: Path, one: TaskContents, shared: Mapping[str, str]) -> None:
    """What predicts one task, as a run of its own; ``shared`` has the digests of blocks that lie in the run above."""
    folder.mkdir(parents=True)
    recipe = replace(one.selected.recipe, variants=(Variant(one.selected.variant),))
    stores = {one.selected.variant: {name: store_record(stored) for name, stored in one.stored.items()}}
    (folder / RECIPE).write_text(to_toml(recipe), "utf-8")
    _write_tables(folder, one.tables)
    _save_selected(folder, one.selected, shared)
    write_record(folder, {"stores": stores})


def _save_selected(folder: Path, fitted: FittedProbe, shared: Mapping[str, str] | None = None) -> None:
    """What answers new texts: the probe, and the backbone with the blocks that learnt, where they are its own."""
    digests = shared or _save_blocks(folder / BACKBONE_FOLDER, fitted)
    _save_probe(folder / PROBE, fitted, digests, bool(shared))


def _save_blocks(folder: Path, fitted: FittedProbe) -> dict[str, str]:
    """The backbone with the blocks that learnt, as a model folder; returns its digests, none where nothing learnt."""
    if fitted.blocks is None:
        return {}
    blocks: Any = fitted.blocks()
    blocks.save(folder)
    return files_digests(folder, (path.name for path in folder.iterdir()))


def _save_probe(path: Path, fitted: FittedProbe, upper: Mapping[str, str], shared: bool) -> None:
    """A fitted probe; ``upper`` are the digests of its fine-tuned blocks, ``shared`` if those lie in the run above."""
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
        "backbone": upper,
        "shared": shared,
    }
    tensors = {name: value.contiguous() for name, value in probe.state_dict().items()}
    if fitted.calibration:
        tensors["calibration.x"] = torch.from_numpy(np.ascontiguousarray(fitted.calibration.x))
        tensors["calibration.y"] = torch.from_numpy(np.ascontiguousarray(fitted.calibration.y))
    save_file(tensors, path, {"about": json.dumps(about)})
    path.chmod(0o644)  # safetensors keeps its files to their owner


def _claim(runs: Path, name: str, temporary: Path) -> Path:
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
