"""Trials: a recipe with searched settings replaced, trained once and scored by its validation metric.

Independent of Optuna, so that workers need none of it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from permafrost.data.errors import PermafrostError, first_line
from permafrost.data.progress import Receive
from permafrost.data.spec import SpecError, flatten_settings, manual, nearest, plain
from permafrost.probes.config.recipe import VARIABLE_TABLES, Recipe, Variant, with_variant
from permafrost.probes.config.study import Scalar, StudySpec
from permafrost.probes.results.own_parts import origins_of

STUDY_FORMAT = 2
"""Of a study's settings; a study that another version began is not continued."""

NOT_IDENTIFYING = ("summary", "duration", "device", "extract", "variants")
"""Keys and tables of a recipe that do not change any trial."""

AfterEpoch = Callable[[int, float], None]
"""Called after every epoch with its index, from 0, and its validation metric."""


@dataclass(frozen=True)
class Evaluation:
    """Result of a training."""

    value: float
    """Best validation metric (higher is better)."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Further columns of ``trials.csv``, name -> value."""


Evaluate = Callable[[Recipe, AfterEpoch], float | Evaluation]
"""Trains a recipe with its only seed and returns the best validation metric."""


MakeEvaluate = Callable[[Recipe, Path, Receive], Evaluate]
"""Module-level function, called once in every worker with the recipe, the folder that the workers share, and the
function that is told the events of the trainings."""


@dataclass(frozen=True)
class TrialResult:
    """Outcome of a trial."""

    state: Literal["complete", "pruned", "refused"]
    value: float | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Reason, if the trial was refused."""


class StudyElsewhere(PermafrostError):  # noqa: N818  no error
    """Ends a session whose study has enough trials, if another session writes its end; the message says where."""

    exit_code = 0

    def __init__(self, study: str, trials: int, host: str, folder: str, written: bool) -> None:
        """Describe where a study stands.

        Args:
            study: name of the study.
            trials: number of finished trials.
            host: that of the session which writes the end, or wrote it.
            folder: folder of the study on that host.
            written: whether the end has been written: tables, report, and the run of the best trial.
        """
        self.study, self.trials, self.host, self.folder, self.written = study, trials, host, folder, written
        done = "wrote its results, and trained its best trial again" if written else "is about to write its results"
        way = "--if-done again writes them here too" if written else "if it dies, the same command writes them"
        super().__init__(f"study '{study}' is complete, {trials:,} trials; {host} {done}: {folder} ({way})")


class TrialPruned(Exception):  # noqa: N818  no error
    """Ends the training of a trial that the pruner stops."""


def with_params(recipe: Recipe, name: str, params: Mapping[str, Scalar]) -> Recipe:
    """Return the recipe of a trial: with the proposed values, and the first seed only.

    Args:
        recipe: the searched recipe.
        name: of the trial, for error messages.
        params: dotted key -> proposed value, as :meth:`permafrost.probes.config.study.Choice.decode` takes it.
    """
    ranges = recipe.study.ranges()
    values = {key: ranges[key].decode(value) for key, value in params.items()}
    trial_recipe = with_variant(recipe, Variant(name, values))
    return replace(trial_recipe, train=replace(trial_recipe.train, seeds=recipe.train.seeds[:1]))


def best_recipe(recipe: Recipe, summary: str, params: Mapping[str, Scalar]) -> Recipe:
    """Return the recipe of the best trial, with all seeds of the study."""
    best = with_params(recipe, "best", params)
    train = replace(best.train, seeds=recipe.study.seeds)
    return replace(best, summary=summary, duration="", train=train, study=StudySpec())


def run_trial(
    evaluate: Evaluate,
    recipe: Recipe,
    number: int,
    params: Mapping[str, Scalar],
    report: Callable[[int, float], bool],
) -> TrialResult:
    """Train a trial, and return its result.

    Args:
        evaluate: trains the recipe.
        recipe: the searched recipe.
        number: of the trial.
        params: dotted key -> proposed value.
        report: called after each epoch with its index and validation metric; returns whether to stop the trial.
    """

    def after_epoch(epoch: int, value: float) -> None:
        if report(epoch, value):
            raise TrialPruned

    try:
        evaluation = evaluate(with_params(recipe, f"trial-{number}", params), after_epoch)
    except TrialPruned:
        return TrialResult("pruned")
    except SpecError as error:
        return TrialResult("refused", reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch has no error for it
            raise
        return TrialResult("refused", reason="it does not fit into memory.")
    if not isinstance(evaluation, Evaluation):
        evaluation = Evaluation(float(evaluation))
    if not math.isfinite(evaluation.value):
        return TrialResult("refused", reason=f"its validation metric is {evaluation.value}.")
    return TrialResult("complete", evaluation.value, evaluation.attributes)


def check_study(recipe: Recipe, name: str, trials: int | None, workers: int, storage: str | None = None) -> None:
    """Raise a :class:`SpecError` if the name, a number, the storage or the search space of a study is invalid."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise SpecError(f"a study's name is made of letters, digits, '.', '_' and '-', got '{name}'.")
    if workers < 1 or (trials is not None and trials < 1):
        raise SpecError("a study needs at least one worker and one trial.")
    if storage:
        from sqlalchemy import make_url  # slow to import, and a study in a journal file does without it
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        shown = "ADDRESS"
        try:
            url = make_url(storage)
            shown = url.render_as_string(hide_password=True)
            url.get_dialect()  # loads no driver
        except (ArgumentError, NoSuchModuleError) as error:
            raise SpecError(
                f"--storage {shown}: expected an address such as postgresql+psycopg://user@host/database or "
                f"sqlite:///study.db ({first_line(error)})."
            ) from error
    check_space(recipe)


