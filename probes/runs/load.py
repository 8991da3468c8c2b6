"""TODO: probes/runs/load.py."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from permafrost.data.corpora.iob2 import OUTSIDE, parts
from permafrost.data.digests import DamageError, check_files
from permafrost.data.errors import InputError, PermafrostError
from permafrost.data.spec import SpecError, nearest, parse, read_toml
from permafrost.data.store.identity import Identity
from permafrost.data.store.plan import View
from permafrost.data.text import fault
from permafrost.probes.config.columns import TOKENS, Column
from permafrost.probes.config.names import RECIPE, TASK_NAME
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.metrics.calibration import Calibration
from permafrost.probes.models.probe import Probe, layout_for
from permafrost.probes.results.run_folder import FORMAT, REMEDY, RunFolder
from permafrost.probes.tasks.fitted import LoadedRun
from permafrost.probes.tasks.registry import TASKS, build

PROBE = "probe.safetensors"
TASKS_FOLDER, BACKBONE_FOLDER = "tasks", "backbone"

ABOUT = ("variant", "columns", "widths", "members", "sides", "kind", "labels", "score_range")
"""What a probe must say of itself."""


class RunError(InputError):
    """A folder that is no finished run of this version."""


def _tasks_of(run: RunFolder) -> list[str]:
    """The tasks that learnt together in a run, by name; none where it is a run of one. Other folders do not count.

    Raises:
        RunError: a task, or the folder of all of them, is a link.
        DamageError: there is the folder of a task that the run did not write.
    """
    names, folder = run.folders(TASKS_FOLDER), run.path / TASKS_FOLDER
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in (folder, *found):
        if path.is_symlink():
            raise RunError(f"{path} is a link; a run folder holds its files itself.")
        if path != folder and path.is_dir() and TASK_NAME.fullmatch(path.name) and path.name not in names:
            raise DamageError(f"{path} is none of what the run wrote: remove it, or {REMEDY}.")
    return names


def load_tasks(path: Path, task: str = "") -> dict[str, LoadedRun]:
    """Name of a task -> the finished run of it; the one task of a run that has no others is called "".

    Args:
        task: the only one to read; empty reads all.

    Raises:
        RunError: there is no such task; and as :func:`load_run`.
    """
    run = RunFolder(path, RunError)
    names = _tasks_of(run)
    found = {} if names else {"": _loaded(run)}
    if task and task not in names:
        way = nearest(task, names) if names else "It has one task without a name: leave --task out."
        raise RunError(f"{path} has no task '{task}'. {way}")
    chosen = [name for name in names if task in ("", name)]
    return found | {name: _loaded(run.within(f"{TASKS_FOLDER}/{name}")) for name in chosen}


def load_run(path: Path) -> LoadedRun:
    """Read a run folder back.

    Raises:
        RunError: it is no folder of a finished run, or of another version.
        DamageError: a file that is read is not as the run wrote it.
    """
    return _loaded(RunFolder(path, RunError))


def _loaded(run: RunFolder) -> LoadedRun:
    """The run of a folder that predicts; errors as of :func:`load_run`."""
    path = run.path
    for name in (RECIPE, PROBE):
        if not run.has(name):
            other = any(table in run.digests for table in ("ablation.csv", "trials.csv"))
            way = " An ablation or a study predicts nothing: name the run of a recipe." if other else ""
            raise RunError(f"{path} is no finished run: it has no {name}.{way}")
    try:
        return _read_run(run)
    except PermafrostError:
        raise
    except Exception as error:  # a run folder from elsewhere can be wrong in any way
        said = str(error).split("\n")[0]
        raise RunError(f"{path} cannot be read ({type(error).__name__}: {said}).") from error


def _read_run(run: RunFolder) -> LoadedRun:
    path = run.path
    tree, weights = read_toml(run.read(RECIPE).decode("utf-8"), str(path / RECIPE)), run.read(PROBE)
    about = _described(path, _metadata(weights))
    tensors = load(weights)
    variants = parse(Recipe, tree, str(path / RECIPE)).variant_recipes()
    if about["variant"] not in variants:
        raise RunError(f"{path}: its weights are of the variant '{about['variant']}', which its recipe does not have.")
    recipe = variants[about["variant"]]
    columns = tuple(Column(str(plan), str(view), int(layer)) for plan, view, layer in about["columns"])
    labels, score_range = tuple(about["labels"]), about["score_range"] and tuple(about["score_range"])
    calibration = None
    if "calibration.x" in tensors:
        calibration = Calibration(tensors.pop("calibration.x").numpy(), tensors.pop("calibration.y").numpy())
    sides, kind = int(about["sides"]), about["kind"]
    probe = _rebuilt(path, recipe, columns, tensors, about)
    stores = run.record["stores"][about["variant"]]
    identities = {name: Identity.from_json(store["identity"]) for name, store in stores.items()}
    upper = (
        (path.resolve().parents[1] if about.get("shared") else path) / BACKBONE_FOLDER
        if recipe.finetune.learns
        else None
    )
    if upper and not (about.get("backbone") and isinstance(about["backbone"], dict)):
        raise RunError(f"{path}: probe.safetensors does not say which blocks learnt with it: run the recipe again.")
    if upper and (fault_there := check_files(upper, about["backbone"])):
        raise DamageError(f"{upper.parent}: its blocks learnt, and {fault_there}; {REMEDY}.")
    plans = {""} if upper else identities
    known = all(column.plan in plans and column.view in get_args(View) for column in columns)
    targets = bool(score_range and calibration) if kind == "score" else kind == "answers" or len(labels) > 1
    fitting = targets and sides in ((1, 2) if kind in ("score", "class") else (1,))
    line = [] if calibration is None else [calibration.x, calibration.y]
    sound = all(len(part) == len(line[0]) and np.isfinite(part).all() and (np.diff(part) >= 0).all() for part in line)
    if not (known and fitting and sound):
        raise RunError(f"{path}: probe.safetensors is not what its description says.")
    digests = tuple(about["backbone"].values()) if upper else ()
    return LoadedRun(
        variant=about["variant"],
        recipe=recipe,
        columns=columns,
        probe=probe.eval(),
        calibration=calibration,
        labels=labels,
        score_range=score_range,
        kind=kind,
        texts_per_row=sides,
        path=path,
        identities=identities,
        backbone_folder=upper,
        digests=digests,
    )


def _metadata(content: bytes) -> Mapping[str, str] | None:
    """What a safetensors file says of itself, in front of its tensors."""
    length = int.from_bytes(content[:8], "little")
    found: Mapping[str, str] | None = json.loads(content[8 : 8 + length]).get("__metadata__")
    return found


def _described(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What a probe says of itself, as far as it makes sense without its weights."""
    about: dict[str, Any] = json.loads((metadata or {}).get("about", "{}"))
    version = about.get("format", "unknown") if isinstance(about, dict) else "unknown"
    if version != FORMAT:
        raise RunError(
            f"{path} is of another version of permafrost (format {version}, this reads {FORMAT}): run its recipe again."
        )
    missing = [key for key in ABOUT if key not in about]
    if missing:
        raise RunError(f"{path}: probe.safetensors does not say its {', '.join(missing)}.")
    kind, labels = about["kind"], about["labels"]
    if not isinstance(kind, str) or kind not in TASKS:
        raise RunError(f"{path}: a probe for {kind!r} is unknown; this version has {', '.join(TASKS)}.")
    named = isinstance(labels, list) and all(isinstance(label, str) and not fault(label) for label in labels)
    if not named or len(set(labels)) < len(labels):
        raise RunError(f"{path}: the labels of probe.safetensors are not distinct names.")
    if kind == "tags" and (not labels or labels[0] != OUTSIDE or not all(parts(label)[0] for label in labels)):
        raise RunError(f"{path}: the labels of probe.safetensors are no IOB2 tags, 'O' first.")
    if about["score_range"] is not None and not _rises(about["score_range"]):
        raise RunError(f"{path}: the score_range of probe.safetensors must be two numbers that rise.")
    return about


