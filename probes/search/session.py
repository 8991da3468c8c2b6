"""One session of a study: run trials until the study has enough, in this process or in workers."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from permafrost.data.atomic import file_lock
from permafrost.data.errors import InputError, MachineError
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.spec import plain
from permafrost.probes.config.names import JOURNAL
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Scalar
from permafrost.probes.results.outcomes import StudyResult
from permafrost.probes.search.storage import open_study, shown_storage
from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import MakeEvaluate, TrialResult, check_study, largest_search, run_trial
from permafrost.probes.search.workers import (
    EpochReport,
    Event,
    Worker,
    WorkerDied,
    WorkerFailed,
    WorkerPool,
    run_worker,
)

WriteStudy = Callable[[Path, TrialLog, Mapping[str, Any]], StudyResult]
"""Function that writes the folder of a study from its trials and the settings of the session."""


class StudyRunningError(InputError):
    """A study that another process runs."""


DEATHS_IN_A_ROW = 3
"""Number of deaths per worker, with no trial finished in between, after which the study ends with an error."""


def search(
    recipe: Recipe,
    name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    write: WriteStudy,
    storage: str | None = None,
    trials: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> StudyResult:
    """Begin a study, or resume the one of this name, until it has ``trials`` finished trials, and write it.

    Args:
        recipe: the recipe, whose table [study] describes the search.
        name: of the study, and of its folder ``study-<name>``.
        runs: folder that contains the study's folder.
        make_evaluate: module-level function that each worker calls with the recipe and the folder that workers share.
        write: writes the results, while no other process can change them.
        storage: SQLAlchemy URL of a database; None stores the study in a journal file in its folder.
        trials: total number of trials; None takes that of the recipe.
        workers: number of processes; 1 trains in this process.
        progress: shows the number of finished trials.

    Raises:
        InputError: there is nothing to search, or a study of this name has another recipe.
        StudyRunningError: a study of this name is running.
        MachineError: the storage fails, or workers keep dying.
    """
    progress = progress or NoProgress()
    check_study(recipe, name, trials, workers, storage)
    folder, total = runs / f"study-{name}", _total(recipe, trials, progress)
    journal = folder / JOURNAL
    with file_lock(folder / "lock", wait=False) as free:
        if not free:
            raise StudyRunningError(f"study '{name}' is running already: wait or stop it; --dashboard shows it.")
        with _empty_folder(folder / "shared") as shared, open_study(name, recipe, storage, journal) as trial_log:
            if trial_log.finished:
                progress.note(f"study '{name}' resumes: {trial_log.finished:,} of {total:,} trials finished")
            with progress.bar(f"study {name}", total) as advance:
                advance(min(trial_log.finished, total))
                search_progress = _SearchProgress(trial_log, recipe, progress, advance)
                _run_trials(search_progress, recipe, shared, make_evaluate, workers, total)
            return write(folder, trial_log, {"storage": shown_storage(storage, journal), "workers": workers})


class _SearchProgress:
    """Records trials in the log of the study, and shows them."""

    def __init__(self, trial_log: TrialLog, recipe: Recipe, progress: Progress, advance: Callable[[int], None]) -> None:
        self.trial_log, self._progress, self._advance = trial_log, progress, advance
        self._ranges = recipe.study.ranges()
        self._best = best.value if (best := trial_log.best()) else None
        self._deaths = 0

    def ask(self) -> tuple[int, Mapping[str, Scalar]]:
        """Begin a trial; return its number and its values."""
        number, params = self.trial_log.ask()
        shown = {key: plain(self._ranges[key].decode(value)) for key, value in params.items()}
        self._progress.event("trial", trial=number, state="running", params=shown)
        return number, params

    def receive(self, number: int, name: str, **facts: Any) -> None:
        """Pass on an event of the training of a trial."""
        self._progress.event(name, trial=number, **facts)

    def record(self, number: int, result: TrialResult) -> None:
        """Record the result of a trial."""
        self.trial_log.record(number, result)
        reason = {"reason": result.reason} if result.reason else {}
        self._progress.event("trial", trial=number, state=result.state, value=result.value, **reason)
        self._deaths = 0
        self._advance(1)
        if result.state == "refused":
            self._progress.note(f"trial {number}: {result.reason}")
        if result.value is not None and (self._best is None or result.value > self._best):
            self._best = result.value
            self._progress.note(f"trial {number}: {result.value:.4f}, the best so far")

    def record_death(self, worker: Worker, died: WorkerDied, workers: int) -> None:
        """Queue the trial of a worker that died again, or give the trial up.

        Raises:
            MachineError: too many workers died in a row.
        """
        cause = f"signal {-died.code}" if died.code is not None and died.code < 0 else f"exit code {died.code}"
        self._deaths += 1
        if worker.job is not None:
            self._progress.event("trial", trial=worker.job, state="died", value=None)
        if worker.job is not None and not self.trial_log.requeue(worker.job):
            self._deaths = 0
            self._advance(1)
            self._progress.note(f"trial {worker.job}: its workers keep dying ({cause}); it is given up")
        elif self._deaths > DEATHS_IN_A_ROW * workers:
            raise MachineError(
                f"workers keep dying ({cause}), perhaps for want of memory: the {self.trial_log.finished:,} finished "
                "trials are safe; run the same command again with fewer --workers."
            )
        else:
            retried = "" if worker.job is None else f" at trial {worker.job}, which is tried again"
            self._progress.note(f"a worker died ({cause}){retried}")


def _run_trials(
    search_progress: _SearchProgress,
    recipe: Recipe,
    shared: Path,
    make_evaluate: MakeEvaluate,
    workers: int,
    total: int,
) -> None:
    trial_log = search_progress.trial_log
    if trial_log.finished >= total:
        return
    if workers > 1:
        with WorkerPool(run_worker, (recipe, shared, make_evaluate), min(workers, total - trial_log.finished)) as pool:
            _run_in_pool(search_progress, pool, total)
        return
    running: list[int] = []
    evaluate = make_evaluate(recipe, shared, lambda name, **facts: search_progress.receive(running[-1], name, **facts))
    while trial_log.finished < total:
        number, params = search_progress.ask()
        running.append(number)
        report = partial(trial_log.report, number)
        search_progress.record(number, run_trial(evaluate, recipe, number, params, report))


def _run_in_pool(search_progress: _SearchProgress, pool: WorkerPool, total: int) -> None:
    """Run trials in workers, never more at once than are still missing."""
    trial_log = search_progress.trial_log
    while trial_log.finished < total:
        while (worker := pool.idle) and trial_log.finished + pool.busy < total:
            pool.assign(worker, *search_progress.ask())
        for worker, message in pool.messages():
            match message:
                case EpochReport(step, value):
                    assert worker.job is not None
                    pool.answer(worker, trial_log.report(worker.job, step, value))
                case Event(name, facts):
                    assert worker.job is not None
                    search_progress.receive(worker.job, name, **facts)
                case TrialResult():
                    assert worker.job is not None
                    search_progress.record(worker.job, message)
                    worker.job = None
                case WorkerDied():
                    search_progress.record_death(worker, message, pool.size)
                case WorkerFailed(error, trace):
                    raise error or RuntimeError(f"a worker failed:\n{trace}")


def _total(recipe: Recipe, trials: int | None, progress: Progress) -> int:
    """Return the number of trials to reach; samplers that exhaust a grid stop at its size."""
    total, most = trials or recipe.study.trials, largest_search(recipe.study)
    if most < total:
        progress.note(f"{recipe.study.sampler}: the space holds {most:,.0f} trials, and no more are run")
        return int(most)
    return total


@contextmanager
def _empty_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder, and remove it afterwards."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
