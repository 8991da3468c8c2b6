"""One session of a study: trials are handed out until there are enough, and what was found is written down.

The folder ``study-<name>`` holds the journal, the tables, and the best trial as a recipe of its own.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from permafrost.data.atomic import file_lock, write_atomically
from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import Progress, Silent
from permafrost.data.spec import SpecError, plain, to_toml
from permafrost.probes.config.names import RECIPE, RECORD
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.results.outcomes import StudyResult
from permafrost.probes.results.run_folder import write_record
from permafrost.probes.search.study import TrialLog, opened, shown_storage
from permafrost.probes.search.trials import MakeEvaluate, TrialResult, attempt, best_recipe, check_space
from permafrost.probes.search.workers import EpochReport, Worker, WorkerDied, WorkerFailed, WorkerPool

BEST = "best.toml"

DEATHS_IN_A_ROW = 3
"""Times the number of workers: so many may die with no trial finished in between."""


def search(
    recipe: Recipe,
    name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None = None,
    trials: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    about: Mapping[str, Any] | None = None,
) -> StudyResult:
    """Begin a study, or go on with the one of this name, until it holds ``trials`` finished trials.

    Args:
        runs: folder of the study's folder.
        make_evaluate: a module's function, called in each worker; it gets the folder that workers share.
        storage: SQLAlchemy's address of a database; None is a journal file in the study's folder.
        about: what else belongs in ``record.json``, the name of the metric for one.

    Raises:
        InputError: nothing that can be searched, a study of this name with another recipe or in other hands.
        MachineError: the storage went away, or workers keep dying.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SpecError(f"a study's name is made of letters, digits, '.', '_' and '-', got '{name}'.")
    if workers < 1 or (trials is not None and trials < 1):
        raise SpecError("a study needs at least one worker and one trial.")
    check_space(recipe)
    folder, total = runs / f"study-{name}", _total(recipe, trials, progress)
    shared, journal = folder / "shared", folder / "journal.log"
    with file_lock(folder / "lock", wait=False) as free:
        if not free:
            raise InputError(f"study '{name}' is running already: wait for it, or stop it first.")
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir(parents=True)
        try:
            with opened(name, recipe, storage, journal) as trial_log:
                begun = trial_log.finished
                if begun:
                    progress.note(f"study '{name}' goes on: {begun:,} of {total:,} trials are there")
                with progress.bar(f"study {name}", total) as advance:
                    advance(min(begun, total))
                    watch = _SearchProgress(trial_log, progress, advance)
                    if workers == 1:
                        _alone(watch, recipe, shared, make_evaluate, total)
                    elif begun < total:
                        with WorkerPool(recipe, shared, make_evaluate, min(workers, total - begun)) as pool:
                            _together(watch, pool, total)
                settings = {"storage": shown_storage(storage, journal), "workers": workers, **(about or {})}
                return _write(folder, name, recipe, trial_log, settings, started, progress)
        finally:
            shutil.rmtree(shared, ignore_errors=True)


class _SearchProgress:
    """The ledger, with what the screen shows of it."""

    def __init__(self, trial_log: TrialLog, progress: Progress, advance: Callable[[int], None]) -> None:
        self.ledger, self._progress, self._advance = trial_log, progress, advance
        self._best = best[1] if (best := trial_log.best()) else None
        self._deaths = 0

    def record(self, number: int, outcome: TrialResult) -> None:
        """Write down how a trial ended."""
        self.ledger.record(number, outcome)
        self._deaths = 0
        self._advance(1)
        if outcome.state == "refused":
            self._progress.note(f"trial {number}: {outcome.reason}")
        if outcome.value is not None and (self._best is None or outcome.value > self._best):
            self._best = outcome.value
            self._progress.note(f"trial {number}: {outcome.value:.4f}, the best so far")

    def lost(self, worker: Worker, died: WorkerDied, size: int) -> None:
        """Put back the trial of a worker that died."""
        how = f"signal {-died.code}" if died.code is not None and died.code < 0 else f"exit code {died.code}"
        self._deaths += 1
        if worker.trial is not None and not self.ledger.requeue(worker.trial):
            self._deaths = 0
            self._advance(1)
            self._progress.note(f"trial {worker.trial}: its workers keep dying ({how}); it is given up")
        elif self._deaths > DEATHS_IN_A_ROW * size:
            raise MachineError(
                f"workers keep dying ({how}), perhaps for want of memory: the {self.ledger.finished:,} finished "
                "trials are safe; run the same command again with fewer --workers."
            )
        else:
            at = "" if worker.trial is None else f" at trial {worker.trial}, which is tried again"
            self._progress.note(f"a worker died ({how}){at}")


