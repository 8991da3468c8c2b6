"""A trial: a recipe with some settings replaced, trained once, judged by one number. Knows nothing of Optuna."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from permafrost.data.spec import SpecError, manual, nearest, plain
from permafrost.probes.config.recipe import VARIABLE_TABLES, Recipe, Variant, with_variant
from permafrost.probes.config.study import Scalar, StudySpec

UNTOLD = ("summary", "duration", "extract", "variants")
"""Of a recipe, what changes no trial."""

AfterEpoch = Callable[[int, float], None]
"""Told of every epoch, counted from 0, and its validation metric."""


@dataclass(frozen=True)
class Evaluation:
    """What a training came to."""

    value: float
    """The best validation metric; larger is better."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Further numbers worth a column."""


class Evaluate(Protocol):
    """Trains a recipe with its one seed."""

    def __call__(self, recipe: Recipe, after_epoch: AfterEpoch, /) -> float | Evaluation:
        """The best validation metric."""


MakeEvaluate = Callable[[Recipe, Path], Evaluate]
"""Called once in every worker with the recipe and the folder that the workers share; a function of a module."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    state: Literal["complete", "pruned", "refused"]
    value: float | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    """Why it was refused."""


class TrialPruned(Exception):  # noqa: N818  no error
    """Raised out of a training that is not worth going on with."""


def with_params(recipe: Recipe, name: str, params: Mapping[str, Scalar]) -> Recipe:
    """The recipe with offered values in their places, and the first of its seeds."""
    ranges = recipe.study.ranges()
    meant = {key: ranges[key].decode(value) for key, value in params.items()}
    made = with_variant(recipe, Variant(name, meant))
    return replace(made, train=replace(made.train, seeds=recipe.train.seeds[:1]))


def best_recipe(recipe: Recipe, summary: str, params: Mapping[str, Scalar]) -> Recipe:
    """The recipe of the best trial, to be trained with all seeds of the study."""
    made = with_params(recipe, "best", params)
    train = replace(made.train, seeds=recipe.study.seeds)
    return replace(made, summary=summary, duration="", train=train, study=StudySpec())


def attempt(
    evaluate: Evaluate,
    recipe: Recipe,
    number: int,
    params: Mapping[str, Scalar],
    report: Callable[[int, float], bool],
) -> TrialResult:
    """Run a trial; ``report`` says after each epoch whether to stop it."""

    def after_epoch(epoch: int, value: float) -> None:
        if report(epoch, value):
            raise TrialPruned

    try:
        said = evaluate(with_params(recipe, f"trial-{number}", params), after_epoch)
    except TrialPruned:
        return TrialResult("pruned")
    except SpecError as error:
        return TrialResult("refused", reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # torch has no error for it
            raise
        return TrialResult("refused", reason="it does not fit into memory.")
    done = said if isinstance(said, Evaluation) else Evaluation(float(said))
    if not math.isfinite(done.value):
        return TrialResult("refused", reason=f"its validation metric is {done.value}.")
    return TrialResult("complete", done.value, done.attributes)


def check_space(recipe: Recipe) -> None:
    """Try both ends of every range and every choice, each alone, so that no trial fails by a misspelt key.

    Raises:
        SpecError: there is nothing to search, a key is no setting, or a value does not fit it.
    """
    ranges = recipe.study.ranges()
    if not ranges:
        raise SpecError('there is nothing to search: give ranges in [study.space], "train.epochs" = [5, 10] for one.')
    known = [setting.key for setting in manual(Recipe) if setting.key.split(".")[0] in VARIABLE_TABLES]
    for key, one in ranges.items():
        for value in one.extremes():
            try:
                with_variant(recipe, Variant("trial", {key: value}))
            except SpecError as error:
                if "unknown key" in str(error) or "cannot vary" in str(error):
                    raise SpecError(f"study.space names '{key}', which is no setting. {nearest(key, known)}") from error
                message = str(error).removeprefix("variant 'trial': ")
                raise SpecError(f"study.space: '{key}' cannot be {plain(value)!r}: {message}") from error


def identity(recipe: Recipe) -> dict[str, Any]:
    """What the trials of one study have in common: recipe, first seed and search space."""
    tree = {key: value for key, value in plain(recipe).items() if key not in UNTOLD}
    tree["train"]["seeds"] = tree["train"]["seeds"][:1]
    tree["study"] = {"space": {key: plain(vars(one)) for key, one in recipe.study.ranges().items()}}
    as_stored: dict[str, Any] = json.loads(json.dumps(tree))
    return as_stored


def difference(first: Any, second: Any, key: str = "") -> str | None:
    """The dotted key where two trees first differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted(first.keys() | second.keys()):
            found = difference(first.get(name), second.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return None
    return None if first == second else key
