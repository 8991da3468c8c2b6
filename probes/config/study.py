"""Settings of ``[study]``: the search space, dotted recipe keys and their ranges, and the search itself.

Independent of Optuna: ``probes/search/samplers.py`` and ``probes/search/trial_log.py`` translate it.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeGuard

from permafrost.data.settings.toml import read_toml
from permafrost.data.spec import Raw, SpecError, nearest, plain

Scalar = str | int | float | bool

NOT_SEARCHABLE = ("train.seeds", "train.metric")
"""Keys that cannot be searched: trials are compared by one metric, and each trains a single seed."""


@dataclass(frozen=True)
class Interval:
    """A range of numbers from ``low`` to ``high``, both included; of integers if both are integers."""

    low: float
    high: float
    log: bool = False
    """Whether to sample uniformly on the logarithmic scale."""

    step: float | None = None
    """Spacing of the allowed values ``low``, ``low + step``, …; None allows every number."""

    @property
    def whole(self) -> bool:
        """Whether the range contains integers only."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def values(self) -> list[Scalar] | None:
        """Return all values of the range, or None if it is continuous."""
        if self.step is None and not self.whole:
            return None
        step = Decimal(str(self.step or 1))
        steps = range(int((Decimal(str(self.high)) - Decimal(str(self.low))) / step) + 1)
        numbers = (Decimal(str(self.low)) + index * step for index in steps)
        return [int(number) if self.whole else float(number) for number in numbers]

    def extremes(self) -> list[object]:
        """Return the two ends of the range, to validate them as values of the setting."""
        return [self.low, self.high]

    def decode(self, representation: Scalar) -> object:
        """Return the setting's value of a representation, for numbers the number itself."""
        return representation


@dataclass(frozen=True)
class Choice:
    """A choice between values; a list or a table is represented by its JSON text."""

    options: Mapping[Scalar, object]
    """Representation -> value of the setting."""

    def values(self) -> list[Scalar]:
        """Return the representations of all choices."""
        return list(self.options)

    def extremes(self) -> list[object]:
        """Return all values of the setting, to validate each."""
        return list(self.options.values())

    def decode(self, representation: Scalar) -> object:
        """Return the setting's value of a representation."""
        return self.options[representation]