def check_space(recipe: Recipe) -> None:
    """Raise if a key or value of the search space is invalid; tests both ends of every range and every choice alone.

    Raises:
        SpecError: the space is empty, a key is no setting, or a value does not fit its setting.
    """
    ranges = recipe.study.ranges()
    if not ranges:
        raise SpecError('there is nothing to search: give ranges in [study.space], "train.epochs" = [5, 10] for one.')
    keys = [setting.key for setting in manual(Recipe) if setting.key.split(".")[0] in VARIABLE_TABLES]
    for key, dimension in ranges.items():
        for value in dimension.extremes():
            try:
                with_variant(recipe, Variant("trial", {key: value}))
            except SpecError as error:
                if "unknown key" in str(error) or "cannot vary" in str(error):
                    raise SpecError(f"study.space names '{key}', which is no setting. {nearest(key, keys)}") from error
                message = str(error).removeprefix("variant 'trial': ")
                raise SpecError(f"study.space: '{key}' cannot be {plain(value)!r}: {message}") from error


def largest_search(spec: StudySpec) -> float:
    """Return the most trials that a study can have: the size of the space if its sampler exhausts it, else infinite."""
    return spec.size() if spec.sampler in ("GridSampler", "BruteForceSampler") else math.inf


def study_identity(recipe: Recipe) -> dict[str, Any]:
    """Return what all trials of a study share: settings, first seed and search space, as parsed from JSON."""
    tree = {key: value for key, value in plain(recipe).items() if key not in NOT_IDENTIFYING}
    tree["train"]["seeds"] = tree["train"]["seeds"][:1]
    del tree["train"]["track"]
    tree["study"] = {"space": {key: plain(vars(dimension)) for key, dimension in recipe.study.ranges().items()}}
    if plugins := origins_of(flatten_settings(plain(recipe))):
        tree["plugins"] = plugins
    as_stored: dict[str, Any] = json.loads(json.dumps(tree | {"format": STUDY_FORMAT}))
    return as_stored


def first_difference(first: Any, second: Any, key: str = "") -> str | None:
    """Return the first dotted key, in alphabetical order, at which two trees differ; None if they are equal."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return None if first == second else key
    names = sorted(first.keys() | second.keys())
    found = (first_difference(first.get(name), second.get(name), f"{key}.{name}" if key else name) for name in names)
    return next(filter(None, found), None)
