"""Writing of run folders, which are complete or absent and never overwritten.

Files: recipe.toml, record.json, metrics.csv, predictions.csv, training.csv, probe.safetensors, figures/, report.html;
for multi-task runs also tasks/, and for fine-tuned backbones backbone/.

The record is written last, with a digest of every file that is read again; see
:mod:`permafrost.probes.results.run_folder`.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from permafrost.data.atomic import remove_leftovers, temporary_path, write_atomically
from permafrost.data.digests import digests_of_files
from permafrost.data.errors import MachineError, first_line
from permafrost.data.machine import pick_device
from permafrost.data.spec import flatten_settings, plain, to_toml
from permafrost.data.store.store import PlanLatents
from permafrost.data.text import quote_formula
from permafrost.probes.config.names import PROBE, RECIPE, RECORD
from permafrost.probes.config.recipe import Recipe, Variant
from permafrost.probes.inputs.providers import latents_record
from permafrost.probes.objectives.fitted import FittedProbe
from permafrost.probes.results.destination import Destination
from permafrost.probes.results.files import with_texts
from permafrost.probes.results.own_parts import origins_of
from permafrost.probes.results.run_folder import FORMAT, TASKS_FOLDER, environment, write_record
from permafrost.probes.runs.load import BACKBONE_FOLDER, CALIBRATION, PROBE_FILE


@dataclass(frozen=True, eq=False)
class TaskContents:
    """What a run folder holds of one task."""

    selected: FittedProbe | None
    """Probe that predicts new texts; None if the folder holds tables alone, as an evaluation does."""

    tables: Mapping[str, pd.DataFrame]
    stored: Mapping[str, PlanLatents]
    """Plan name -> latents that the task was trained on."""


class RunWriter:
    """Writer of the folder of one command: recipe, tables, probes, page, and a record that all commands have alike."""

    def __init__(self, runs: Path | Destination, name: str, recipe: Recipe | None, kind: str) -> None:
        """Start the clock of a command.

        Args:
            runs: folder of run folders, or the folder of this run.
            name: name of the run if the destination has none; its folder is ``<name>-<n>``.
            recipe: what ran; None writes none.
            kind: what the folder is, a key of :data:`permafrost.probes.reports.report.PAGES`.
        """
        self._destination = Destination.of(runs)
        self._name, self._recipe, self._kind = self._destination.name or name, recipe, kind
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the command began."""
        return time.perf_counter() - self._started

    def write(
        self,
        record: Mapping[str, Any],
        tables: Mapping[str, pd.DataFrame],
        tasks: Mapping[str, TaskContents] | None = None,
        folders: Mapping[str, Path] | None = None,
    ) -> Path:
        """Write a new run folder and return its path: that of the destination, or ``<name>-<n>``, the next free number.

        It is written under a temporary name and renamed.

        Args:
            record: what the record says besides what every record does.
            tables: table name -> table, written as ``<name>.csv`` unless it is empty.
            tasks: what predicts new texts, by task; a single task "probe" lies in the run folder itself, others are
                runs of their own in ``tasks/<name>``.
            folders: name -> folder to copy, of files that no record has digests of.

        Raises:
            MachineError: the disk is full, or cannot be written.
        """
        runs = self._destination.runs
        try:
            remove_leftovers(runs)
            with temporary_path(runs, self._destination.prefix) as temporary:
                temporary.mkdir(parents=True)  # another run may have removed the empty folder
                _write_tasks(temporary, tasks or {})
                self._fill(temporary, record, tables)
                for name, folder in (folders or {}).items():
                    shutil.copytree(folder, temporary / name)
                return self._destination.claim(self._name, temporary)
        except (FileExistsError, NotADirectoryError):
            raise
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise MachineError(
                f"{runs}: the run folder could not be written ({reason}); nothing of it was left there. Make room for "
                "it, or set --runs to another folder, and run the same command again: what is cached and trained is "
                "kept."
            ) from error

    def rewrite(
        self,
        folder: Path,
        record: Mapping[str, Any],
        tables: Mapping[str, pd.DataFrame],
        texts: Mapping[str, str],
    ) -> Path:
        """Write what a session leaves into a folder that holds other files too, in place of the session before.

        Args:
            record, tables: as for :meth:`write`; empty tables are written too.
            texts: further files, name -> content.
        """
        (folder / RECORD).unlink(missing_ok=True)  # the record of the session before describes other tables
        for name, text in texts.items():
            write_atomically(folder / name, text.encode())
        names = [RECIPE, *texts, *(f"{name}.csv" for name in tables)]
        self._fill(folder, record, tables, names)
        return folder

    def _fill(
        self,
        folder: Path,
        record: Mapping[str, Any],
        tables: Mapping[str, pd.DataFrame],
        names: Sequence[str] | None = None,
    ) -> None:
        """Write recipe, tables, record and page; ``names`` are the files that the record has digests of."""
        if self._recipe:
            write_atomically(folder / RECIPE, to_toml(self._recipe).encode())
        write_tables(folder, tables, keep_empty=names is not None)
        seconds = {"seconds": {"all": self.seconds} | record.get("seconds", {})}
        about: dict[str, Any] = {"name": self._name, "summary": self._recipe.summary if self._recipe else ""}
        about["experiment"] = self._kind
        if self._recipe:
            about["device"] = pick_device(self._recipe.device)
        about |= _plugins_record(self._recipe)
        write_record(folder, environment() | about | dict(record) | seconds, names)
        from permafrost.probes.reports.report import write_report  # loads matplotlib, which no training needs

        write_report(folder)


