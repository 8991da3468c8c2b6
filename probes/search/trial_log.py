"""The trials of an Optuna study: proposing values, reporting epochs, recording results, requeueing cut trials.

Only the process of a session asks and tells; workers only train. A trial that is marked as running and that no session
holds was therefore cut short. Each trial ends once: the storage refuses to end it again.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from permafrost.data.errors import InputError, first_line
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Choice, Range, Scalar
from permafrost.probes.search.locks import StudyLocks
from permafrost.probes.search.samplers import make_sampler, silence_warnings
from permafrost.probes.search.trials import TrialResult

ATTEMPTS = 3
"""Number of workers that may die while they train a trial; then the trial is given up."""

RETRY, DEATHS, REASON, HOST = "retry_of", "deaths", "reason", "host"
"""User attributes of a trial: number of the first trial with its values, workers that died of it, why it was refused,
and the host that ran it, if several may run the study."""

END = "end"
"""User attribute of a study that several hosts may run: who wrote its end, where, after how many trials."""

Row = dict[str, Any]


class BestTrial(NamedTuple):
    """The best complete trial of a study."""

    number: int
    value: float
    params: dict[str, Scalar]


class TrialLog:
    """A study: proposes trials and records their results."""

    def __init__(self, study: optuna.Study, recipe: Recipe, locks: StudyLocks | None = None) -> None:
        self._study, self._spec, self._locks = study, recipe.study, locks or StudyLocks()
        self._ranges = dict(sorted(recipe.study.ranges().items()))
        self._distributions = {key: _distribution(dimension) for key, dimension in self._ranges.items()}
        self._running: dict[int, Trial] = {}
        study.stop = lambda: None  # type: ignore[method-assign]  # samplers call it at the end of a grid
        self.finished = 0
        """Number of trials that are complete, pruned or refused, of all sessions."""

        self.elsewhere: list[str] = []
        """Host of each trial that another session ran when this one asked last."""

        self._count()

    @property
    def host(self) -> str:
        """Name of this host if sessions of several may run the study, else empty."""
        return self._locks.host

    def ask(self, total: float = math.inf) -> tuple[int, dict[str, Scalar]] | None:
        """Begin a trial, unless ``total`` have finished or are under way; return its number and its values."""
        with self._locks.exclusive(), silence_warnings():
            self.recover()
            if self.finished + len(self._running) + len(self.elsewhere) >= total:
                return None
            self._study.sampler = make_sampler(self._spec, self._ranges, self._turn())
            try:
                trial = self._study.ask(self._distributions)
            except ImportError as error:
                raise InputError(f"study.sampler = '{self._spec.sampler}': {cause_of(error)}.") from error
            self._locks.take(trial.number)
            if self.host:
                trial.set_user_attr(HOST, self.host)
        self._running[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, step: int, value: float) -> bool:
        """Record the validation metric of an epoch; return whether to stop the trial."""
        self._locks.keep()
        with silence_warnings(), suppress(UpdateFinishedTrialError):
            self._running[number].report(value, step)
            return self._running[number].should_prune()
        return True  # another session has taken the trial over

    def record(self, number: int, outcome: TrialResult) -> bool:
        """Record the result of a trial, and end it; return False if it is another session's by now."""
        trial, recorded = self._running.pop(number), False
        with self._ending(number) as is_own, silence_warnings():
            if is_own:
                for name, value in outcome.attributes.items():
                    trial.set_user_attr(name, value)
                if outcome.reason:
                    trial.set_user_attr(REASON, outcome.reason)
                if outcome.state == "complete":
                    self._study.tell(trial, outcome.value)
                else:
                    self._study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)
                recorded = True
        return recorded

    def requeue(self, number: int) -> bool:
        """Fail a trial whose worker died, and queue its values again; return False if the trial is given up instead."""
        self._running.pop(number, None)
        with self._ending(number) as is_own:
            trial = self._trials()[number]
            deaths = trial.user_attrs.get(DEATHS, 0) + 1
            if is_own and deaths < ATTEMPTS:
                self._fail(trial)
                self._queue(trial, deaths)
            elif is_own:
                self._study._storage.set_trial_user_attr(trial._trial_id, REASON, f"{deaths} workers died of it.")
                self._fail(trial)
        return not is_own or deaths < ATTEMPTS

    def recover(self) -> None:
        """Queue the values of every trial again that was cut short, and count those that were not.

        A trial is failed first, which the storage allows once, and a crash before its values are queued is made good
        by whoever recovers next. If several sessions may run the study, it must be theirs alone.
        """
        for trial in self._trials():
            is_other = trial.state == TrialState.RUNNING and trial.number not in self._running
            if is_other and self._locks.take(trial.number):
                with suppress(UpdateFinishedTrialError):
                    self._fail(trial)
                self._locks.release(trial.number)
        latest = {trial.user_attrs.get(RETRY, trial.number): trial for trial in self._trials()}
        for trial in sorted(latest.values(), key=lambda trial: trial.number):
            if trial.state == TrialState.FAIL and REASON not in trial.user_attrs:
                self._queue(trial, trial.user_attrs.get(DEATHS, 0))
        self._count()

    def abandon(self) -> None:
        """Queue the values of the trials that this session runs again."""
        with self._locks.exclusive():
            self._running.clear()
            self.recover()

    @contextmanager
    def writing_end(self) -> Iterator[bool]:
        """Hold the right to write the end of the study; yield False if another session holds it."""
        with self._locks.end() as free:
            yield free

    def read_end(self) -> dict[str, Any]:
        """Return who wrote the end of the study, as :meth:`record_end` recorded it; empty if nobody did."""
        return dict(self._study.user_attrs.get(END, {})) if self.host else {}

    def record_end(self, written: bool, **facts: Any) -> None:
        """Record who writes the end of the study, or has written it, if sessions of several hosts may."""
        with suppress(SQLAlchemyError, StorageInternalError) if written else nullcontext():
            if self.host:
                self._study.set_user_attr(END, facts | {"written": written})

    def best(self) -> BestTrial | None:
        """Return the best complete trial, of several the first; None if no trial is complete."""
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if not complete:
            return None
        trial = max(complete, key=lambda trial: (cast(float, trial.value), -trial.number))
        return BestTrial(trial.number, cast(float, trial.value), dict(trial.params))

    def rows(self) -> list[Row]:
        """Return one row per trial: number, state, value, seconds, parameters, retry, reason, attributes."""
        return [
            {
                "number": trial.number,
                "state": trial.state.name,
                "value": trial.value,
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                **{key: trial.params.get(key) for key in self._ranges},
                RETRY: trial.user_attrs.get(RETRY),
                REASON: trial.user_attrs.get(REASON),
                **{key: value for key, value in trial.user_attrs.items() if key not in (RETRY, DEATHS, REASON)},
            }
            for trial in self._trials()
        ]

    def intermediate(self) -> list[Row]:
        """Return one row per reported epoch: trial, step, value."""
        return [
            {"trial": trial.number, "step": step, "value": value}
            for trial in self._trials()
            for step, value in sorted(trial.intermediate_values.items())
        ]

    def importances(self) -> dict[str, float]:
        """Return the fraction of the variance of values that each parameter explains, by fANOVA.

        Source: Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance".

        Returns:
            dotted key -> fraction; empty for fewer than two parameters or two different values.
        """
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if len(self._ranges) < 2 or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._spec.seed)
        with silence_warnings():
            return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _turn(self) -> int:
        """Return the index of the next draw; a retry has that of its first trial, so a resumed study draws the same."""
        trials = self._trials()
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        end = waiting.user_attrs.get(RETRY, waiting.number) if waiting else len(trials)
        return sum(RETRY not in trial.user_attrs for trial in trials[:end])

    @contextmanager
    def _ending(self, number: int) -> Iterator[bool]:
        """End a trial while no other session ends one; yield whether it has not been ended by another."""
        with self._locks.exclusive():
            with suppress(UpdateFinishedTrialError):
                yield self._trials()[number].state == TrialState.RUNNING
            self._locks.release(number)
            self._count()

    def _count(self) -> None:
        """Count the trials that have finished, and those of other sessions."""
        trials, ended = self._trials(), (TrialState.COMPLETE, TrialState.PRUNED)
        self.finished = sum(
            trial.state in ended or (trial.state == TrialState.FAIL and REASON in trial.user_attrs) for trial in trials
        )
        others = [t for t in trials if t.state == TrialState.RUNNING and t.number not in self._running]
        self.elsewhere = [str(trial.user_attrs.get(HOST, "another host")) for trial in others]

    def _fail(self, trial: FrozenTrial) -> None:
        self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _queue(self, trial: FrozenTrial, deaths: int) -> None:
        """Queue a retry of a trial that has failed."""
        first = trial.user_attrs.get(RETRY, trial.number)
        system = {key: value for key, value in trial.system_attrs.items() if not key.startswith("completed_rung")}
        system.pop("fixed_params", None)
        if len(trial.params) == len(self._ranges):
            system["fixed_params"] = trial.params
        retry = optuna.create_trial(
            state=TrialState.WAITING, system_attrs=system, user_attrs={RETRY: first, DEATHS: deaths}
        )
        self._study.add_trial(retry)


def cause_of(error: BaseException) -> str:
    """Return the first line of an error's message, that of its cause if Optuna wrapped it."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    return first_line(cause).removeprefix("(builtins.")


def _distribution(dimension: Range) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values())
    low, high, log, step = dimension.low, dimension.high, dimension.log, dimension.step
    if dimension.whole:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)