Range = Interval | Choice


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """The hyperparameter search: its space, number of trials, sampler and pruner."""

    space: dict[str, object] = field(default_factory=dict)
    """Search space: dotted keys of the recipe (plan, probe, train, ...), each with a list of choices, or a table with
    low and high (both included) and optionally log = true or a step; integers if low and high are integers. For example
    "train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }."""

    trials: int = 50
    """Total number of finished trials, those of earlier sessions included."""

    sampler: str = "TPESampler"
    """Name of the Optuna sampler that proposes values, e.g. "RandomSampler"."""

    sampler_options: dict[str, object] = field(default_factory=dict)
    """Arguments of the sampler, e.g. { n_startup_trials = 20 }."""

    pruner: str = "MedianPruner"
    """Name of the Optuna pruner that stops trials early by the validation metric of each epoch; "NopPruner" stops
    none."""

    pruner_options: dict[str, object] = field(default_factory=dict)
    """Arguments of the pruner, e.g. { n_warmup_steps = 3 }."""

    seed: int = 0
    """Seed of the sampler. With one worker, the same seed gives the same trials, also if the study is stopped and
    resumed (CmaEsSampler and GridSampler propose other values after a trial that was cut short)."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds with which the best trial is trained again after the search."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SpecError(f"trials must be at least 1, got {self.trials}.")
        if self.seed < 0:
            raise SpecError(f"seed must not be negative, got {self.seed}.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds must name at least one, none negative and none twice, got {list(self.seeds)}.")
        flat: dict[str, object] = {}
        for key, setting in _flatten("", self.space):
            if key in flat:
                raise SpecError(f"space: '{key}' is given twice.")
            flat[key] = setting
        object.__setattr__(self, "space", flat)
        self.ranges()

    def ranges(self) -> dict[str, Range]:
        """Return the search space, dotted key -> range.

        Raises:
            SpecError: a range is empty, infinite or of an unknown form, or a key cannot be searched.
        """
        ranges: dict[str, Range] = {}
        for key, setting in self.space.items():
            if key in NOT_SEARCHABLE:
                raise SpecError(f"space: '{key}' cannot be searched: all trials of a study share it.")
            ranges[key] = _choice(key, setting) if isinstance(setting, (list, tuple)) else _interval(key, setting)
        return ranges

    def size(self) -> float:
        """Return the number of different trials, infinite if a range is continuous."""
        grid = [dimension.values() for dimension in self.ranges().values()]
        return math.inf if any(values is None for values in grid) else math.prod(len(v) for v in grid if v)


def _flatten(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield dotted keys and their values; unquoted ``train.epochs = …``, a nested table, equals the quoted key."""
    for key, value in table.items():
        value = _with_types(f"{prefix}{key}", value)
        if isinstance(value, Mapping) and value and all(isinstance(inner, (Mapping, list)) for inner in value.values()):
            yield from _flatten(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value


def _with_types(key: str, value: object) -> object:
    """Parse values of ``--set study.space.KEY=VALUE``, which arrive as text."""
    if isinstance(value, Mapping):
        return {name: _with_types(f"{key}.{name}", inner) for name, inner in value.items()}
    return read_toml(f"value = {value}", f"study.space.{key}")["value"] if isinstance(value, Raw) else value


def _interval(key: str, setting: object) -> Interval:
    source = f"space: '{key}'"
    if not isinstance(setting, Mapping):
        raise SpecError(f"{source} must be a list of choices or a table with low and high, got {json.dumps(setting)}.")
    for name in setting:
        if name not in ("low", "high", "log", "step"):
            raise SpecError(f"{source}: unknown key '{name}'. {nearest(name, ('low', 'high', 'log', 'step'))}")
    low, high, log, step = setting.get("low"), setting.get("high"), setting.get("log", False), setting.get("step")
    if not _is_number(low) or not _is_number(high):
        raise SpecError(f"{source} needs numbers for low and high, got {json.dumps(plain(setting))}.")
    if not isinstance(log, bool):
        raise SpecError(f"{source}: log must be true or false, got {json.dumps(log)}.")
    if not low < high:
        raise SpecError(f"{source}: low must be less than high, got low = {low} and high = {high}.")
    if log and low <= 0:
        raise SpecError(f"{source}: a logarithmic range needs low above 0, got low = {low}.")
    if step is not None:
        if not _is_number(step) or step <= 0:
            raise SpecError(f"{source}: step must be a number above 0, got {json.dumps(step)}.")
        if log:
            raise SpecError(f"{source}: a range is logarithmic or has a step, not both.")
        if remainder := (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
            reached = Decimal(str(high)) - remainder
            raise SpecError(f"{source}: steps of {step} from {low} do not reach high = {high}; the last is {reached}.")
    whole = all(isinstance(value, int) for value in (low, high, step or 0))
    return Interval(low, high, log, step) if whole else Interval(float(low), float(high), log, step and float(step))


def _choice(key: str, values: list[object] | tuple[object, ...]) -> Choice:
    if not values:
        raise SpecError(f"space: '{key}' offers no choice.")
    options = {(value if isinstance(value, Scalar) else json.dumps(plain(value))): value for value in values}
    repeated = [
        f"{json.dumps(plain(first))} and {json.dumps(plain(second))}"
        for first, second in itertools.combinations(values, 2)
        if first == second
    ]
    if repeated or len(options) < len(values):
        raise SpecError(f"space: '{key}' offers the same choice twice: {repeated[0] if repeated else list(options)}.")
    return Choice(options)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
