"""The search space of a study: dotted keys of a recipe and what each may become. Knows nothing of Optuna."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeGuard

from permafrost.data.spec import Raw, SpecError, nearest, plain, read_toml

Scalar = str | int | float | bool

FIXED = ("train.seeds", "train.metric")
"""Keys that every trial has in common: values are compared by one metric, and a trial is one training."""


@dataclass(frozen=True)
class Interval:
    """Any number from ``low`` to ``high``, both included; whole where both are."""

    low: float
    high: float
    log: bool = False
    """Draw the logarithm evenly."""

    step: float | None = None
    """Only ``low``, ``low + step``, …"""

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def values(self) -> list[Scalar] | None:
        """Every value there is; None where they cannot be counted."""
        if self.step is None and not self.whole:
            return None
        step = Decimal(str(self.step or 1))
        steps = range(int((Decimal(str(self.high)) - Decimal(str(self.low))) / step) + 1)
        numbers = (Decimal(str(self.low)) + index * step for index in steps)
        return [int(number) if self.whole else float(number) for number in numbers]

    def extremes(self) -> list[object]:
        """The values that show whether the setting takes this range."""
        return [self.low, self.high]

    def decode(self, offered: Scalar) -> object:
        """The setting's value behind an offered one."""
        return offered


@dataclass(frozen=True)
class Choice:
    """One of some values; a list or a table is offered as its JSON text."""

    options: Mapping[Scalar, object]

    def values(self) -> list[Scalar]:
        """Every value that is offered."""
        return list(self.options)

    def extremes(self) -> list[object]:
        """The values that show whether the setting takes these choices."""
        return list(self.options.values())

    def decode(self, offered: Scalar) -> object:
        """The setting's value behind an offered one."""
        return self.options[offered]


Range = Interval | Choice


@dataclass(frozen=True)
class StudySpec:
    """What a study searches and how."""

    space: dict[str, object] = field(default_factory=dict)
    """Dotted keys of plan, probe or train and what they may become: a list of choices, or a table with low, high
    and, where wanted, log = true or step; whole numbers where low and high are. For example
    "train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }."""

    trials: int = 50
    """Trials that the study holds in the end, those of earlier sessions counted."""

    sampler: str = "TPESampler"
    """What proposes values: the name of any sampler of Optuna."""

    sampler_options: dict[str, object] = field(default_factory=dict)
    """Arguments of the sampler, for example { n_startup_trials = 20 }."""

    pruner: str = "MedianPruner"
    """What stops a trial early by its validation metric after each epoch: any pruner of Optuna; NopPruner for none."""

    pruner_options: dict[str, object] = field(default_factory=dict)
    """Arguments of the pruner, for example { n_warmup_steps = 3 }."""

    seed: int = 0
    """Same seed, one worker: same trials. To stop and resume changes none of them; a training that is cut short changes
    what samplers propose that count trials: CmaEsSampler and GridSampler."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds with which the best trial is trained again."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SpecError(f"trials must be at least 1, got {self.trials}.")
        if self.seed < 0:
            raise SpecError(f"seed must not be negative, got {self.seed}.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds must name at least one, none negative and none twice, got {list(self.seeds)}.")
        flat: dict[str, object] = {}
        for key, given in _flat("", self.space):
            if key in flat:
                raise SpecError(f"space: '{key}' is given twice.")
            flat[key] = given
        object.__setattr__(self, "space", flat)
        self.ranges()

    def ranges(self) -> dict[str, Range]:
        """Dotted key -> what it may become.

        Raises:
            SpecError: a range that is empty, endless or of no kind we know; a key that all trials must share.
        """
        found: dict[str, Range] = {}
        for key, given in self.space.items():
            if key in FIXED:
                raise SpecError(f"space: '{key}' cannot be searched: all trials of a study share it.")
            found[key] = _choice(key, given) if isinstance(given, (list, tuple)) else _between(key, given)
        return found

    def size(self) -> float:
        """How many different trials there can be."""
        counts = [one.values() for one in self.ranges().values()]
        return math.inf if any(values is None for values in counts) else math.prod(len(v) for v in counts if v)


def _flat(prefix: str, table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """``train.epochs = …`` without quotes is a table in a table; both are the same key."""
    for key, value in table.items():
        value = _typed(f"{prefix}{key}", value)
        if isinstance(value, Mapping) and value and all(isinstance(inner, (Mapping, list)) for inner in value.values()):
            yield from _flat(f"{prefix}{key}.", value)
        else:
            yield prefix + key, value


def _typed(key: str, value: object) -> object:
    """What ``--set study.space.KEY=VALUE`` says."""
    if isinstance(value, Mapping):
        return {name: _typed(f"{key}.{name}", inner) for name, inner in value.items()}
    return read_toml(f"value = {value}", f"study.space.{key}")["value"] if isinstance(value, Raw) else value


def _between(key: str, given: object) -> Interval:
    place = f"space: '{key}'"
    if not isinstance(given, Mapping):
        raise SpecError(f"{place} must be a list of choices or a table with low and high, got {json.dumps(given)}.")
    for name in given:
        if name not in ("low", "high", "log", "step"):
            raise SpecError(f"{place}: unknown key '{name}'. {nearest(name, ('low', 'high', 'log', 'step'))}")
    low, high, log, step = given.get("low"), given.get("high"), given.get("log", False), given.get("step")
    if not _number(low) or not _number(high):
        raise SpecError(f"{place} needs numbers for low and high, got {json.dumps(plain(given))}.")
    if not isinstance(log, bool):
        raise SpecError(f"{place}: log must be true or false, got {json.dumps(log)}.")
    if not low < high:
        raise SpecError(f"{place}: low must be less than high, got low = {low} and high = {high}.")
    if log and low <= 0:
        raise SpecError(f"{place}: a logarithmic range needs low above 0, got low = {low}.")
    if step is not None:
        _check_step(place, low, high, step, log)
        assert _number(step)
    whole = all(isinstance(value, int) for value in (low, high, step or 0))
    return Interval(low, high, log, step) if whole else Interval(float(low), float(high), log, step and float(step))


def _check_step(place: str, low: float, high: float, step: object, log: bool) -> None:
    if not _number(step) or step <= 0:
        raise SpecError(f"{place}: step must be a number above 0, got {json.dumps(step)}.")
    if log:
        raise SpecError(f"{place}: a range is logarithmic or has a step, not both.")
    left = (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))
    if left:
        reached = Decimal(str(high)) - left
        raise SpecError(f"{place}: steps of {step} from {low} do not reach high = {high}; the last is {reached}.")


def _choice(key: str, given: list[object] | tuple[object, ...]) -> Choice:
    if not given:
        raise SpecError(f"space: '{key}' offers no choice.")
    options = {(value if isinstance(value, Scalar) else json.dumps(plain(value))): value for value in given}
    twice = [
        f"{json.dumps(plain(first))} and {json.dumps(plain(second))}"
        for first, second in itertools.combinations(given, 2)
        if first == second
    ]
    if twice or len(options) < len(given):
        raise SpecError(f"space: '{key}' offers the same choice twice: {twice[0] if twice else list(options)}.")
    return Choice(options)


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
