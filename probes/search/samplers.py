"""Optuna samplers and pruners by name, with options from a recipe.

Only this module, :mod:`permafrost.probes.search.trial_log` and :mod:`permafrost.probes.search.storage` import optuna.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import optuna

from permafrost.data.spec import SpecError
from permafrost.probes.config.study import Range, Scalar, StudySpec
from permafrost.probes.search.factory import from_name

SEQUENCES = ("GridSampler", "QMCSampler")
"""Samplers that go through a fixed sequence of values, which the seed alone determines."""


def make_sampler(spec: StudySpec, ranges: Mapping[str, Range], turn: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a study for its ``turn``-th draw, counted from 0.

    Raises:
        SpecError: there is no such sampler, an option does not fit, or it needs an argument that no recipe can hold.
    """
    draw = 0 if spec.sampler in SEQUENCES else turn
    seed = int(np.random.SeedSequence([spec.seed, draw]).generate_state(1)[0])
    defaults = {"seed": seed, "warn_independent_sampling": False, "warn_asynchronous_seeding": False}
    sampler = _make("sampler", spec.sampler, spec.sampler_options, defaults, ranges)
    return cast(optuna.samplers.BaseSampler, sampler)


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Return the pruner of a study; errors as of :func:`make_sampler`."""
    return cast(optuna.pruners.BasePruner, _make("pruner", spec.pruner, spec.pruner_options, {}, {}))


@contextlib.contextmanager
def silence_warnings() -> Iterator[None]:
    """Silence Optuna's warnings, which address programmers: experimental features, arguments that could be set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _make(
    kind: str, name: str, options: Mapping[str, object], defaults: Mapping[str, object], ranges: Mapping[str, Range]
) -> object:
    module = optuna.samplers if kind == "sampler" else optuna.pruners
    class_names = [export for export in module.__all__ if export[0].isupper() and not export.startswith("Base")]
    classes = {class_name: vars(module)[class_name] for class_name in class_names}

    def make_inner(name: object) -> object:
        return _make(kind, str(name), {}, defaults, ranges)

    builders = {
        "search_space": lambda option: option or _grid(f"study.{kind} = '{name}'", ranges),
        "base_sampler": lambda option: make_inner(option or "TPESampler"),
        "wrapped_pruner": lambda option: make_inner(option or "MedianPruner"),
    }
    with silence_warnings():
        return from_name(f"study.{kind}", name, classes, options, defaults, builders)


def _grid(source: str, ranges: Mapping[str, Range]) -> dict[str, list[Scalar]]:
    grid = {key: dimension.values() for key, dimension in ranges.items()}
    for key, values in grid.items():
        if values is None:
            raise SpecError(f"{source} needs values that can be counted: give '{key}' a step, or choices.")
    return cast(dict[str, list[Scalar]], grid)
