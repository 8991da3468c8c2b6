"""Reading of run folders: each task of a finished run as a probe that is ready to predict.

A run folder may come from anywhere. Files are compared with the digests of the run, and the description of the probe is
checked against its recipe and weights before memory is allocated for it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from permafrost.data.digests import DamageError, find_file_problem
from permafrost.data.errors import PermafrostError
from permafrost.data.plan.plan import TOKENS, VIEWS
from permafrost.data.plugin_registry import is_known
from permafrost.data.plugins import Head, Pooling
from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import SpecError, nearest, parse
from permafrost.data.store.identity import Identity
from permafrost.data.text import text_problem
from permafrost.probes.config.columns import Column
from permafrost.probes.config.names import PROBE, RECIPE
from permafrost.probes.config.recipe import Recipe, untrained_recipe
from permafrost.probes.metrics.calibration import CALIBRATIONS, Calibration
from permafrost.probes.models.probe import Probe, layout_for
from permafrost.probes.objectives.fitted import LoadedRun
from permafrost.probes.objectives.heads import HEADS
from permafrost.probes.results.own_parts import code_of
from permafrost.probes.results.run_folder import FORMAT, REMEDY, TASKS_FOLDER, RunError, RunFolder
from permafrost.probes.tasks.base import Calibrated, Task
from permafrost.probes.tasks.registry import TASKS

PROBE_FILE = "probe.safetensors"
BACKBONE_FOLDER = "backbone"

CALIBRATION = "calibration."
"""Prefix of the tensors that hold a calibration."""

REQUIRED_KEYS = ("variant", "columns", "widths", "members", "sides", "kind", "labels", "score_range")
"""Keys that the description of a probe must have."""


def load_tasks(path: Path, task: str = "") -> dict[str, LoadedRun]:
    """Read the tasks of a run folder, task name -> run; a run without ``tasks/`` has one task, "probe".

    Args:
        task: the only task to read; empty reads all.

    Raises:
        RunError: it is no folder of a finished run, of another version, or has no such task.
        DamageError: a file is not as the run wrote it.
    """
    folder = RunFolder(path, RunError)
    names = folder.task_names()
    for child in sorted((path / TASKS_FOLDER).glob("*")):
        folder.refuse_link(f"{TASKS_FOLDER}/{child.name}")
    runs = {} if names else {PROBE: _load_run(folder)}
    if task and task not in names:
        hint = nearest(task, names) if names else "It has one task without a name: leave --task out."
        raise RunError(f"{path} has no task '{task}'. {hint}")
    for name in names:
        if task in ("", name):
            runs[name] = _load_run(folder.open_subrun(f"{TASKS_FOLDER}/{name}"))
    return runs


def _load_run(folder: RunFolder) -> LoadedRun:
    path = folder.path
    for name in (RECIPE, PROBE_FILE):
        if not folder.has(name):
            is_other = folder.record.get("experiment") in ("ablation", "study", "evaluation")
            hint = " An ablation, a study or an evaluation predicts nothing: name the run of a recipe." * is_other
            raise RunError(f"{path} is no finished run: it has no {name}.{hint}")
    try:
        return _read_run(folder)
    except PermafrostError:
        raise
    except Exception as error:  # a run folder from elsewhere can be wrong in any way
        reason = str(error).split("\n")[0]
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {reason}).") from error


def _read_run(folder: RunFolder) -> LoadedRun:
    path = folder.path
    tree, weights = read_toml(folder.read(RECIPE).decode("utf-8"), str(path / RECIPE)), folder.read(PROBE_FILE)
    about = _read_description(path, weights)
    tensors = load(weights)
    variants = parse(Recipe, tree, str(path / RECIPE)).variant_recipes()
    if about["variant"] not in variants:
        raise RunError(f"{path}: its weights are of the variant '{about['variant']}', which its recipe does not have.")
    columns = tuple(Column(str(plan), str(view), int(layer)) for plan, view, layer in about["columns"])
    recipe = variants[about["variant"]]
    _check_head(path, recipe.probe.head, folder.record.get("plugins"))
    if about.get("untrained"):
        try:
            recipe = untrained_recipe(recipe, columns[0])
        except SpecError as error:
            raise RunError(f"{path}: its recipe does not fit what probe.safetensors reads: {error}") from error
    calibration, texts_per_row = _pop_calibration(tensors), int(about["sides"])
    probe = _build_probe(path, recipe, columns, tensors, about)
    stores = folder.record["stores"][about["variant"]]
    identities = {name: Identity.from_json(store["identity"]) for name, store in stores.items()}
    backbone = _backbone_folder(path, about) if recipe.finetune.trains_backbone else None
    run = LoadedRun(
        variant=about["variant"],
        untrained=bool(about.get("untrained")),
        recipe=recipe,
        columns=columns,
        probe=probe.eval(),
        calibration=calibration,
        labels=tuple(about["labels"]),
        first_number=about.get("first_number"),
        score_range=about["score_range"] and tuple(about["score_range"]),
        kind=about["kind"],
        texts_per_row=texts_per_row,
        seeds=tuple(about.get("seeds", ())),
        path=path,
        identities=identities,
        backbone_folder=backbone,
        digests=tuple(about["backbone"].values()) if backbone else (),
    )
    if not _is_consistent(run):
        raise RunError(f"{path}: probe.safetensors is not what its description says.")
    return run


def _check_head(path: Path, head: str, recorded: Any) -> None:
    """Raise a :class:`RunError` if the code of a head from outside is not that of the run, whose weights it gets."""
    then = recorded.get(f"head {head}", "") if isinstance(recorded, dict) else ""
    if head in Head.built_in or not then:
        return
    now = code_of(Head, head)
    if now.rpartition(", code ")[2] != str(then).rpartition(", code ")[2]:
        raise RunError(
            f"{path}: the head '{head}' has changed since the run was trained (then {then}; now {now}): install the "
            "version of then, or run the recipe again."
        )


def _pop_calibration(tensors: dict[str, Tensor]) -> Calibrated | None:
    """Remove the calibration from the tensors of a probe and return it; None if there is none."""
    names = [name for name in tensors if name.startswith(CALIBRATION)]
    arrays = {name.removeprefix(CALIBRATION): tensors.pop(name).numpy() for name in names}
    return CALIBRATIONS[frozenset(arrays)](**arrays) if arrays else None


def _backbone_folder(path: Path, about: Mapping[str, Any]) -> Path:
    """Return the folder of the fine-tuned backbone, whose files are compared with their digests."""
    folder = (path.resolve().parents[1] if about.get("shared") else path) / BACKBONE_FOLDER
    if not (about.get("backbone") and isinstance(about["backbone"], dict)):
        raise RunError(f"{path}: probe.safetensors does not name its fine-tuned blocks: run the recipe again.")
    if problem := find_file_problem(folder, about["backbone"]):
        raise DamageError(f"{folder.parent}: its fine-tuned blocks: {problem}; {REMEDY}.")
    return folder


def _is_consistent(run: LoadedRun) -> bool:
    """Return whether plans, views, targets, texts per row and calibration of a run fit each other."""
    plans = {""} if run.backbone_folder else run.identities
    known_views = all(column.view in VIEWS or is_known(Pooling, column.view) for column in run.columns)
    if not known_views or not all(column.plan in plans for column in run.columns):
        return False
    if not run.task.is_complete(run) or run.texts_per_row not in run.task.text_counts:
        return False
    arrays = [] if run.calibration is None else list(vars(run.calibration).values())
    if not all(array.ndim == 1 and len(array) == len(arrays[0]) and np.isfinite(array).all() for array in arrays):
        return False
    return not isinstance(run.calibration, Calibration) or all((np.diff(array) >= 0).all() for array in arrays)


def _read_description(path: Path, weights: bytes) -> dict[str, Any]:
    """Return the description of a probe; checked as far as possible without its weights."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    about: dict[str, Any] = json.loads((header.get("__metadata__") or {}).get("about", "{}"))
    version = about.get("format", "unknown") if isinstance(about, dict) else "unknown"
    if version != FORMAT:
        raise RunError(
            f"{path} is of another version of permafrost (format {version}, this reads {FORMAT}): run the recipe "
            "again with this version."
        )
    missing = [key for key in REQUIRED_KEYS if key not in about]
    if missing:
        raise RunError(f"{path}: probe.safetensors does not say its {', '.join(missing)}.")
    kind = about["kind"]
    if not isinstance(kind, str) or kind not in TASKS:
        raise RunError(f"{path}: a probe for {kind!r} is unknown; this version has {', '.join(TASKS)}.")
    _check_labels(path, TASKS[kind], about["labels"])
    if about.get("first_number") not in (None, 0, 1):
        raise RunError(f"{path}: the first_number of probe.safetensors must be 0 or 1.")
    if about["score_range"] is not None and not _is_interval(about["score_range"]):
        raise RunError(f"{path}: the score_range of probe.safetensors must be two numbers that rise.")
    return about


