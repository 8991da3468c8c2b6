"""One session of a study: run trials until the study has enough, in this process or in workers.

Of a study in a PostgreSQL database, sessions of several hosts run at once; one of them writes its end.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from permafrost.data.errors import MachineError
from permafrost.data.progress import NoProgress, Progress
from permafrost.data.spec import plain
from permafrost.probes.config.names import JOURNAL
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Scalar
from permafrost.probes.search.ending import end_of_study
from permafrost.probes.search.session_folder import own_folder
from permafrost.probes.search.storage import is_for_many, open_study, shown_storage
from permafrost.probes.search.trial_log import TrialLog
from permafrost.probes.search.trials import (
    MakeEvaluate,
    StudyElsewhere,
    TrialResult,
    check_study,
    largest_search,
    run_trial,
)
from permafrost.probes.search.workers import (
    EpochReport,
    Event,
    Worker,
    WorkerDied,
    WorkerFailed,
    WorkerPool,
    run_worker,
)

POLL_SECONDS = 3.0
"""Time after which a session that waits for the trials of others looks again."""


DEATHS_IN_A_ROW = 3
"""Number of deaths per worker, with no trial finished in between, after which the study ends with an error."""


@dataclass(frozen=True)
class Searched:
    """A study that has enough trials, and that no other session can change."""

    folder: Path
    trial_log: TrialLog
    settings: Mapping[str, Any]
    """Settings of the session, for the record."""

    elsewhere: StudyElsewhere | None
    """Who writes the end of the study, if it is not this session."""


@contextmanager
def searched(
    recipe: Recipe,
    name: str,
    runs: Path,
    make_evaluate: MakeEvaluate,
    storage: str | None = None,
    trials: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    again: bool = False,
) -> Iterator[Searched]:
    """Begin a study, or resume the one of this name, until it has ``trials`` finished trials; the context writes it.

    Args:
        recipe: the recipe, whose table [study] describes the search.
        name: of the study, and of its folder ``study-<name>``.
        runs: folder that contains the study's folder.
        make_evaluate: module-level function that each worker calls with the recipe and the folder that workers share.
        storage: SQLAlchemy URL of a database; None stores the study in a journal file in its folder.
        trials: total number of trials, of all sessions; None takes that of the recipe.
        workers: number of processes; 1 trains in this process.
        progress: shows the number of finished trials.
        again: write the end here too if another session wrote it before this one began.

    Raises:
        InputError: there is nothing to search, or a study of this name has another recipe.
        StudyRunningError: a study of this name is running, and its storage is for one session at a time.
        MachineError: the storage fails, or workers keep dying.
    """
    progress = progress or NoProgress()
    check_study(recipe, name, trials, workers, storage)
    folder, total = runs / f"study-{name}", _total(recipe, trials, progress)
    journal = folder / JOURNAL
    with ExitStack() as stack:
        shared = stack.enter_context(own_folder(folder, name, is_for_many(storage)))
        trial_log = stack.enter_context(open_study(name, recipe, storage, journal))
        end_before = trial_log.read_end()
        if trial_log.finished:
            progress.note(f"study '{name}' resumes: {trial_log.finished:,} of {total:,} trials finished")
        if trial_log.elsewhere:
            progress.note(f"study '{name}': joins {_hosts(trial_log)}")
        with progress.bar(f"study {name}", total) as advance:
            search_progress = _SearchProgress(trial_log, recipe, progress, advance, total)
            _run_trials(search_progress, recipe, shared, make_evaluate, workers, total)
        shutil.rmtree(shared, ignore_errors=True)
        settings = {"storage": shown_storage(storage, journal), "workers": workers}
        with end_of_study(trial_log, name, folder, end_before, again) as elsewhere:
            yield Searched(folder, trial_log, settings, elsewhere)


class _SearchProgress:
    """Records trials in the log of the study, and shows them."""

    def __init__(
        self, trial_log: TrialLog, recipe: Recipe, progress: Progress, advance: Callable[[int], None], total: int
    ) -> None:
        self.trial_log, self._progress, self._advance, self._total = trial_log, progress, advance, total
        self._ranges = recipe.study.ranges()
        self._best = best.value if (best := trial_log.best()) else None
        self._deaths = self._shown = 0
        self._waits = False
        self._show()

    def ask(self) -> tuple[int, Mapping[str, Scalar]] | None:
        """Begin a trial; return its number and its values, or None if all that are missing are under way."""
        asked = self.trial_log.ask(self._total)
        self._show()
        if asked is None:
            return None
        number, params = asked
        self._waits = False
        shown = {key: plain(self._ranges[key].decode(value)) for key, value in params.items()}
        self._progress.event("trial", trial=number, state="running", params=shown)
        return number, params

    def tell_wait(self) -> None:
        """Tell whose trials are waited for, once."""
        if self.trial_log.elsewhere and not self._waits:
            self._waits = True
            self._progress.note(f"waits for {_hosts(self.trial_log)}, and takes over those of a host that dies")

    def _show(self) -> None:
        """Show the trials that have finished since the last time, of all sessions."""
        finished = min(self.trial_log.finished, self._total)
        if new := finished - self._shown:
            self._shown = finished
            self._advance(new)

    def receive(self, number: int, name: str, **facts: Any) -> None:
        """Pass on an event of the training of a trial."""
        self._progress.event(name, trial=number, **facts)

    def record(self, number: int, result: TrialResult) -> None:
        """Record the result of a trial."""
        if not self.trial_log.record(number, result):
            self._progress.event("trial", trial=number, state="lost", value=None)
            self._progress.note(f"trial {number}: another host has taken it over, and its result here does not count")
            return
        reason = {"reason": result.reason} if result.reason else {}
        self._progress.event("trial", trial=number, state=result.state, value=result.value, **reason)
        self._deaths = 0
        self._show()
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
            self._show()
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
        if not (asked := search_progress.ask()):
            if trial_log.finished < total:
                search_progress.tell_wait()
                time.sleep(POLL_SECONDS)
            continue
        number, params = asked
        running.append(number)
        report = partial(trial_log.report, number)
        search_progress.record(number, run_trial(evaluate, recipe, number, params, report))


def _run_in_pool(search_progress: _SearchProgress, pool: WorkerPool, total: int) -> None:
    """Run trials in workers, never more at once than are still missing."""
    trial_log = search_progress.trial_log
    while trial_log.finished < total or pool.busy:
        while (worker := pool.idle) and (asked := search_progress.ask()):
            pool.assign(worker, *asked)
        if trial_log.finished >= total and not pool.busy:
            return
        if not pool.busy:
            search_progress.tell_wait()
        seconds = POLL_SECONDS if pool.idle and trial_log.elsewhere else None
        for worker, message in pool.messages(seconds):
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


def _hosts(trial_log: TrialLog) -> str:
    """Return how many trials other sessions run, and on which hosts."""
    hosts, trials = sorted(set(trial_log.elsewhere)), len(trial_log.elsewhere)
    return f"{trials:,} {'trial' if trials == 1 else 'trials'} of {', '.join(hosts)}"
