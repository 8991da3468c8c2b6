"""Optuna samplers and pruners by name, with options from a recipe.

Only this module, :mod:`permafrost.probes.search.trial_log` and :mod:`permafrost.probes.search.storage` import optuna.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna

from permafrost.data.errors import first_line
from permafrost.data.spec import SpecError, nearest
from permafrost.probes.config.study import Range, StudySpec

SEQUENCES = ("GridSampler", "QMCSampler")
"""Samplers that go through a fixed sequence of values, which the seed alone determines."""

INNER = {"base_sampler": "TPESampler", "wrapped_pruner": "MedianPruner"}
"""Parameter that takes another sampler or pruner, in a recipe by its name -> the default."""


def make_sampler(spec: StudySpec, ranges: Mapping[str, Range], turn: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a study for its ``turn``-th draw, counted from 0.

    Raises:
        SpecError: there is no such sampler, an option does not fit, or it needs an argument that no recipe can hold.
    """
    draw = 0 if spec.sampler in SEQUENCES else turn
    seed = int(np.random.SeedSequence([spec.seed, draw]).generate_state(1)[0])
    defaults = {"seed": seed, "warn_independent_sampling": False, "warn_asynchronous_seeding": False}
    sampler: optuna.samplers.BaseSampler = _make("sampler", spec.sampler, spec.sampler_options, defaults, ranges)
    return sampler


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Return the pruner of a study; errors as of :func:`make_sampler`."""
    pruner: optuna.pruners.BasePruner = _make("pruner", spec.pruner, spec.pruner_options, {}, {})
    return pruner


@contextlib.contextmanager
def silence_warnings() -> Iterator[None]:
    """Silence Optuna's warnings, which address programmers: experimental features, arguments that could be set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _make(
    kind: str, name: str, options: Mapping[str, object], defaults: Mapping[str, object], ranges: Mapping[str, Range]
) -> Any:
    """Return an instance of one of Optuna's classes, named in the recipe at ``study.<kind>``; errors name the setting.

    ``defaults`` are arguments that the class gets if it has such parameters and the recipe's ``options`` set none.
    """
    setting = f"study.{kind}"
    source = f"{setting} = '{name}'"
    module = optuna.samplers if kind == "sampler" else optuna.pruners
    class_names = [export for export in module.__all__ if export[0].isupper() and not export.startswith("Base")]
    if name not in class_names:
        raise SpecError(f"{source}: {nearest(name, class_names)}")
    made: Callable[..., Any] = vars(module)[name]
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(made).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    for key in options:
        if key not in parameters:
            raise SpecError(f"{setting}_options: {name} has no '{key}'. {nearest(key, parameters)}")
    arguments = {key: value for key, value in (dict(defaults) | dict(options)).items() if key in parameters}
    if "search_space" in parameters and not arguments.get("search_space"):
        grid = {key: dimension.values() for key, dimension in ranges.items()}
        if uncountable := [key for key, values in grid.items() if values is None]:
            raise SpecError(f"{source} needs values that can be counted: give '{uncountable[0]}' a step, or choices.")
        arguments["search_space"] = grid
    for key, inner in INNER.items():
        if key in parameters:
            arguments[key] = _make(kind, str(arguments.get(key) or inner), {}, defaults, ranges)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise SpecError(f"{source} needs '{key}': set it in {setting}_options.")
    try:
        with silence_warnings():
            return made(**arguments)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise SpecError(f"{source} cannot be made: {first_line(error)}") from error