def _rises(given: Any) -> bool:
    """Whether it is a list of two finite numbers, the lower one first."""
    numbers = isinstance(given, list) and len(given) == 2 and all(type(one) in (int, float) for one in given)
    return numbers and -math.inf < given[0] < given[1] < math.inf


def _rebuilt(
    path: Path, recipe: Recipe, columns: Sequence[Column], tensors: dict[str, Tensor], about: dict[str, Any]
) -> Probe:
    """The probe that ``tensors`` are the state of; nothing is allocated that they do not fill."""
    widths, members = tuple(int(width) for width in about["widths"]), int(about["members"])
    tokens = any(column.view == TOKENS for column in columns)
    if len(widths) != len(columns) or not 1 <= members <= len(tensors["center"]):
        raise RunError(f"{path}: probe.safetensors does not have the layers that its description says.")
    of = [(column.plan, column.view) for column in columns]
    layout = layout_for(recipe.probe, [tuple(range(len(widths)))] * members, widths, tokens, of)
    _ = layout.member_of, layout.mask  # made here, where they hold numbers
    try:
        with torch.device("meta"):
            probe = build(recipe.probe, about["kind"], len(about["labels"]), int(about["sides"]), layout)
    except SpecError as error:
        raise RunError(f"{path}: its recipe does not fit its weights: {error}") from error
    shapes = {name: value.shape for name, value in probe.state_dict().items()}
    if shapes != {name: value.shape for name, value in tensors.items()}:
        raise RunError(f"{path}: probe.safetensors does not have the weights that its recipe says.")
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise RunError(f"{path}: probe.safetensors holds weights that are not finite.")
    probe.load_state_dict(tensors, assign=True)
    return probe
