"""The folder ``study-<name>``: the tables of a study, its best trial as a recipe, and the record, which is written
last.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.atomic import write_atomically
from permafrost.data.machine import package_version
from permafrost.data.progress import Progress
from permafrost.data.spec import SpecError, plain, to_toml
from permafrost.probes.config.names import RECIPE, RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.environment import environment
from permafrost.probes.results.outcomes import StudyResult
from permafrost.probes.results.run_folder import write_record
from permafrost.probes.search.trial_log import Row, TrialLog
from permafrost.probes.search.trials import best_recipe

BEST = "best.toml"
"""File of the best trial's recipe."""


def write_study(
    folder: Path,
    name: str,
    recipe: Recipe,
    trial_log: TrialLog,
    settings: Mapping[str, Any],
    started: float,
    progress: Progress,
) -> StudyResult:
    """Write the tables, the best recipe and the record of a study; a folder with a record is complete.

    Args:
        folder: the folder of the study.
        name: name of the study.
        recipe: the searched recipe.
        trial_log: the trials of all sessions.
        settings: further keys of the record.
        started: ``time.perf_counter()`` at the start of the session.
        progress: gets a note if there are no importances.

    Raises:
        SpecError: no trial is complete.
    """
    rows, best = trial_log.rows(), trial_log.best()
    importances = trial_log.importances()
    if not importances:
        progress.note("no importances: they take two searched settings and two complete trials that differ")
    (folder / RECORD).unlink(missing_ok=True)  # the record of the session before describes other tables
    write_atomically(folder / RECIPE, to_toml(recipe).encode())
    tables = _write_tables(folder, rows, trial_log.intermediate(), importances)
    reasons = [row["reason"] for row in rows if row["reason"]]
    if best is None:
        raise SpecError(
            f"no trial of study '{name}' could be completed; the last: {(reasons or ['all were pruned'])[-1]}"
        )
    finished = sum(row["state"] in ("COMPLETE", "PRUNED") for row in rows)
    summary = f"Best of study {name}: trial {best.number} of {finished}, {best.value:.4f} on validation."
    write_atomically(folder / BEST, to_toml(best_recipe(recipe, summary, best.params)).encode())
    params = {key: plain(dimension.decode(best.params[key])) for key, dimension in recipe.study.ranges().items()}
    result = StudyResult(
        study=name,
        folder=folder,
        trials=finished,
        refused=len(reasons),
        number=best.number,
        value=best.value,
        params=params,
        recipe=folder / BEST,
        seconds=time.perf_counter() - started,
    )
    write_record(folder, _record(result, recipe, rows) | dict(settings), [RECIPE, BEST, *tables])
    return result


def _write_tables(
    folder: Path, rows: list[Row], intermediate: list[Row], importances: Mapping[str, float]
) -> list[str]:
    """Write the tables; return the names of their files."""
    frames = {
        "trials.csv": pd.DataFrame(rows),
        "intermediate.csv": pd.DataFrame(intermediate, columns=["trial", "step", "value"]),
        "importances.csv": pd.DataFrame(list(importances.items()), columns=["parameter", "importance"]),
    }
    for file_name, frame in frames.items():
        write_atomically(folder / file_name, frame.to_csv(index=False, lineterminator="\n").encode())
    return list(frames)


def _record(result: StudyResult, recipe: Recipe, rows: list[Row]) -> dict[str, Any]:
    known = environment()
    return {
        "study": result.study,
        "sampler": recipe.study.sampler,
        "pruner": recipe.study.pruner,
        "seed": recipe.study.seed,
        "trials": result.trials,
        "refused": result.refused,
        "retried": sum(row["retry_of"] is not None for row in rows),
        "best": {"number": result.number, "value": result.value, "params": result.params},
        "seconds": {"session": result.seconds, "trials": sum(row["seconds"] or 0 for row in rows)},
        **known,
        "versions": known["versions"] | {"optuna": package_version("optuna")},
    }