def _alone(watch: _SearchProgress, recipe: Recipe, shared: Path, make_evaluate: MakeEvaluate, total: int) -> None:
    """All trials in this process."""
    trial_log = watch.ledger
    evaluate = make_evaluate(recipe, shared) if trial_log.finished < total else None
    while evaluate and trial_log.finished < total:
        number, params = trial_log.ask()

        def report(step: int, value: float, number: int = number) -> bool:
            return trial_log.report(number, step, value)

        watch.record(number, attempt(evaluate, recipe, number, params, report))


def _together(watch: _SearchProgress, pool: WorkerPool, total: int) -> None:
    """Trials in workers: never more at once than are still wanted."""
    trial_log = watch.ledger
    while trial_log.finished < total:
        while (worker := pool.idle) and trial_log.finished + pool.busy < total:
            pool.assign(worker, trial_log.ask())
        for worker, message in pool.messages():
            match message:
                case EpochReport(step, value):
                    assert worker.trial is not None
                    pool.answer(worker, trial_log.report(worker.trial, step, value))
                case TrialResult():
                    assert worker.trial is not None
                    watch.record(worker.trial, message)
                    worker.trial = None
                case WorkerDied():
                    watch.lost(worker, message, pool.size)
                case WorkerFailed(error, trace):
                    raise error or RuntimeError(f"a worker failed:\n{trace}")


def _total(recipe: Recipe, trials: int | None, progress: Progress) -> int:
    """Trials that are wanted; a sampler that goes through a grid ends with it."""
    total, size = trials or recipe.study.trials, recipe.study.size()
    if recipe.study.sampler in ("GridSampler", "BruteForceSampler") and size < total:
        progress.note(f"{recipe.study.sampler}: the space holds {size:,.0f} trials, and no more are run")
        return int(size)
    return total


def _write(
    folder: Path,
    name: str,
    recipe: Recipe,
    trial_log: TrialLog,
    settings: Mapping[str, Any],
    started: float,
    progress: Progress,
) -> StudyResult:
    """Tables, best recipe and record; the record comes last, so where it is all is there."""
    rows, best = trial_log.rows(), trial_log.best()
    importances = trial_log.importances()
    if not importances:
        progress.note("no importances: they take two searched settings and two complete trials that differ")
    (folder / RECORD).unlink(missing_ok=True)  # that of the session before, which is of other tables
    write_table(folder / RECIPE, to_toml(recipe))
    tables = {
        "trials": pd.DataFrame(rows),
        "intermediate": pd.DataFrame(trial_log.intermediate(), columns=["trial", "step", "value"]),
        "importances": pd.DataFrame(list(importances.items()), columns=["parameter", "importance"]),
    }
    for table, frame in tables.items():
        write_table(folder / f"{table}.csv", frame.to_csv(index=False, lineterminator="\n"))
    reasons = [row["reason"] for row in rows if row["reason"]]
    if best is None:
        raise SpecError(
            f"no trial of study '{name}' could be completed; the last: {(reasons or ['all were pruned'])[-1]}"
        )
    number, value, params = best
    path = folder / BEST
    finished = sum(row["state"] in ("COMPLETE", "PRUNED") for row in rows)
    summary = f"Best of study {name}: trial {number} of {finished}, {value:.4f} on validation."
    write_table(path, to_toml(best_recipe(recipe, summary, params)))
    meant = {key: plain(one.decode(params[key])) for key, one in recipe.study.ranges().items()}
    seconds = time.perf_counter() - started
    record = {
        "study": name,
        "sampler": recipe.study.sampler,
        "pruner": recipe.study.pruner,
        "seed": recipe.study.seed,
        "trials": finished,
        "refused": len(reasons),
        "retried": sum(row["retry_of"] is not None for row in rows),
        "best": {"number": number, "value": value, "params": meant},
        "seconds": {"session": seconds, "trials": sum(row["seconds"] or 0 for row in rows)},
        "versions": {"python": platform.python_version()} | {one: metadata.version(one) for one in ("optuna", "torch")},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **settings,
    }
    write_record(folder, record, [RECIPE, BEST, *(f"{table}.csv" for table in tables)])
    return StudyResult(
        study=name,
        folder=folder,
        trials=finished,
        refused=len(reasons),
        number=number,
        value=value,
        params=meant,
        recipe=path,
        seconds=seconds,
    )


def write_table(path: Path, content: str) -> None:
    """A text file, whole or absent."""
    write_atomically(path, content.encode())
