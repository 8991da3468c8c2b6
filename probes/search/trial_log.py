"""The trials of an Optuna study: proposing values, reporting epochs, recording results, requeueing cut trials.

Only the process that holds the study's lock asks and tells; workers only train. A trial that is marked as running when
a study is opened was therefore cut short.
"""

from typing import Any, NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from permafrost.data.errors import InputError, first_line
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Choice, Range, Scalar
from permafrost.probes.search.samplers import make_sampler, silence_warnings
from permafrost.probes.search.trials import TrialResult

ATTEMPTS = 3
"""Number of workers that may die while they train a trial; then the trial is given up."""

RETRY, DEATHS, REASON = "retry_of", "deaths", "reason"
"""User attributes of a trial: number of the first trial with its values, workers that died of it, why it was
refused."""

Row = dict[str, Any]


class BestTrial(NamedTuple):
    """The best complete trial of a study."""

    number: int
    value: float
    params: dict[str, Scalar]


class TrialLog:
    """A study: proposes trials and records their results."""

    def __init__(self, study: optuna.Study, recipe: Recipe) -> None:
        self._study, self._spec = study, recipe.study
        self._ranges = dict(sorted(recipe.study.ranges().items()))
        self._distributions = {key: _distribution(dimension) for key, dimension in self._ranges.items()}
        self._running: dict[int, Trial] = {}
        study.stop = lambda: None  # type: ignore[method-assign]  # samplers call it at the end of a grid
        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        self.finished = sum(trial.state in ended or REASON in trial.user_attrs for trial in self._trials())
        """Number of trials that are complete, pruned or refused."""

    def ask(self) -> tuple[int, dict[str, Scalar]]:
        """Begin a trial; return its number and its values."""
        with silence_warnings():
            self._study.sampler = make_sampler(self._spec, self._ranges, self._turn())
            try:
                trial = self._study.ask(self._distributions)
            except ImportError as error:
                raise InputError(f"study.sampler = '{self._spec.sampler}': {cause_of(error)}.") from error
        self._running[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, step: int, value: float) -> bool:
        """Record the validation metric of an epoch; return whether to stop the trial."""
        with silence_warnings():
            self._running[number].report(value, step)
            return self._running[number].should_prune()

    def record(self, number: int, outcome: TrialResult) -> None:
        """Record the result of a trial, and end it."""
        trial = self._running.pop(number)
        for name, value in outcome.attributes.items():
            trial.set_user_attr(name, value)
        if outcome.reason:
            trial.set_user_attr(REASON, outcome.reason)
        with silence_warnings():
            if outcome.state == "complete":
                self._study.tell(trial, outcome.value)
            else:
                self._study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)
        self.finished += 1

    def requeue(self, number: int) -> bool:
        """Fail a trial whose worker died, and queue its values again; return False if the trial is given up instead."""
        self._running.pop(number, None)
        trials = self._trials()
        deaths = trials[number].user_attrs.get(DEATHS, 0) + 1
        if deaths < ATTEMPTS:
            self._put_back(trials[number], trials, deaths)
            return True
        self._study._storage.set_trial_user_attr(trials[number]._trial_id, REASON, f"{deaths} workers died of it.")
        self._study._storage.set_trial_state_values(trials[number]._trial_id, TrialState.FAIL)
        self.finished += 1
        return False

    def recover(self) -> None:
        """Queue the values of every trial that was cut short again."""
        trials = self._trials()
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._put_back(trial, trials, trial.user_attrs.get(DEATHS, 0))
        self._running.clear()

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

    def _put_back(self, trial: FrozenTrial, trials: list[FrozenTrial], deaths: int) -> None:
        """Queue a retry, then fail the trial: a crash in between loses nothing and queues no second retry."""
        first = trial.user_attrs.get(RETRY, trial.number)
        if not any(other.user_attrs.get(RETRY) == first for other in trials[trial.number + 1 :]):
            system = {key: value for key, value in trial.system_attrs.items() if not key.startswith("completed_rung")}
            system.pop("fixed_params", None)
            if len(trial.params) == len(self._ranges):
                system["fixed_params"] = trial.params
            self._study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING, system_attrs=system, user_attrs={RETRY: first, DEATHS: deaths}
                )
            )
        self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


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
