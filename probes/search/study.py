"""Optuna: what a study remembers and how it proposes. This is the only module that imports optuna.

One process, the one that holds the study's lock, asks and tells; workers only train. So a trial belongs to nobody
but that process, and any trial found running when a study is opened is one that was cut short.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from permafrost.data.errors import InputError, MachineError
from permafrost.data.spec import SpecError, fingerprint
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.config.study import Choice, Range, Scalar, StudySpec
from permafrost.probes.search.factory import from_name
from permafrost.probes.search.journal import Journal
from permafrost.probes.search.trials import TrialResult, difference, identity

ATTEMPTS = 3
"""Workers that may die of a trial before it is given up."""

IDENTITY, RETRY, DEATHS, REASON = "permafrost", "retry_of", "deaths", "reason"
"""User attributes: of a study, its recipe; of a trial, the first one with its values, workers that died of it, why it
was refused."""

SEQUENCES = ("GridSampler", "QMCSampler")
"""Samplers that count their way through one order, which the seed settles."""

Row = dict[str, Any]


class TrialLog:
    """One study: asks for trials, and writes down how they went."""

    def __init__(self, study: optuna.Study, recipe: Recipe) -> None:
        self._study, self._spec = study, recipe.study
        self._ranges = dict(sorted(recipe.study.ranges().items()))
        self._distributions = {key: _distribution(one) for key, one in self._ranges.items()}
        self._running: dict[int, Trial] = {}
        study.stop = lambda: None  # type: ignore[method-assign]  # samplers call it at the end of a grid
        self.finished = sum(map(_finished, self._trials()))
        """Trials that are complete, pruned or refused."""

    def ask(self) -> tuple[int, dict[str, Scalar]]:
        """Begin a trial: its number and its values."""
        with _quiet():
            self._study.sampler = make_sampler(self._spec, self._ranges, self._turn())
            try:
                trial = self._study.ask(self._distributions)
            except ImportError as error:
                raise InputError(f"study.sampler = '{self._spec.sampler}': {_first_line(error)}.") from error
        self._running[trial.number] = trial
        return trial.number, trial.params

    def report(self, number: int, step: int, value: float) -> bool:
        """Keep a validation metric; returns whether the trial should stop."""
        with _quiet():
            self._running[number].report(value, step)
            return self._running[number].should_prune()

    def record(self, number: int, outcome: TrialResult) -> None:
        """End a trial."""
        trial = self._running.pop(number)
        for name, value in outcome.attributes.items():
            trial.set_user_attr(name, value)
        if outcome.reason:
            trial.set_user_attr(REASON, outcome.reason)
        with _quiet():
            if outcome.state == "complete":
                self._study.tell(trial, outcome.value)
            else:
                self._study.tell(trial, state=TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL)
        self.finished += 1

    def requeue(self, number: int) -> bool:
        """Fail a trial whose worker died and put its values back in the queue; False where it is given up instead."""
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

    def recover(self) -> int:
        """Put back every trial that was cut short; returns how many."""
        trials = self._trials()
        cut = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in cut:
            self._put_back(trial, trials, trial.user_attrs.get(DEATHS, 0))
        self._running.clear()
        return len(cut)

    def best(self) -> tuple[int, float, dict[str, Scalar]] | None:
        """Number, value and parameters of the best complete trial."""
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if not complete:
            return None
        found = max(complete, key=lambda trial: (cast(float, trial.value), -trial.number))
        return found.number, cast(float, found.value), dict(found.params)

    def rows(self) -> list[Row]:
        """One row a trial: number, state, value, seconds, parameters, retry, reason, attributes."""
        return [_row(trial, self._ranges) for trial in self._trials()]

    def intermediate(self) -> list[Row]:
        """One row a report: trial, step, value."""
        return [
            {"trial": trial.number, "step": step, "value": value}
            for trial in self._trials()
            for step, value in sorted(trial.intermediate_values.items())
        ]

    def importances(self) -> dict[str, float]:
        """Share of the spread of values that each parameter accounts for, by fANOVA; empty where too little is known.

        Source: Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance".
        """
        complete = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if len(self._ranges) < 2 or len({trial.value for trial in complete}) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._spec.seed)
        with _quiet():
            return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _turn(self) -> int:
        """Which draw comes next; a trial that was cut short does not count twice, so a stopped study draws on alike."""
        trials = self._trials()
        waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
        end = waiting.user_attrs.get(RETRY, waiting.number) if waiting else len(trials)
        return sum(RETRY not in trial.user_attrs for trial in trials[:end])

    def _put_back(self, trial: FrozenTrial, trials: list[FrozenTrial], deaths: int) -> None:
        """Queue first, fail second: dying in between costs nothing, for what is queued already is not queued again."""
        first = trial.user_attrs.get(RETRY, trial.number)
        if not any(other.user_attrs.get(RETRY) == first for other in trials[trial.number + 1 :]):
            kept = {key: value for key, value in trial.system_attrs.items() if not key.startswith("completed_rung")}
            kept.pop("fixed_params", None)
            if len(trial.params) == len(self._ranges):
                kept["fixed_params"] = trial.params
            attributes = {RETRY: first, DEATHS: deaths}
            self._study.add_trial(
                optuna.create_trial(state=TrialState.WAITING, system_attrs=kept, user_attrs=attributes)
            )
        self._study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


@contextlib.contextmanager
def opened(name: str, recipe: Recipe, storage: str | None, journal: Path) -> Iterator[TrialLog]:
    """A study by name, made where there is none: in the database ``storage``, or else in the file ``journal``.

    Whatever ends the context, no trial stays behind as running if the storage can still be written.

    Raises:
        InputError: the database cannot be reached or holds another study of this name; no such sampler or pruner.
        MachineError: the storage fails in the middle.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    make_sampler(recipe.study, recipe.study.ranges(), 0)
    pruner, shown = make_pruner(recipe.study), shown_storage(storage, journal)
    trial_log = None
    with contextlib.ExitStack() as stack:
        reached = _reach(storage, name, stack) if storage else JournalStorage(cast(Any, Journal(journal)))
        try:
            trial_log = TrialLog(_load(reached, name, recipe, pruner, shown), recipe)
            trial_log.recover()
            yield trial_log
        except (SQLAlchemyError, StorageInternalError) as error:
            safe = f"its {trial_log.finished:,} finished trials are safe there" if trial_log else "nothing was begun"
            raise MachineError(
                f"study '{name}': {shown} no longer answers ({_first_line(error)}); {safe}: "
                "run the same command again to go on."
            ) from error
        except BaseException:
            if trial_log:
                with contextlib.suppress(Exception):
                    trial_log.recover()
            raise