def _plugins_record(recipe: Recipe | None) -> dict[str, Any]:
    """Return what a record says of the parts from outside that a recipe names; nothing if there are none."""
    plugins = origins_of(flatten_settings(plain(recipe))) if recipe else {}
    return {"plugins": plugins} if plugins else {}


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame], keep_empty: bool = False) -> None:
    """Write tables as ``<name>.csv``; empty ones only if they are kept."""
    for name, table in tables.items():
        if len(table) or keep_empty:
            content = with_texts(table, quote_formula).to_csv(index=False, lineterminator="\n")
            write_atomically(folder / f"{name}.csv", content.encode())


def _write_tasks(folder: Path, tasks: Mapping[str, TaskContents]) -> None:
    """Write every task; a backbone that all tasks share is written once, in the run folder."""
    shared: dict[str, str] = {}
    for name, task in tasks.items():
        if name == PROBE:
            write_tables(folder, task.tables)
            if task.selected:
                _save_selected(folder, task.selected)
            continue
        if task.selected is None:
            (folder / TASKS_FOLDER / name).mkdir(parents=True)
            write_tables(folder / TASKS_FOLDER / name, task.tables)
            continue
        if task.selected.recipe.multitask.keep == "one":
            shared = shared or _save_backbone(folder / BACKBONE_FOLDER, task.selected)
        _write_task(folder / TASKS_FOLDER / name, task, task.selected, shared)


def _write_task(folder: Path, task: TaskContents, fitted: FittedProbe, shared: Mapping[str, str]) -> None:
    """Write one task as a run of its own; ``shared`` are the digests of a backbone in the run folder above."""
    folder.mkdir(parents=True)
    recipe = replace(fitted.recipe, variants=(Variant(fitted.variant),))
    stores = {fitted.variant: {name: latents_record(stored) for name, stored in task.stored.items()}}
    (folder / RECIPE).write_text(to_toml(recipe), "utf-8")
    write_tables(folder, task.tables)
    _save_selected(folder, fitted, shared)
    write_record(folder, {"stores": stores} | _plugins_record(recipe))


def _save_selected(folder: Path, fitted: FittedProbe, shared: Mapping[str, str] | None = None) -> None:
    """Save a fitted probe and its fine-tuned backbone; a backbone in the run folder above is not saved again."""
    digests = shared or _save_backbone(folder / BACKBONE_FOLDER, fitted)
    _save_probe(folder / PROBE_FILE, fitted, digests, bool(shared))


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
        "untrained": fitted.untrained,
        "seeds": fitted.seeds,
        "members": len(probe.layout.members),
        "columns": fitted.columns,
        "widths": probe.layout.widths[: len(fitted.columns)],
        "sides": fitted.texts_per_row,
        "kind": fitted.kind,
        "labels": fitted.labels,
        "first_number": fitted.first_number,
        "score_range": fitted.score_range,
        "backbone": backbone_digests,
        "shared": shared,
    }
    tensors = {name: tensor.cpu().contiguous() for name, tensor in probe.state_dict().items()}
    if fitted.calibration:
        arrays = {f"{CALIBRATION}{name}": array for name, array in vars(fitted.calibration).items()}
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    save_file(tensors, path, {"about": json.dumps(about)})
    path.chmod(0o644)  # safetensors makes files that only their owner can read