def _check_labels(path: Path, task: Task, labels: Any) -> None:
    are_names = isinstance(labels, list) and all(isinstance(label, str) and not text_problem(label) for label in labels)
    if not are_names or len(set(labels)) < len(labels):
        raise RunError(f"{path}: the labels of probe.safetensors are not distinct names.")
    if problem := task.label_problem(labels):
        raise RunError(f"{path}: the labels of probe.safetensors {problem}.")


def _is_interval(value: Any) -> bool:
    """Return whether a value is a list of two finite numbers, the lower one first."""
    numbers = isinstance(value, list) and len(value) == 2 and all(type(bound) in (int, float) for bound in value)
    return numbers and -math.inf < value[0] < value[1] < math.inf


def _build_probe(
    path: Path, recipe: Recipe, columns: Sequence[Column], tensors: dict[str, Tensor], about: dict[str, Any]
) -> Probe:
    """Return the probe with ``tensors`` as its state dict; it is built without memory of its own."""
    widths, members = tuple(int(width) for width in about["widths"]), int(about["members"])
    tokens = any(column.view == TOKENS for column in columns)
    if len(widths) != len(columns) or not 1 <= members <= len(tensors["center"]):
        raise RunError(f"{path}: probe.safetensors does not have the layers that its description says.")
    groups = [(column.plan, column.view) for column in columns]
    layout = layout_for(recipe.probe, [tuple(range(len(widths)))] * members, widths, tokens, groups)
    _ = layout.member_of, layout.mask  # cached here, before the meta device, where they would hold no numbers
    task, sides = TASKS[about["kind"]], int(about["sides"])
    try:
        with torch.device("meta"):
            probe = HEADS[task.head(recipe.probe, sides)](recipe.probe, layout, sides, len(about["labels"]))
    except SpecError as error:
        raise RunError(f"{path}: its recipe does not fit its weights: {error}") from error
    shapes = {name: tensor.shape for name, tensor in probe.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise RunError(f"{path}: probe.safetensors does not have the weights that its recipe says.")
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise RunError(f"{path}: probe.safetensors holds weights that are not finite.")
    probe.load_state_dict(tensors, assign=True)
    return probe