def shown_storage(storage: str | None, journal: Path) -> str:
    """The storage as it may be shown: without its password."""
    if storage is None:
        return str(journal)
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except ArgumentError:
        return "the storage"


def make_sampler(spec: StudySpec, ranges: Mapping[str, Range], turn: int) -> optuna.samplers.BaseSampler:
    """The sampler of a study for its ``turn``-th draw.

    Raises:
        SpecError: there is none of that name, an option does not fit, or it needs what only a program can give.
    """
    draw = 0 if spec.sampler in SEQUENCES else turn
    seed = int(np.random.SeedSequence([spec.seed, draw]).generate_state(1)[0])
    given = {"seed": seed, "warn_independent_sampling": False, "warn_asynchronous_seeding": False}
    return cast(optuna.samplers.BaseSampler, _made("sampler", spec.sampler, spec.sampler_options, given, ranges))


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """The pruner of a study; errors as of :func:`make_sampler`."""
    return cast(optuna.pruners.BasePruner, _made("pruner", spec.pruner, spec.pruner_options, {}, {}))


def _made(
    kind: str, name: str, options: Mapping[str, object], offered: Mapping[str, object], ranges: Mapping[str, Range]
) -> object:
    module = optuna.samplers if kind == "sampler" else optuna.pruners
    known = {one: vars(module)[one] for one in module.__all__ if one[0].isupper() and not one.startswith("Base")}

    def inner(name: object) -> object:
        return _made(kind, str(name), {}, offered, ranges)

    builders = {
        "search_space": lambda given: given or _grid(f"study.{kind} = '{name}'", ranges),
        "base_sampler": lambda given: inner(given or "TPESampler"),
        "wrapped_pruner": lambda given: inner(given or "MedianPruner"),
    }
    with _quiet():
        return from_name(f"study.{kind}", name, known, options, offered, builders)


def _grid(place: str, ranges: Mapping[str, Range]) -> dict[str, list[Scalar]]:
    grid = {key: one.values() for key, one in ranges.items()}
    for key, values in grid.items():
        if values is None:
            raise SpecError(f"{place} needs values that can be counted: give '{key}' a step, or choices.")
    return cast(dict[str, list[Scalar]], grid)


def _distribution(one: Range) -> BaseDistribution:
    if isinstance(one, Choice):
        return CategoricalDistribution(one.values())
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), one.log, int(one.step or 1))
    return FloatDistribution(one.low, one.high, one.log, one.step)


def _reach(url: str, name: str, stack: contextlib.ExitStack) -> RDBStorage:
    """The database, closed with the stack."""
    place = f"--storage {shown_storage(url, Path())}"
    try:
        dialect = make_url(url).get_backend_name()
        kept = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        arguments = {"connect_timeout": 10} | kept if dialect == "postgresql" else {}
        storage = RDBStorage(url, {"pool_pre_ping": True, "connect_args": arguments})
    except (ArgumentError, NoSuchModuleError) as error:
        raise SpecError(
            f"{place}: expected an address such as postgresql+psycopg://user@host/database or sqlite:///study.db "
            f"({_first_line(error)})."
        ) from error
    except ImportError as error:
        raise InputError(
            f"{place}: its driver is missing; for PostgreSQL: pip install 'permafrost[postgresql]'."
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise InputError(f"{place} cannot be reached ({_first_line(error)}).") from error
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    if dialect == "postgresql":
        _hold(storage.engine, name, place, stack)
    return storage


def _hold(engine: Engine, name: str, place: str, stack: contextlib.ExitStack) -> None:
    """PostgreSQL's own lock on the study, which ends with our connection: other machines see no lock file of ours."""
    connection: Connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    stack.callback(connection.invalidate)
    key = int(fingerprint(name), 16) >> 1
    if not connection.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar():
        raise InputError(f"study '{name}' in {place} is running elsewhere: wait for it, or stop it first.")


def _load(
    storage: BaseStorage, name: str, recipe: Recipe, pruner: optuna.pruners.BasePruner, shown: str
) -> optuna.Study:
    known_names = [one.study_name for one in storage.get_all_studies()]
    if name not in known_names:
        storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
    study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    mine, known = identity(recipe), study.user_attrs.get(IDENTITY)
    if known is None:
        if study.get_trials(deepcopy=False):
            raise InputError(f"study '{name}' in {shown} is somebody else's; give this one another name.")
        study.set_user_attr(IDENTITY, mine)
    elif where := difference(mine, known):
        raise InputError(
            f"study '{name}' in {shown} was begun with another recipe or space: '{where}' differs. "
            "Go on with what it was begun with, or give this one another name."
        )
    return study


def _finished(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or REASON in trial.user_attrs


def _row(trial: FrozenTrial, ranges: Mapping[str, Range]) -> Row:
    numbers = {key: value for key, value in trial.user_attrs.items() if key not in (RETRY, DEATHS, REASON)}
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        **{key: trial.params.get(key) for key in ranges},
        RETRY: trial.user_attrs.get(RETRY),
        REASON: trial.user_attrs.get(REASON),
        **numbers,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's warnings speak to programmers: what is experimental, what else could be set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: BaseException) -> str:
    said = str(error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error)
    return said.strip().split("\n")[0].removeprefix("(builtins.").rstrip(".") or type(error).__name__
